"""Several labels and numbers: the loss asks for what is known only, and the loop learns them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hymate.config import TaskConfig
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.evaluate.metrics import auroc
from hymate.train.alone import train_alone
from hymate.train.objectives import multilabel_loss, regression_loss
from hymate.train.saved_model import new_model as model_for
from hymate.train.scoring import labelled, outputs
from hymate.train.target import Multilabel, Regression, Tuning, criterion_of, merit, target_of
from tests.hymate.train.planted import CODES, FINETUNE, MODEL, PRETRAIN, planted_store

NAN = float("nan")
SEVERAL = TaskConfig(kind="multilabel", names=("a", "b", "c"))
NUMBER = TaskConfig(kind="regression", name="days")
LONGER = FINETUNE.model_copy(update={"rounds": 12, "learning_rate": 0.01})
NOTHING = PRETRAIN.model_copy(update={"rounds": 0})
VOCABULARY = Vocabulary(
    codes=tuple(VocabularyEntry(f"c{i}", "", 0.0, 1.0, True) for i in range(CODES)),
    static=tuple(VocabularyEntry(name, "", 0.0, 1.0, False) for name in "ab"),
)


def test_an_unknown_label_costs_nothing_and_moves_nothing() -> None:
    logits = torch.tensor([[2.0, -1.0], [0.5, 3.0], [1.0, 1.0]], requires_grad=True)
    labels = torch.tensor([[1.0, NAN], [0.0, 1.0], [NAN, NAN]])
    losses = multilabel_loss(logits, labels, torch.tensor([3.0, 1.0]))
    by_hand = [
        3 * F.softplus(torch.tensor(-2.0)),
        (F.softplus(torch.tensor(0.5)) + F.softplus(torch.tensor(-3.0))) / 2,
    ]
    assert losses.tolist() == pytest.approx([float(by_hand[0]), float(by_hand[1]), 0.0])
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert logits.grad is not None
    assert ((logits.grad == 0) == labels.isnan()).all()


def test_a_stays_loss_depends_on_that_stay_alone() -> None:
    logits, labels = torch.randn(4, 3), torch.tensor([[1.0, NAN, 0.0]] * 4)
    weights = torch.ones(3)
    together = multilabel_loss(logits, labels, weights)
    alone = torch.cat([multilabel_loss(logits[i : i + 1], labels[i : i + 1], weights) for i in range(4)])
    assert torch.equal(together, alone)


def test_regression_is_measured_in_standard_deviations() -> None:
    loss = regression_loss(torch.tensor([0.0, 1.0]), torch.tensor([5.0, 9.0]), mean=5.0, std=2.0)
    assert loss.tolist() == [0.0, 1.0]


def test_mean_and_std_are_those_of_the_training_stays() -> None:
    store = planted_store(train=20, tuning=10, held_out=10)
    days = np.arange(40, dtype=np.float32)
    target = target_of(replace(store, label=days), NUMBER)
    assert isinstance(target, Regression)
    assert (target.mean, target.std) == pytest.approx((9.5, np.std(np.arange(20), ddof=1)))
    tuning = target.tuning(np.zeros(2), np.array([9, 10]))
    assert tuning.rmse == pytest.approx(0.5)
    assert criterion_of(tuning) == "root mean squared error"
    worse = Tuning(2, None, None, None, rmse=0.6)
    assert merit(tuning, "root mean squared error") > merit(worse, "root mean squared error")  # type: ignore[operator]


def test_figures_of_several_labels_are_means_over_those_that_have_both_classes() -> None:
    labels = np.array([[1, 0, NAN], [0, 0, NAN], [1, NAN, NAN]], np.float32)
    target = Multilabel(labels, (1.0, 1.0, 1.0))
    output = np.array([[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    tuning = target.tuning(output, np.arange(3))
    assert tuning.auroc == 0.5  # of the first label alone
    assert tuning.log_loss == pytest.approx((np.log1p(np.exp(-2)) + np.log1p(np.exp(1)) + 3 * np.log(2)) / 5)
    one_class = target.tuning(output[1:2], np.array([1]))
    assert one_class.auroc is None
    assert criterion_of(one_class) == "log loss"


def test_several_labels_are_learned_each_from_the_stays_that_have_it() -> None:
    """Label b is the opposite of a and known for half of the stays; c has one class only."""
    store = planted_store(train=96, tuning=48, held_out=60)
    a = store.label
    b = np.where(np.arange(len(a)) % 2, 1 - a, NAN).astype(np.float32)
    labels = np.stack([a, b, np.zeros_like(a)], axis=1)
    target = target_of(store, SEVERAL, labels)
    model = model_for(MODEL, SEVERAL, VOCABULARY, seed=0)
    result = train_alone(store, model, NOTHING, LONGER, 0, target=target)
    assert result.criterion == "auroc + average precision"
    rows = labelled(store, "held_out")
    made = outputs(model, store, rows)
    assert made.shape == (60, 3)
    for column in (0, 1):
        known = ~np.isnan(labels[rows, column])
        area = auroc(labels[rows, column][known].astype(np.float64), made[known, column])
        assert area is not None
        assert area > 0.9, column
    assert made[:, 2].max() < 0  # never seen: improbable


def test_a_number_is_learned_in_its_own_unit() -> None:
    """Days are 40 or 60 by the planted level: far from 0, so nothing without the right mean and scale."""
    store = planted_store(train=96, tuning=48, held_out=60)
    days = (40 + 20 * store.label).astype(np.float32)
    store = replace(store, label=days)
    target = target_of(store, NUMBER)
    assert isinstance(target, Regression)
    model = model_for(MODEL, NUMBER, VOCABULARY, seed=0)
    result = train_alone(store, model, NOTHING, LONGER, 0, target=target)
    assert result.criterion == "root mean squared error"
    assert result.positive_weight is None
    rows = store.rows("held_out")
    made = target.mean + target.std * outputs(model, store, rows)
    error = float(np.sqrt(np.mean(np.square(made - days[rows]))))
    assert error < 5.0  # the mean alone: 10


def test_a_task_names_what_it_learns() -> None:
    with pytest.raises(ValueError, match="names are for kind multilabel"):
        TaskConfig(names=("a", "b"))
    for names in ((), ("a",), ("a", "a")):
        with pytest.raises(ValueError, match="two or more different names"):
            TaskConfig(kind="multilabel", names=names)
    assert SEVERAL.label_sets == ("a", "b", "c")
    assert NUMBER.label_sets == ("days",)
