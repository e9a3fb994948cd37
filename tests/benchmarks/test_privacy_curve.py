"""`benchmarks.privacy_curve`: which setting is a level's, and that no other level or study is taken."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.privacy_curve import FIGURES, _trials, main

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def raw(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMATE_PHYSIONET2012", "/nowhere")


def result(level: str, tuning: float, held_out: float) -> dict[str, Any]:
    scores = {
        "sites": {"a": {"stays": 9, "auroc": held_out - 0.1}},
        "auroc": held_out,
        "average_precision": 0.5,
    }
    return {
        "level": level,
        "settings": [f"finetune.rounds={tuning}"],
        "tuning": tuning,
        "figures": {"held_out": scores},
        "attack": {"auc": {"value": 0.51, "lower": 0.49, "upper": 0.53}},
    }


def test_the_best_on_tuning_stays_is_the_level_s(tmp_path: Path, capsys: Capture) -> None:
    trials = _trials("8", 0, tmp_path, reduced=False)
    assert len({trial.folder for trial in trials}) == len(trials) > 1
    for number, trial in enumerate(trials):
        trial.folder.mkdir(parents=True)
        content = result("8", tuning=[1.1, 1.3, 1.2][number], held_out=[0.9, 0.7, 0.8][number])
        (trial.folder / FIGURES).write_text(json.dumps(content))
    assert main(["--collect", "--out", str(tmp_path)]) == 0
    (row,) = capsys.readouterr().out.strip().splitlines()[2:]
    assert row == "| 8 | 0.7000 | 0.6000 | 0.5000 | 1.3000 | 0.510 (0.490 - 0.530) | rounds=1.3 |"
    assert main(["--collect", "--out", str(tmp_path), "--seed", "1"]) == 0
    assert len(capsys.readouterr().out.strip().splitlines()) == 2


def test_levels_with_noise_differ_in_epsilon_alone(tmp_path: Path) -> None:
    plain = _trials("none", 0, tmp_path, reduced=False)
    assert {trial.study.privacy.mode for trial in plain} == {"none"}
    much, little = (_trials(level, 0, tmp_path, reduced=False) for level in ("1", "8"))
    for noisy, less in zip(much, little, strict=True):
        assert (noisy.study.privacy.target_epsilon, less.study.privacy.target_epsilon) == (1.0, 8.0)
        same = noisy.study.privacy.model_copy(update={"target_epsilon": 8.0})
        assert noisy.study.model_copy(update={"privacy": same}) == less.study
