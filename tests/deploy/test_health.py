"""`python -m hymate.health`, the HEALTHCHECK of the images, against Flower's own health service."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from flwr.supercore.grpc_health import run_health_server_grpc_no_tls
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from hymate.errors import InputFault
from hymate.health import main, trouble


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def flower_health() -> Iterator[str]:
    """The address of the service SuperLink and SuperNode start."""
    address = f"127.0.0.1:{free_port()}"
    server = run_health_server_grpc_no_tls(address)
    yield address
    server.stop(None).wait()


def test_a_serving_process_is_healthy(flower_health: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([flower_health]) == 0
    assert capsys.readouterr().err == ""


def test_a_proxy_in_the_environment_is_not_asked(flower_health: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert trouble(flower_health) == ""


def test_the_command_line_is_the_one_of_the_images(flower_health: str) -> None:
    command = [sys.executable, "-m", "hymate.health"]
    assert subprocess.run([*command, flower_health], check=False, timeout=60).returncode == 0
    dead = subprocess.run(
        [*command, f"127.0.0.1:{free_port()}"], check=False, timeout=60, capture_output=True, text=True
    )
    assert dead.returncode == 1
    assert "UNAVAILABLE" in dead.stderr
    assert dead.stderr.count("\n") == 1


def test_a_service_that_says_not_serving_is_not_healthy() -> None:
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.NOT_SERVING)
    server = grpc.server(ThreadPoolExecutor(1))
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        assert trouble(f"127.0.0.1:{port}") == f"127.0.0.1:{port}: NOT_SERVING"
    finally:
        server.stop(None).wait()


def test_a_listener_that_never_answers_ends_in_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        assert trouble(f"127.0.0.1:{port}", timeout_s=0.3).startswith(f"127.0.0.1:{port}: ")


@pytest.mark.parametrize("address", ["", "9091", "host:", ":9091", "host:port", "host:0", "host:70000"])
def test_no_address_is_said_in_one_line(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputFault, match="HOST:PORT"):
        trouble(address)
    assert main([address]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_usage_without_an_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err


def test_importing_it_needs_no_grpc() -> None:
    code = "import sys, hymate.health; sys.exit('grpc' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
