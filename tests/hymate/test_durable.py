"""A file is replaced in one step: readers never see a part of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hymate.durable import write_text


def test_until_the_text_is_on_the_disk_the_old_file_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "folder" / "file"
    write_text(path, "old")
    seen = []
    flush = os.fsync

    def watched(descriptor: int) -> None:
        flush(descriptor)
        seen.append(path.read_text())

    monkeypatch.setattr(os, "fsync", watched)
    with path.open() as reader:
        write_text(path, "new\né")
        assert reader.read() == "old", "whoever has the old file open still reads it whole"
    assert seen == ["old", "new\né"], "first the text is flushed, then the folder with its new name"
    assert path.read_text(encoding="utf-8") == "new\né"


def test_a_fault_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_text(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
