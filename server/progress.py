"""What a person sees while a study runs: a live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from rich.console import Console

from server.journal import METRICS

TITLES = {
    "describe": "asking every hospital what it holds",
    "vocabulary": "agreeing on the vocabulary",
    "pretrain": "pretraining (masked forecasting)",
    "finetune": "fine-tuning on the label",
    "evaluate": "scoring held-out stays",
    "alone": "training every hospital by itself, for comparison",
    "report": "writing the report",
}


class Progress:
    """Reads a run's `metrics.jsonl` as it grows and says each new thing once, on stderr."""

    def __init__(self, run: Path, console: Console) -> None:
        self._path = run / METRICS
        self._console = console
        self._read = 0
        self._began = time.monotonic()
        self._status = console.status("starting Flower and Ray") if console.is_terminal else None
        if self._status:
            self._status.start()

    def __call__(self) -> None:
        """Say what was written since the last call."""
        if not self._path.is_file():
            return
        with self._path.open(encoding="utf-8") as stream:
            stream.seek(self._read)
            text = stream.read()
        whole, _, _ = text.rpartition("\n")  # a line still being written is left for the next call
        self._read += len((whole + "\n").encode()) if whole else 0
        for line in whole.splitlines():
            self._say(json.loads(line))

    def close(self) -> None:
        if self._status:
            self._status.stop()

    def _say(self, event: dict[str, Any]) -> None:
        phase, kind = event["phase"], event["event"]
        elapsed = time.strftime("%M:%S", time.gmtime(time.monotonic() - self._began))
        if kind == "began":
            self._console.print(
                f"[dim]{elapsed}[/dim]  {TITLES.get(phase, phase)}", highlight=False, soft_wrap=True
            )
            if self._status:
                self._status.update(TITLES.get(phase, phase))
        elif kind == "frozen":
            self._console.print(
                f"       {event['codes']} codes agreed, {event['dropped']} dropped, "
                f"hash {event['hash'][:12]}",
                highlight=False,
            )
        elif kind == "round":
            self._console.print(f"       {_round(event)}", highlight=False, soft_wrap=True)


def _round(event: dict[str, Any]) -> str:
    parts = [f"round {event['round']}/{event['rounds']}", f"loss {_number(event['loss'])}"]
    if "forecast_error" in event:
        parts.append(f"before it tuning error {_number(event['forecast_error'])}")
    if "tuning_auroc" in event:
        parts.append(
            f"before it tuning AUROC {_number(event['tuning_auroc'])}, AP {_number(event['tuning_auprc'])}"
        )
    parts.append(f"{event['slowest_s']:.0f} s")
    return ", ".join(parts)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
