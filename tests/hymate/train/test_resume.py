"""A training that is stopped at any point and goes on ends with the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hymate.errors import InputFault
from hymate.train.alone import Progress, rounds_done, train_alone
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store

ROOT = Path(__file__).parents[3]


class Stopped(Exception):
    """Somebody pulled the plug."""


def test_stopped_after_every_round_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    """The plug is pulled after each round in turn, before its state is kept: that round is trained again."""
    store = planted_store(train=20, tuning=12)
    pretrain = PRETRAIN.model_copy(update={"rounds": 2, "local_epochs": 2, "variable_dropout": 0.3})
    finetune = FINETUNE.model_copy(update={"rounds": 3, "variable_dropout": 0.3, "learning_rate": 0.03})
    whole = new_model()
    expected = train_alone(store, whole, pretrain, finetune, 5, watch_forecasts=True)

    file = tmp_path / "state.safetensors"
    seen: list[tuple[str, int]] = []
    for stop_at in range(1, len(expected.rounds) + 1):

        def pull_the_plug(progress: Progress, stop_at: int = stop_at) -> None:
            seen.append((progress.phase, progress.round))
            if len(rounds_done(file)) + 1 == stop_at:
                raise Stopped

        with pytest.raises(Stopped):
            train_alone(
                store,
                new_model(),
                pretrain,
                finetune,
                5,
                on_progress=pull_the_plug,
                state=file,
                watch_forecasts=True,
            )
        assert len(rounds_done(file)) == stop_at - 1
    resumed = new_model(seed=9)  # its own first weights must not matter any more
    result = train_alone(store, resumed, pretrain, finetune, 5, state=file, watch_forecasts=True)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))
    assert (result.best_epoch, result.tuning) == (expected.best_epoch, expected.tuning)
    for found, wanted in zip(result.rounds, expected.rounds, strict=True):
        assert (found.loss, found.tuning, found.forecast_error) == (
            wanted.loss,
            wanted.tuning,
            wanted.forecast_error,
        )
    assert seen.count(("finetune", 2)) == 2  # once stopped, once trained again
    assert result.seconds > 0


def test_a_finished_training_trains_no_more(tmp_path: Path) -> None:
    store, file = planted_store(train=32, tuning=16), tmp_path / "state.safetensors"
    first, second = new_model(), new_model(seed=3)
    told: list[Progress] = []
    done = train_alone(store, first, PRETRAIN, FINETUNE, 0, state=file)
    again = train_alone(store, second, PRETRAIN, FINETUNE, 0, state=file, on_progress=told.append)
    assert told == []
    assert again.best_epoch == done.best_epoch
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_patience_counts_across_the_stop(tmp_path: Path) -> None:
    """What came before the stop still counts: no fresh patience."""
    store, file = planted_store(train=32, tuning=16), tmp_path / "state.safetensors"
    wild = FINETUNE.model_copy(update={"rounds": 12, "learning_rate": 0.05, "patience": 2})
    nothing = PRETRAIN.model_copy(update={"rounds": 0})
    expected = train_alone(store, new_model(), nothing, wild, 0)
    assert expected.finetune_epochs < 12  # it does stop early
    for rounds in range(1, expected.finetune_epochs):
        short = wild.model_copy(update={"rounds": rounds})
        train_alone(store, new_model(), nothing, short, 0, state=file)
    result = train_alone(store, new_model(), nothing, wild, 0, state=file)
    assert (result.finetune_epochs, result.best_epoch) == (expected.finetune_epochs, expected.best_epoch)


def test_the_state_of_another_model_is_refused(tmp_path: Path) -> None:
    store, file = planted_store(train=32, tuning=16), tmp_path / "state.safetensors"
    train_alone(store, new_model(), PRETRAIN, FINETUNE, 0, state=file)
    other = new_model(config=MODEL.model_copy(update={"d_model": 8}))
    with pytest.raises(InputFault, match=r"not as in this model|does not fit this model"):
        train_alone(store, other, PRETRAIN, FINETUNE, 0, state=file)


def test_killed_at_random_points_the_command_ends_with_the_same_bits(tmp_path: Path) -> None:
    """Real processes and SIGKILL, at three random points and in the middle of writing the state."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.hymate.train.killing", str(tmp_path)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert len(result) == 4
    for name, found in result.items():
        assert found["different"] == [], name
        assert found["killed"], name
