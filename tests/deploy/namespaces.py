"""A coordinator and hospitals in network namespaces of their own, every packet of theirs written down.

Each hospital has one line, to the coordinator, as in `deploy/compose.yaml`. Whatever else it calls goes
down that line, too, and ends there: names are asked of an address where nobody answers, and the coordinator
passes nothing on. So an attempt is seen although it leads nowhere. Linux only; root is not needed where
the kernel lets anyone make user namespaces.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

COORDINATOR = "coordinator"
HOST = "coordinator.test"
ADDRESS = "10.77.0.1"
NOBODY = "10.77.0.53"
"""The name server that hospitals are told of."""
RECORDER = Path(__file__).with_name("packet_record.py")
TIMEOUT_S = 30


class NoNamespaces(Exception):
    """This machine does not let us make a network; the message says why."""


@dataclass
class Network:
    """Namespaces by the name of who is in them."""

    folder: Path
    hospitals: tuple[str, ...]
    holders: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    host = HOST
    """By which hospitals call the coordinator."""

    def inside(self, name: str, command: Sequence[str], folder: Path | None = None) -> list[str]:
        """The command that runs `command` as one who sits at the coordinator, or in a hospital."""
        return [*self._enter(name), "env", "-C", str(folder or self.folder), *command]

    def hospital_address(self, name: str) -> str:
        return f"10.77.{self.hospitals.index(name) + 1}.2"

    def record(self, name: str) -> list[dict[str, Any]]:
        """What was seen so far: one entry for each kind of packet."""
        return [json.loads(line) for line in self._file(name).read_text().splitlines()]

    def close(self) -> dict[str, list[dict[str, Any]]]:
        """End the recording, and with it the namespaces; what was seen. Processes in them must have ended."""
        for holder in self.holders.values():
            holder.terminate()
        for holder in self.holders.values():
            holder.communicate(timeout=TIMEOUT_S)
        seen = {name: self.record(name) for name in self.holders}
        self.holders.clear()
        return seen

    def build(self) -> None:
        self._hold(COORDINATOR)
        self._at(COORDINATOR, "address", "add", f"{ADDRESS}/32", "dev", "lo")
        for number, name in enumerate(self.hospitals, start=1):
            self._hold(name, below=COORDINATOR)
            self._at(
                COORDINATOR,
                *("link", "add", f"to-{number}", "address", _hardware(number, 1), "type", "veth"),
                *("peer", "name", "eth0", "address", _hardware(number, 2)),
                *("netns", str(self.holders[name].pid)),
            )
            for side, own, device in ((COORDINATOR, 1, f"to-{number}"), (name, 2, "eth0")):
                self._at(side, "address", "add", f"10.77.{number}.{own}/30", "dev", device)
                self._at(side, "link", "set", device, "up")
            self._at(name, "route", "add", "default", "via", f"10.77.{number}.1")
            self._at(name, *f"-6 address add fd77::{number}:2/112 dev eth0 nodad".split())
            self._at(name, *f"-6 route add default via fd77::{number}:1".split())
            # No neighbour would answer for it, and a packet that waits for one is never seen.
            neighbour = f"fd77::{number}:1 lladdr {_hardware(number, 1)} dev eth0 nud permanent"
            self._at(name, *f"-6 neighbour add {neighbour}".split())

    def _hold(self, name: str, below: str | None = None) -> None:
        """A namespace with a recorder in it, its own answers to names, and loopback."""
        files = {
            "hosts": f"127.0.0.1 localhost\n::1 localhost\n{ADDRESS} {HOST}\n",
            "resolv.conf": f"nameserver {NOBODY}\noptions timeout:1 attempts:1\n",
            "nsswitch.conf": "hosts: files dns\n",  # no daemon of the machine outside is asked
        }
        mounts = []
        for file, text in files.items():
            own = self.folder / file
            own.write_text(text)
            if Path("/etc", file).exists():
                mounts.append(f"mount --bind {own} /etc/{file}")
        script = " && ".join([*mounts, "ip link set lo up", 'exec "$@"'])
        program = ["sh", "-c", script, "sh", sys.executable, str(RECORDER), str(self._file(name))]
        unshare = ["unshare", "--net", "--mount"]
        if below is None and os.geteuid() != 0:
            unshare += ["--user", "--map-root-user"]
        into = self._enter(below)[:-1] if below and os.geteuid() != 0 else []
        command = [*([*into, "--"] if into else []), *unshare, *program]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        if holder.stdout.readline() != "ready\n":
            raise NoNamespaces(_last_line(holder.communicate(timeout=TIMEOUT_S)[1]))
        self.holders[name] = holder

    def _enter(self, name: str) -> list[str]:
        words = ["nsenter", "--target", str(self.holders[name].pid), "--net", "--mount"]
        return [*words, *(["--user", "--preserve-credentials"] if os.geteuid() != 0 else []), "--"]

    def _at(self, name: str, *words: str) -> None:
        command = [*self._enter(name), "ip", *words]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
        if done.returncode:
            raise NoNamespaces(f"ip {' '.join(words)}: {_last_line(done.stderr)}")

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.packets.jsonl"


@contextlib.contextmanager
def network(*hospitals: str) -> Iterator[Network]:
    """A network for the length of a `with` block.

    Raises:
        NoNamespaces: the machine does not let us, or lacks a program.
    """
    for program in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(program) is None:
            raise NoNamespaces(f"there is no '{program}' here")
    with tempfile.TemporaryDirectory(prefix="hymate-network-") as folder:
        made = Network(Path(folder), hospitals)
        try:
            made.build()
            yield made
        finally:
            made.close()


def _hardware(line: int, end: int) -> str:
    """A locally administered MAC address."""
    return f"02:00:00:00:{line:02x}:{end:02x}"


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason given"])[-1]
