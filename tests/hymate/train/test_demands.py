"""Keys that need a part the model lacks, or that no federation has, are told before anything starts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hymate.errors import InputFault
from hymate.train.config import dump_train_config, load_train_config
from server.study import load_study

EXPERIMENTS = Path(__file__).parents[3] / "deploy" / "configs" / "experiments"


def written(folder: Path, content: dict[str, Any]) -> Path:
    path = folder / "file.yaml"
    path.write_text(yaml.safe_dump({"name": "x", **content}))
    return path


FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"pretrain": {"event_rate": 0.1}}, "set model.event_head to true"),
    ({"model": {"name": "gru"}, "finetune": {"warm_epochs": 1}}, "warm_epochs is for model hymate"),
    ({"finetune": {"auxiliary": {"tasks": ["in_hospital_mortality"]}}}, "which is the task itself"),
    ({"finetune": {"auxiliary": {"tasks": ["a", "a"]}}}, "names a label set twice"),
    ({"finetune": {"auxiliary": {"tasks": []}}}, "at least 1 item"),
    (
        {"task": {"kind": "regression", "name": "days"}, "finetune": {"soft_labels": {}}},
        "soft_labels is for task.kind binary",
    ),
    ({"finetune": {"soft_labels": {"from": "nobody"}}}, "Input should be 'boosting'"),
    ({"finetune": {"distillation": {}}}, r"set model\.d_summary"),
    ({"finetune": {"distillation": {}}, "model": {"name": "gru"}}, r"set model\.d_summary"),
    (
        {
            "task": {"kind": "regression", "name": "days"},
            "model": {"d_summary": 8},
            "finetune": {"distillation": {}},
        },
        "distillation is for task.kind binary",
    ),
    ({"finetune": {"positive_weight": "often"}}, "finetune.positive_weight"),
    ({"ensemble": 0}, "ensemble"),
    ({"privacy": {"mode": "none"}}, "`hymate train` adds no noise"),
]


@pytest.mark.parametrize(("content", "says"), FAULTS)
def test_a_training_that_lacks_a_part_is_refused(tmp_path: Path, content: dict[str, Any], says: str) -> None:
    with pytest.raises(InputFault, match=says) as caught:
        load_train_config(written(tmp_path, content), data=(tmp_path,))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("phase", "key", "value"),
    [
        ("pretrain", "ema", 0.9),
        ("finetune", "ema", 0.9),
        ("finetune", "warm_epochs", 2),
        ("finetune", "auxiliary", {"tasks": ["length_of_stay"]}),
        ("finetune", "soft_labels", {"from": "boosting"}),
        ("finetune", "distillation", {"epochs": 2}),
    ],
)
def test_a_study_refuses_what_only_a_training_has(
    tmp_path: Path, phase: str, key: str, value: object
) -> None:
    path = written(tmp_path, {phase: {key: value}, "model": {"d_summary": 8}})
    with pytest.raises(InputFault, match=rf"{phase}\.{key} is for `hymate train`"):
        load_study(path)
    load_train_config(path, data=(tmp_path,))  # where it is welcome


def test_a_study_takes_what_depends_on_the_place_in_the_phase_alone(tmp_path: Path) -> None:
    study = load_study(
        written(
            tmp_path,
            {
                "model": {"event_head": True},
                "pretrain": {"schedule": "cosine", "event_rate": 0.1, "windows_per_stay": 2},
                "finetune": {
                    "schedule": "cosine",
                    "warmup": 0.1,
                    "encoder_rate": 0.5,
                    "positive_weight": 2,
                    "label_smoothing": 0.1,
                    "span_dropout_hours": 4,
                },
            },
        )
    )
    assert study.finetune.weight_of_positives(7.0) == 2.0


@pytest.mark.parametrize("name", ["physionet2012-best", "physionet2012-paper"])
def test_the_configurations_are_trainings_and_read_back(tmp_path: Path, name: str) -> None:
    config = load_train_config(EXPERIMENTS / f"{name}.yaml", data=(tmp_path,))
    again = tmp_path / "train.yaml"
    again.write_text(dump_train_config(config))
    assert load_train_config(again) == config
    assert config.name == name
    best = name.endswith("best")
    assert (config.finetune.distillation is not None) == best
    assert (config.model.d_summary if config.model.name == "hymate" else 0) == (256 if best else 0)
    assert config.finetune.clip_norm == (1.0 if best else 0.3)
    assert config.finetune.weight_of_positives(6.0) == (1.0 if best else 6.0)
