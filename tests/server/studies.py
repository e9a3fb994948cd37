"""Whole studies in one process over the same small hospitals, and what can be read from their journals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from flwr.app import Message
from flwr.serverapp import Grid
from safetensors.numpy import load_file

from server.app import run_study
from tests.in_process import InProcessGrid, Tamper, VirtualTime, move_in, small_study

Lines = list[dict[str, Any]]


class Study:
    """Runs of one study, in one folder; a run goes on where the last one broke off."""

    def __init__(self, hospitals: Path, folder: Path) -> None:
        """Args: hospitals: as `tests.in_process.lay_out` made them."""
        self.folder = folder
        self.grid: InProcessGrid
        self.sites = sorted(path.name for path in (hospitals / "sites").iterdir())
        move_in(hospitals, folder)

    def run(
        self,
        tamper: Tamper | None = None,
        before: Callable[[InProcessGrid], None] = lambda grid: None,
        rounds: tuple[int, int] = (3, 2),
        **sections: Any,
    ) -> Lines:
        """Returns `participation.jsonl`. `rounds` are those of pretraining and of fine-tuning."""
        study = small_study(
            pretrain={"rounds": rounds[0], "batch_size": 16},
            finetune={"rounds": rounds[1], "batch_size": 16},
            **sections,
        )
        time = VirtualTime()
        self.grid = InProcessGrid(self.folder, self.sites, tamper=tamper, time=time)
        before(self.grid)
        run_study(cast(Grid, self.grid), study, self.folder, expected_sites=len(self.sites), clock=time)
        return self.lines("participation")

    def lines(self, name: str) -> Lines:
        return [json.loads(line) for line in (self.folder / f"{name}.jsonl").read_text().splitlines()]

    def metrics(self, phase: str, event: str = "round") -> Lines:
        return [line for line in self.lines("metrics") if (line["phase"], line["event"]) == (phase, event)]

    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))

    def asked(self, action: str) -> int:
        return sum(message.metadata.message_type == action for message in self.grid.sent)

    def weights(self) -> dict[str, Any]:
        arrays = load_file(self.folder / "model" / "weights.safetensors")
        return {name.removeprefix("weights/"): array for name, array in arrays.items()}

    def bits(self) -> bytes:
        return (self.folder / "model" / "weights.safetensors").read_bytes()


def outcomes(lines: Lines, phase: str, number: int) -> dict[str, list[str]]:
    """Site -> what became of it in one round, in order."""
    told: dict[str, list[str]] = {}
    for line in lines:
        if (line["phase"], line["round"]) == (phase, number):
            told.setdefault(line["site"], []).append(line["outcome"])
    return told


class Broken(Exception):
    """The coordinator's process is gone."""


def breaks_after(messages: int) -> Tamper:
    left = [messages]

    def tamper(name: str, reply: Message) -> Message:
        left[0] -= 1
        if left[0] < 0:
            raise Broken
        return reply

    return tamper


def origin(reply: Message) -> Message:
    """A message that another reply may answer in place of this one."""
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)
