"""A full disk, for real: a small file system of memory, filled to the last block while the study runs."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.conftest import Build
from tests.faults.federation import until

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

NORTH = "hospital_1"
FULL = "No space left on device"
Mount = Callable[[Path, int], None]


@pytest.fixture
def mount() -> Iterator[Mount]:
    """Mounts a tmpfs of so many MiB at a folder; needs root."""
    mounted: list[Path] = []

    def at(folder: Path, size: int) -> None:
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            why = f"a file system cannot be mounted here: {done.stderr.strip()}"
            if os.environ.get("HYMATE_REQUIRE_NAMESPACES") == "1":
                pytest.fail(why)
            pytest.skip(why)
        mounted.append(folder)

    yield at
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is; returns what took it."""
    filler = folder / ".filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, shutil.disk_usage(folder).free)
        file.seek(0, os.SEEK_END)
        with contextlib.suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
    assert shutil.disk_usage(folder).free == 0
    return filler


def test_the_coordinator_s_disk_is_full(
    mount: Mount, federation: Build, undisturbed: dict[str, bytes]
) -> None:
    """The run folder's: checkpoints, journals and SuperLink's database. One line, then `--resume`."""
    one = federation()
    mount(one.folder / "disk", 640)  # the check before a start asks for 512
    one.out = one.folder / "disk" / "run"
    one.start_clients()
    server = one.start_server()
    until(lambda: one.works_on(NORTH, "finetune round 1"), "the second round", alive=server)
    filler = fill(one.folder / "disk")
    assert one.finish(server) == 1, one.told()
    assert FULL in one.last_line() or "disk is full" in one.last_line(), one.told()
    assert "--resume" in one.last_line()
    assert not (one.run / "report.json").exists()

    refused = one.start_server("--resume")
    assert one.finish(refused) == 2
    assert "make room" in one.last_line()
    filler.unlink()
    assert one.finish(one.start_server("--resume")) == 0, one.told()
    assert one.weights() == undisturbed


def test_a_site_s_disk_is_full(mount: Mount, federation: Build, undisturbed: dict[str, bytes]) -> None:
    """Its `state` and `cache`: it refuses and says why, the study pauses, and goes on once there is room."""
    one = federation()
    disk = one.folder / "disk"
    mount(disk, 8)
    one.write_site(NORTH, cache=str(disk / "cache"), state=str(disk / "state"))
    one.start_clients()
    server = one.start_server()
    until(lambda: one.outcome("prepare", 0, NORTH) == "replied", "its store is there", alive=server)
    filler = fill(disk)
    until(lambda: "paused" in one.told(), "the study pauses", alive=server)
    filler.unlink()
    assert one.finish(server) == 0, one.told()
    assert one.weights() == undisturbed
    refused = [line for line in one.lines() if line["outcome"] == "refused"]
    assert {line["site"] for line in refused} == {NORTH}
    assert all("space" in line["reason"] or "full" in line["reason"] for line in refused), refused
    assert f"{NORTH} refused: site {NORTH}:" in one.told()
