"""A real coordinator on loopback for the site's tests: SuperLink with TLS and node keys."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

BIN = Path(sys.executable).parent
TIMEOUT_S = 90.0


def until(happened: Callable[[], Any], what: str, timeout_s: float = TIMEOUT_S) -> Any:
    """Wait for a truth; a bound so generous that only a hang reaches it."""
    deadline = time.monotonic() + timeout_s
    while not (found := happened()):
        assert time.monotonic() < deadline, f"still not: {what}"
        time.sleep(0.05)
    return found


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def write_certificates(
    folder: Path, *, begins: dt.timedelta = dt.timedelta(days=-1), lasts: dt.timedelta = dt.timedelta(days=99)
) -> None:
    """`ca.crt`, `server.crt` (for 127.0.0.1 and localhost), `server.key`; validity from now + begins."""
    folder.mkdir(parents=True, exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    authority, server = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
    root = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test authority")])

    def begin(name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(root)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), critical=False
            )
        )

    usage = x509.KeyUsage(True, False, False, False, False, True, True, False, False)
    signed = (
        begin(root, authority)
        .not_valid_before(now - dt.timedelta(days=365))
        .not_valid_after(now + dt.timedelta(days=365))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
        .sign(authority, hashes.SHA384())
    )
    names: list[x509.GeneralName] = [
        x509.DNSName("localhost"),
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
    ]
    issued = (
        begin(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "coordinator")]), server)
        .not_valid_before(now + begins)
        .not_valid_after(now + begins + lasts)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(authority, hashes.SHA384())
    )
    (folder / "ca.crt").write_bytes(signed.public_bytes(form.Encoding.PEM))
    (folder / "server.crt").write_bytes(issued.public_bytes(form.Encoding.PEM))
    (folder / "server.key").write_bytes(
        server.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
    )


@dataclass
class Coordinator:
    """A running SuperLink and Flower's own command to talk to it."""

    folder: Path
    port: int
    health_port: int

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def flwr(self, *words: str) -> dict[str, Any]:
        done = subprocess.run(
            [str(BIN / "flwr"), *words, "--format", "json"],
            env=environment(self.folder),
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        return dict(json.loads(done.stdout))

    def register(self, public: Path, name: str) -> int:
        answer = self.flwr("supernode", "register", str(public), "study", "--name", name)
        return int(answer["node-id"])

    def status_of(self, node: int) -> str:
        nodes = self.flwr("supernode", "list", "study")["nodes"]
        return next(str(found["status"]) for found in nodes if str(found["node-id"]) == str(node))

    def submit(self, app: Path, **config: str) -> str:
        settings = " ".join(f"{key}={json.dumps(value)}" for key, value in config.items())
        answer = self.flwr("run", str(app), "study", "--run-config", settings)
        assert answer.get("success"), answer
        return str(answer["run-id"])


def environment(folder: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ.get('PATH', '')}",
        "FLWR_HOME": str(folder / "flower"),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.05",
        "OMP_NUM_THREADS": "1",
    }


@contextlib.contextmanager
def superlink(folder: Path, port: int | None = None) -> Iterator[Coordinator]:
    """A SuperLink for the length of a `with` block; `folder` holds its certificates and its state."""
    if not (folder / "ca.crt").is_file():
        write_certificates(folder)
    made = Coordinator(folder, port or free_port(), free_port())
    (folder / "flower").mkdir(exist_ok=True)
    (folder / "flower" / "config.toml").write_text(
        '[superlink]\ndefault = "study"\n\n[superlink.study]\n'
        f'address = "{made.address}"\nroot-certificates = "{folder / "ca.crt"}"\n'
    )
    with (folder / "superlink.log").open("ab") as log:
        process = subprocess.Popen(
            [
                str(BIN / "flower-superlink"),
                *(
                    "--ssl-certfile",
                    "server.crt",
                    "--ssl-keyfile",
                    "server.key",
                    "--ssl-ca-certfile",
                    "ca.crt",
                ),
                *("--database", "state.db", "--enable-supernode-auth"),
                *("--host", "127.0.0.1", "--port", str(made.port)),
                *("--health-server-address", f"127.0.0.1:{made.health_port}"),
                "--disable-runtime-dependency-installation",
            ],
            cwd=folder,
            env=environment(folder),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        trusting = ssl.create_default_context()
        trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE

        def healthy() -> bool:
            assert process.poll() is None, (folder / "superlink.log").read_text()[-2000:]
            with contextlib.suppress(OSError):
                url = f"https://{made.address}/health"
                urllib.request.urlopen(url, timeout=5, context=trusting).close()
                return True
            return False

        until(healthy, "SuperLink answers")
        yield made
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(15)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
