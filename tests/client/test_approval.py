"""Which app bundles may run: the installed release's content, or one exact archive."""

from __future__ import annotations

import hashlib
import io
import warnings
import zipfile
from collections.abc import Sequence
from importlib.resources import as_file, files

import pytest
from flwr.cli.build import build_fab_from_disk

from client.approval import MANIFEST, MOST_BYTES, PROJECT, objection_to, release_hash


@pytest.fixture(scope="module")
def ours() -> bytes:
    """What `flwr run` submits."""
    with as_file(files("deploy") / "app") as folder:
        return build_fab_from_disk(folder)


def entries(bundle: bytes) -> list[tuple[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return [(entry.filename, archive.read(entry)) for entry in archive.infolist()]


def packed(content: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", compression) as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a name that comes twice is what one test is about
        for name, text in content:
            archive.writestr(name, text)
    return made.getvalue()


def test_the_bundle_that_flower_builds_of_ours_is_approved(ours: bytes) -> None:
    assert objection_to(ours, None) is None


def test_the_same_content_packed_otherwise_is_approved(ours: bytes) -> None:
    other = packed(entries(ours), zipfile.ZIP_STORED)
    assert other != ours
    assert objection_to(other, None) is None


def test_the_hash_is_the_same_each_time_and_flowers(ours: bytes) -> None:
    assert release_hash() == release_hash() == hashlib.sha256(ours).hexdigest()


def test_any_other_content_is_refused(ours: bytes) -> None:
    files_of = dict(entries(ours))
    project, manifest = files_of[PROJECT], files_of[MANIFEST]
    changed = project.replace(b"client.app:app", b"other.app:app")
    assert changed != project
    more = [(PROJECT, project), ("client/app.py", b"app = None"), (MANIFEST, manifest)]
    for bundle, words in [
        (packed(more), "holds more than pyproject.toml: client/app.py"),
        (packed([(PROJECT, changed), (MANIFEST, manifest)]), "is not that of the installed"),
        (packed([(PROJECT, project), (PROJECT, changed), (MANIFEST, manifest)]), "a file twice"),
        (packed([(MANIFEST, manifest)]), "holds more than"),
        (packed([(PROJECT, b"[" * 3), (MANIFEST, manifest)]), "no readable bundle"),
        (packed([(PROJECT, b"\xff"), (MANIFEST, manifest)]), "no readable bundle"),
        (packed([(PROJECT, project), (MANIFEST, b" " * MOST_BYTES)]), "larger than any"),
        (ours[:-30], "no readable bundle"),
        (b"", "no readable bundle"),
    ]:
        assert words in str(objection_to(bundle, None)), words


def test_a_named_hash_approves_that_archive_alone(ours: bytes) -> None:
    foreign = packed([("client/app.py", b"app = None")])
    named = hashlib.sha256(foreign).hexdigest()
    assert objection_to(foreign, named) is None
    assert named in str(objection_to(ours, named))
