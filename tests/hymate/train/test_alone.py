"""One site by itself: it learns, it stops in time, it keeps the best, and says how it judged."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from hymate.evaluate.metrics import auroc
from hymate.train.alone import Progress, Tuning, train_alone
from hymate.train.scoring import labelled, score
from tests.hymate.train.planted import FINETUNE, PRETRAIN, new_model, planted_store


def test_it_learns_a_planted_signal() -> None:
    store, model = planted_store(train=96, held_out=60), new_model()
    seen: list[Progress] = []
    finetune = FINETUNE.model_copy(update={"rounds": 14})
    result = train_alone(store, model, PRETRAIN, finetune, 0, on_progress=seen.append)
    assert result.criterion == "auroc + average precision"
    for split in ("train", "held_out"):
        rows = labelled(store, split)
        area = auroc(store.label[rows].astype(np.float64), score(model, store, rows))
        assert area is not None
        assert area > 0.9, split
    assert tuple(seen) == result.rounds
    assert [p.phase for p in seen] == ["pretrain"] + ["finetune"] * result.finetune_epochs
    assert result.pretrain_epochs == 1


def test_pure_noise_is_not_learned() -> None:
    """The negative control: labels that mean nothing give no held-out skill."""
    store = planted_store(train=96, held_out=200)
    shuffled = np.random.default_rng(1).permutation(store.label).astype(np.float32)
    noise, model = replace(store, label=shuffled), new_model()
    train_alone(noise, model, PRETRAIN, FINETUNE, 0)
    rows = noise.rows("held_out")
    area = auroc(noise.label[rows].astype(np.float64), score(model, noise, rows))
    assert area == pytest.approx(0.5, abs=0.12)


def merit(tuning: Tuning | None) -> float:
    assert tuning is not None
    assert tuning.auroc is not None
    assert tuning.auprc is not None
    return tuning.auroc + tuning.auprc


def test_the_best_weights_are_restored() -> None:
    """Three labels in ten are wrong, so training soon over-fits: the round that tuned best is kept."""
    clean = planted_store()
    wrong = np.random.default_rng(0).random(len(clean)) < 0.3
    store = replace(clean, label=np.where(wrong, 1 - clean.label, clean.label).astype(np.float32))
    wild = FINETUNE.model_copy(update={"rounds": 12, "learning_rate": 0.03, "patience": 3})
    model = new_model()
    result = train_alone(store, model, PRETRAIN.model_copy(update={"rounds": 0}), wild, 0)
    merits = [merit(progress.tuning) for progress in result.rounds]
    best = merit(result.tuning)
    assert best >= max(merits)
    assert merits[-1] < best - 0.05  # it did get worse
    rows = store.rows("tuning")
    assert auroc(store.label[rows].astype(np.float64), score(model, store, rows)) == result.tuning.auroc
    assert result.best_epoch >= 1
    assert result.finetune_epochs == result.best_epoch + 3  # patience; 12 were allowed
    assert result.finetune_epochs < 12
    assert result.pretrain_epochs == 0


def test_a_tuning_split_of_one_class_is_judged_by_loss() -> None:
    store, model = planted_store(one_class=("tuning",)), new_model()
    result = train_alone(store, model, PRETRAIN, FINETUNE, 0)
    assert result.criterion == "log loss"
    assert result.tuning.auroc is None
    losses = [p.tuning.log_loss for p in result.rounds if p.tuning and p.tuning.log_loss]
    assert result.tuning.log_loss is not None
    assert result.tuning.log_loss <= min(losses)
    assert result.positive_weight == pytest.approx(1.0, abs=0.3)


def test_an_empty_tuning_split_keeps_the_last_round() -> None:
    store, model = planted_store(tuning=0), new_model()
    result = train_alone(store, model, PRETRAIN, FINETUNE, 0)
    assert (result.criterion, result.best_epoch, result.finetune_epochs) == ("none", 4, 4)
    assert (result.tuning.stays, result.tuning.log_loss) == (0, None)


def test_local_epochs_are_the_same_epochs_in_fewer_rounds() -> None:
    """4 rounds of 1 epoch walk the path of 2 rounds of 2."""
    store = planted_store(tuning=0)
    models = []
    for rounds, local in ((4, 1), (2, 2)):
        change = {"rounds": rounds, "local_epochs": local}
        models.append(new_model())
        result = train_alone(
            store,
            models[-1],
            PRETRAIN.model_copy(update=change),
            FINETUNE.model_copy(update=change),
            seed=0,
        )
        assert (result.pretrain_epochs, result.finetune_epochs) == (4, 4)
    first, second = (model.state_dict() for model in models)
    assert all(torch.equal(first[name], second[name]) for name in first)
