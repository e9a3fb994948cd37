"""What a person sees while a training runs: live bars on a terminal, plain lines elsewhere; on stderr."""

from __future__ import annotations

from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bars
from torch import nn

from hymate.train.alone import Phase, Progress

TITLES: dict[Phase, str] = {
    "pretrain": "pretraining (masked forecasting)",
    "warm": "head and summary branch, the encoder frozen",
    "finetune": "fine-tuning on the label",
    "distil": "summary branch, from boosting and the model itself, on invented stays",
}
RECENT = 3  # rounds whose mean time says how long the next ones take


class Steps:
    """A `LocalHook` that counts the optimiser's steps and changes nothing."""

    def __init__(self, on_step: Any) -> None:
        self._on_step = on_step

    def before_step(self, model: nn.Module) -> None:
        """One more step begins."""
        self._on_step()

    def on_gradient(self, model: nn.Module) -> None:
        """The gradient stays as it is."""

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Nothing to do."""

    def after_epoch(self, model: nn.Module) -> None:
        """Nothing to do."""


class Display:
    """Tells how a training fares (`hymate.train.centralised.Watcher`); a context manager."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None
        self._bar = TaskID(0)
        self._steps: dict[str, int] = {}
        self._counting = False
        self._done: list[Progress] = []
        self._titled: Phase | None = None
        self.hook = Steps(self._step) if console.is_terminal else None

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bars is not None:
            self._bars.stop()

    def prepared(self, data: dict[str, Any], steps: dict[str, int], done: tuple[Progress, ...]) -> None:
        """Say what is trained on, and where an earlier training stopped. Again for each member of an
        ensemble: the data are told once."""
        told, self._steps, self._done = bool(self._steps), steps, list(done)
        for name, part in data["splits"].items():
            if part["stays"] and not told:
                self._say(f"{name:9} {part['stays']:7,} stays, {_labels(part)}")
        for reason, count in data["left_out"].items() if not told else ():
            self._say(f"left out  {count:7,} stays: {reason}")
        if done:
            self._say(f"going on after {done[-1].phase} {done[-1].round}/{done[-1].rounds}")
        self._titled = None
        self._title()
        if self._console.is_terminal and self._bars is None:
            self._bars = Bars(
                TextColumn("{task.description}"), BarColumn(24), TextColumn("{task.fields[left]}"),
                console=self._console, transient=True,
            )  # fmt: skip
            self._bars.start()
            self._bar = self._bars.add_task("starting", total=None, left="")

    def round(self, progress: Progress) -> None:
        """Say how the round went, and how long the phase still takes."""
        if progress.phase != self._titled:  # fine-tuning stopped before its last round
            self._title(progress.phase)
        self._done.append(progress)
        parts = [f"  {progress.round}/{progress.rounds}", f"loss {progress.loss:.4f}"]
        if progress.forecast_error is not None:
            parts.append(f"tuning error {progress.forecast_error:.4f}")
        if progress.tuning is not None:
            tuning = progress.tuning
            if tuning.rmse is not None:
                parts.append(f"tuning RMSE {tuning.rmse:.4f}")
            else:
                parts.append(f"tuning AUROC {_number(tuning.auroc)}, AP {_number(tuning.auprc)}")
        parts.append(f"{progress.seconds:.0f} s")
        if progress.round < progress.rounds:
            parts.append(self._left(progress))
        self._say(", ".join(parts))
        if progress.round == progress.rounds:
            self._title()
        self._counting = False

    def note(self, text: str) -> None:
        """Something a person should know."""
        self._say(f"note: {text}")

    def _left(self, progress: Progress) -> str:
        recent = [done.seconds for done in self._done if done.phase == progress.phase][-RECENT:]
        seconds = (progress.rounds - progress.round) * sum(recent) / len(recent)
        # Fine-tuning may stop before its last round.
        return f"{'at most ' if progress.phase == 'finetune' else ''}{_duration(seconds)} left"

    def _step(self) -> None:
        """A step of the round under way begins."""
        assert self._bars is not None  # steps are only counted on a terminal
        if not self._counting:
            phase, number = self._under_way()
            self._bars.reset(self._bar, description=f"{phase} {number}", total=self._steps[phase], left="")
            self._counting = True
        self._bars.update(self._bar, advance=1)
        remaining = self._bars.tasks[0].time_remaining
        if remaining is not None:
            self._bars.update(self._bar, left=f"round done in {_duration(remaining)}")

    def _under_way(self) -> tuple[Phase, int]:
        if not self._done:
            return next(phase for phase in TITLES if phase in self._steps), 1
        last = self._done[-1]
        later = [
            phase for phase in list(TITLES)[list(TITLES).index(last.phase) + 1 :] if phase in self._steps
        ]
        if later and last.round == last.rounds:
            return later[0], 1
        return last.phase, last.round + 1

    def _title(self, phase: Phase | None = None) -> None:
        """Say which phase is under way, once."""
        phase = phase or self._under_way()[0]
        if phase != self._titled:
            self._say(TITLES[phase])
        self._titled = phase

    def _say(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)


def _labels(part: dict[str, Any]) -> str:
    """What a split's stays are labelled with."""
    if "mean" in part:
        return f"mean label {part['mean']:.3g}"
    if "labels" in part:
        positives = ", ".join(f"{name} {label['positives']:,}" for name, label in part["labels"].items())
        return f"positive: {positives}"
    return f"{part['positives']:,} positive ({100 * part['positives'] / part['stays']:.0f} %)"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
