"""Which Flower app bundle (FAB) may run at this site.

A study's bundle is metadata: a `pyproject.toml` that names components of the *installed* packages. By
default a site accepts a bundle that holds this file, with the meaning it has in the installed release,
and nothing else. So no code but what the hospital installed can run, and the rule does not hang on how a
machine's zlib packs the same content. A site that wants one exact archive names its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import tomllib
import zipfile
from importlib.resources import as_file, files
from typing import Any

MANIFEST = ".info/CONTENT"
"""Flower's own list of the files in the archive."""
PROJECT = "pyproject.toml"
MOST_BYTES = 1 << 20
"""Unpacked size above which a bundle is not even looked into."""


def objection_to(bundle: bytes, approved: str | None) -> str | None:
    """Why this bundle may not run here, as the end of a sentence; None where it may.

    Args:
        approved: SHA-256 of the only bundle that may run; None: the installed release's content.
    """
    if approved is not None:
        found = hashlib.sha256(bundle).hexdigest()
        if found == approved:
            return None
        return f"its SHA-256 is {found}, approved is {approved}"
    try:
        content = _unpacked(bundle)
        if not isinstance(content, dict):
            return content
        project = tomllib.loads(content[PROJECT].decode("utf-8"))
    except (zipfile.BadZipFile, ValueError, RuntimeError, OSError, EOFError):
        return "it is no readable bundle"
    if project != _installed():
        return f"its {PROJECT} is not that of the installed hymate-federated release"
    return None


def release_hash() -> str:
    """SHA-256 of the bundle that this installation builds of its own `deploy/app`, as `flwr build` does."""
    from flwr.cli.build import build_fab_from_disk

    with as_file(files("deploy") / "app") as folder:
        return hashlib.sha256(build_fab_from_disk(folder)).hexdigest()


def _unpacked(bundle: bytes) -> dict[str, bytes] | str:
    """The archive's files by name, or what speaks against reading them."""
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        names = sorted(entry.filename for entry in archive.infolist())
        if names != sorted([MANIFEST, PROJECT]):  # a name that comes twice is a difference too
            others = [name for name in names if name not in (MANIFEST, PROJECT)]
            return f"it holds more than {PROJECT}: {', '.join(others[:3]) or 'a file twice'}"
        if sum(entry.file_size for entry in archive.infolist()) > MOST_BYTES:
            return "it is larger than any bundle of ours"
        return {name: archive.read(name) for name in names}


def _installed() -> dict[str, Any]:
    project = tomllib.loads((files("deploy") / "app" / PROJECT).read_text(encoding="utf-8"))
    project.get("tool", {}).get("flwr", {}).pop("federations", None)  # `flwr build` leaves it out
    return project
