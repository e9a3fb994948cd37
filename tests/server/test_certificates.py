"""Certificates that a TLS library takes: a real handshake, a renewal under the same authority."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest

from hymate.errors import InputFault
from server.certificates import make_certificates


def handshake(folder: Path, ca: Path, host: str) -> str:
    """What a client that trusts `ca` and calls `host` says of the server in `folder`: '' is fine."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(folder / "server.crt", folder / "server.key")
    near, far = socket.socketpair()

    def answer() -> None:
        try:
            server.wrap_socket(far, server_side=True).close()
        except OSError:
            far.close()

    thread = threading.Thread(target=answer)
    thread.start()
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    try:
        client.wrap_socket(near, server_hostname=host).close()
    except ssl.SSLCertVerificationError as fault:
        return fault.verify_message
    finally:
        near.close()
        thread.join()
    return ""


def test_a_client_trusts_the_names_it_was_made_for_and_no_others(tmp_path: Path) -> None:
    made = make_certificates(tmp_path / "tls", ["coordinator.example.org", "192.0.2.7"])
    for host in ("coordinator.example.org", "192.0.2.7", "localhost", "127.0.0.1"):
        assert handshake(tmp_path / "tls", made["ca.crt"], host) == "", host
    assert "mismatch" in handshake(tmp_path / "tls", made["ca.crt"], "other.example.org")
    other = make_certificates(tmp_path / "other", ["coordinator.example.org"])
    assert handshake(tmp_path / "tls", other["ca.crt"], "coordinator.example.org") != ""


def test_renewing_keeps_the_authority_that_sites_trust(tmp_path: Path) -> None:
    first = {name: path.read_bytes() for name, path in make_certificates(tmp_path, ["localhost"]).items()}
    second = {name: path.read_bytes() for name, path in make_certificates(tmp_path, ["new.host"]).items()}
    assert {name for name in first if first[name] != second[name]} == {"server.crt", "server.key"}
    assert handshake(tmp_path, tmp_path / "ca.crt", "new.host") == ""


def test_private_keys_are_the_owners_alone(tmp_path: Path) -> None:
    made = make_certificates(tmp_path, ["localhost"])
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE(made[name].stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("hosts", "words"),
    [([], "is missing"), (["a host"], "neither"), (["host:9092"], "neither"), (["ü"], "neither")],
)
def test_a_bad_host_is_named(hosts: list[str], words: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match=words):
        make_certificates(tmp_path, hosts)
    assert not list(tmp_path.iterdir())


def test_half_an_authority_or_another_ones_key_is_refused(tmp_path: Path) -> None:
    make_certificates(tmp_path, ["localhost"])
    make_certificates(tmp_path / "other", ["localhost"])
    (tmp_path / "other" / "ca.key").replace(tmp_path / "ca.key")
    with pytest.raises(InputFault, match="is not the elliptic curve key of"):
        make_certificates(tmp_path, ["localhost"])
    (tmp_path / "ca.key").unlink()
    with pytest.raises(InputFault, match=r"lies there without ca\.key"):
        make_certificates(tmp_path, ["localhost"])
