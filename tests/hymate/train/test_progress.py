"""What a person reads while a training runs: each phase has its title, before its rounds and once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from hymate.train.alone import Phase, Progress
from hymate.train.progress import TITLES, Display

DATA = {"splits": {"train": {"stays": 10, "positives": 2}}, "left_out": {}}
STEPS = {"pretrain": 1, "warm": 0, "finetune": 1, "distil": 0}


def told(progress: list[Progress], done: int = 0) -> list[str]:
    text = io.StringIO()
    with Display(Console(file=text, width=200)) as display:
        display.prepared(DATA, STEPS, tuple(progress[:done]))
        for one in progress[done:]:
            display.round(one)
    return [line for line in text.getvalue().splitlines() if line in TITLES.values() or line.startswith("  ")]


def rounds(phase: Phase, number: int, of: int) -> list[Progress]:
    return [Progress(phase, k + 1, of, 0.5, 1.0) for k in range(number)]


@pytest.mark.parametrize("finetuned", [2, 4], ids=["stopped early", "all rounds"])
@pytest.mark.parametrize("done", [0, 1, 3, 4])
def test_a_title_stands_before_its_rounds(finetuned: int, done: int) -> None:
    progress = [
        *rounds("pretrain", 2, 2),
        *rounds("warm", 1, 1),
        *rounds("finetune", finetuned, 4),
        *rounds("distil", 1, 1),
    ]
    expected: list[str] = []
    for one in progress[done:]:
        title = TITLES[one.phase]
        expected += [*([] if title in expected else [title]), f"  {one.round}/{one.rounds}"]
    assert [
        line.split(",")[0] if line.startswith("  ") else line for line in told(progress, done)
    ] == expected
