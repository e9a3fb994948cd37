"""What keeps a site or a coordinator from beginning: a key, a certificate, a port."""

from __future__ import annotations

import datetime as dt
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from benchmarks.ports import free_ports
from tests.faults.conftest import Build
from tests.faults.federation import Federation, until
from tests.server.deployed import write_key

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

NORTH = "hospital_1"


def test_a_wrong_key(federation: Build) -> None:
    """The site is told which key it showed, and goes on trying; the coordinator, who is missing."""
    one = federation(federation={"wait_minutes": 0.5})
    write_key(one.folder / "keys", "stranger")
    one.write_site(NORTH, key="../../keys/stranger.key")
    site = one.start_client(NORTH)
    one.start_client("hospital_2")
    server = one.start_server()
    until(lambda: "does not know this site's key (SHA256:" in one.told(NORTH), "the site is told")
    assert one.finish(server) == 1
    assert "sites connected within 0.5 minutes; missing: hospital_1" in one.last_line()
    assert "let them run `hymate-client check`" in one.last_line()
    assert site.poll() is None


def expire(tls: Path) -> None:
    """Replace the coordinator's certificate by one that was good until yesterday."""
    now = dt.datetime.now(dt.UTC)
    old = x509.load_pem_x509_certificate((tls / "server.crt").read_bytes())
    authority = x509.load_pem_x509_certificate((tls / "ca.crt").read_bytes())
    key = serialization.load_pem_private_key((tls / "ca.key").read_bytes(), None)
    made = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(authority.subject)
        .public_key(old.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=2))
        .not_valid_after(now - dt.timedelta(days=1))
    )
    for extension in old.extensions:
        made = made.add_extension(extension.value, extension.critical)
    signed = made.sign(key, hashes.SHA256())  # type: ignore[arg-type]
    (tls / "server.crt").write_bytes(signed.public_bytes(serialization.Encoding.PEM))


@contextmanager
def listening(one: Federation) -> Iterator[None]:
    """A coordinator that shows its certificate, and goes no further."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(one.folder / "tls" / "server.crt", one.folder / "tls" / "server.key")
    server = socket.create_server(("127.0.0.1", one.port))

    def accept() -> None:
        while True:
            try:
                caller, _ = server.accept()
            except OSError:
                return
            with suppress(OSError):
                context.wrap_socket(caller, server_side=True).close()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        thread.join(10)


def test_an_expired_certificate(federation: Build) -> None:
    """`flower-server` does not begin with one; a site that is shown one says so, and goes no further."""
    one = federation()
    expire(one.folder / "tls")
    assert one.finish(one.start_server()) == 2
    assert "server.crt: expired on" in one.last_line()
    assert "flower-server certificates" in one.last_line()
    assert not one.run.exists()
    with listening(one):
        one.start_client(NORTH)
        refused = "its certificate is not accepted (certificate has expired)"
        until(lambda: refused in one.told(NORTH), "the site says so")


def test_a_port_in_use(federation: Build) -> None:
    """At the coordinator: one line, nothing begun. At the site: one line, it runs without."""
    one = federation()
    for port, key in ((one.port, "address"), (one.health, "health_address")):
        with socket.socket() as other:
            other.bind(("127.0.0.1", port))
            other.listen()
            assert one.finish(one.start_server()) == 2
        assert f"federation.{key} 127.0.0.1:{port}: cannot listen there: Address already in use" in one.told()
        assert not one.run.exists()
    (port,) = free_ports(1)
    one.write_site(NORTH, health_address=f"127.0.0.1:{port}")
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
        other.listen()
        site = one.start_client(NORTH)
        assert site.wait(60) == 2
    assert f"health_address 127.0.0.1:{port}" in one.last_line(NORTH)
    assert "Address already in use" in one.last_line(NORTH)


def test_a_site_that_cannot_begin_says_why(federation: Build) -> None:
    """Where its own process breaks down each time: the cause is told, and where to read more."""
    one = federation()
    (one.home(NORTH) / "state" / ".flower" / "trusted-entities.yaml").mkdir(parents=True)
    site = one.start_client(NORTH, "--give-up-after", "0.3")
    assert site.wait(120) == 1
    assert "its SuperNode ended: IsADirectoryError" in one.last_line(NORTH)
    assert "supernode.log" in one.last_line(NORTH)
