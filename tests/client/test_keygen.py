"""The site's key: who may read it, and that nothing is overwritten."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec

from client import cli
from client.keygen import fingerprint_of, make_key, public_key_of
from hymate.command import run_command
from hymate.errors import InputFault


@pytest.fixture
def open_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


def test_only_the_owner_may_read_the_private_key(tmp_path: Path, open_umask: None) -> None:
    made = make_key(tmp_path / "keys", "north")
    assert stat.S_IMODE(made.private.stat().st_mode) == 0o600
    assert stat.S_IMODE(made.public.stat().st_mode) == 0o644


def test_the_pair_is_what_flower_nodes_use(tmp_path: Path) -> None:
    made = make_key(tmp_path, "north")
    private = form.load_ssh_private_key(made.private.read_bytes(), None)
    assert isinstance(private, ec.EllipticCurvePrivateKey)
    assert private.curve.name == "secp384r1"
    line = made.public.read_bytes()
    assert form.load_ssh_public_key(line) == private.public_key()
    assert line.endswith(b" north\n")
    assert line.startswith(public_key_of(made.private) + b" ")
    assert made.fingerprint == fingerprint_of(line)


def test_the_fingerprint_is_that_of_openssh(tmp_path: Path) -> None:
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed")
    made = make_key(tmp_path, "north")
    told = subprocess.run(["ssh-keygen", "-lf", made.public], capture_output=True, text=True, check=True)
    assert told.stdout.split()[1] == made.fingerprint


@pytest.mark.parametrize("written", [0, 1])
def test_a_full_disk_leaves_no_half_pair(
    written: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushes = iter([None] * written)

    def flush(descriptor: int) -> None:
        if next(flushes, "full") is not None:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", flush)
    with pytest.raises(InputFault, match="No space left"):
        make_key(tmp_path, "north")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("there", ["north.key", "north.pub"])
def test_an_existing_file_is_kept(there: str, tmp_path: Path) -> None:
    (tmp_path / there).write_text("mine")
    with pytest.raises(InputFault, match="exists already"):
        make_key(tmp_path, "north")
    assert [path.name for path in tmp_path.iterdir()] == [there]
    assert (tmp_path / there).read_text() == "mine"


def test_the_command_says_what_to_send(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["keygen", "--out", str(tmp_path), "--name", "north"]
    assert run_command(cli.client_app, "hymate-client", words) == 0
    told = capsys.readouterr().out
    assert "SHA256:" in told
    assert "send it to the coordinator" in told
    assert run_command(cli.client_app, "hymate-client", words) == 2
    assert "exists already" in capsys.readouterr().err
    assert run_command(cli.client_app, "hymate-client", [*words[:-1], "../north"]) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"no key", "no unencrypted private key"), (None, "cannot be read")],
)
def test_what_is_no_key_is_said(content: bytes | None, words: str, tmp_path: Path) -> None:
    path = tmp_path / "site.key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputFault, match=words):
        public_key_of(path)


def test_a_key_of_another_curve_is_refused(tmp_path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    secret = key.private_bytes(form.Encoding.PEM, form.PrivateFormat.OpenSSH, form.NoEncryption())
    (tmp_path / "site.key").write_bytes(secret)
    with pytest.raises(InputFault, match="P-384"):
        public_key_of(tmp_path / "site.key")
