"""Output folders appear whole or not at all."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from hymate.data.output import fresh_folder, refuse_foreign, require_space, write_json
from hymate.errors import InputFault


def write_then_raise(target: Path, interruption: BaseException, *, replace: bool = False) -> None:
    with fresh_folder(target, replace=replace) as folder:
        (folder / "new").write_text("new")
        raise interruption


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, ValueError])
def test_an_interrupted_write_leaves_nothing(tmp_path: Path, interruption: type[BaseException]) -> None:
    with pytest.raises(interruption):
        write_then_raise(tmp_path / "out", interruption())
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_replacement_keeps_the_old_folder(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        write_then_raise(tmp_path / "out", KeyboardInterrupt(), replace=True)
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/old"]


def test_a_replacement_leaves_nothing_of_the_old(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").write_text("old")
    with fresh_folder(tmp_path / "out", replace=True) as folder:
        (folder / "new").write_text("new")
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")] == ["out", "out/new"]


def test_an_empty_folder_and_missing_parents_are_fine(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for target in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        with fresh_folder(target) as folder:
            (folder / "new").write_text("new")
        assert (target / "new").read_text() == "new"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_disk_that_refuses_is_a_fault_of_the_target(tmp_path: Path, number: int) -> None:
    with pytest.raises(InputFault, match=r"out: cannot be written \(.+\); ") as caught:
        write_then_raise(tmp_path / "out", OSError(number, os.strerror(number)))
    assert caught.value.where == str(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_way_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputFault, match="exists already"), fresh_folder(tmp_path / "file"):
        pass
    with pytest.raises(InputFault, match="cannot be written"), fresh_folder(tmp_path / "file" / "out"):
        pass


def test_too_little_disk_is_said_before_writing(tmp_path: Path) -> None:
    require_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(InputFault, match=r"not enough disk: about .* MiB needed, .* MiB free"):
        require_space(tmp_path / "not" / "there" / "yet", 1 << 62)


def test_only_our_own_output_may_be_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refuse_foreign(out, force=False)
    (out / "site").mkdir(parents=True)
    with pytest.raises(InputFault, match="holds other things"):
        refuse_foreign(out, force=True)
    write_json(out / "summary.json", {"made_by": "hymate data synthetic", "sites": {"site": {}}})
    refuse_foreign(out, force=True)
    with pytest.raises(InputFault, match="--force"):
        refuse_foreign(out, force=False)
    write_json(out / "summary.json", {"made_by": "another program", "sites": {"site": {}}})
    with pytest.raises(InputFault, match="holds other things"):
        refuse_foreign(out, force=True)
