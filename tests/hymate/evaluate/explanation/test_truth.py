"""On a cohort whose truth is known: attributions find what carries the signal, where it was learned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from hymate.evaluate.explanation.amounts import attributed
from hymate.evaluate.explanation.deletion import Deletion, delete_features
from hymate.evaluate.metrics import auroc
from hymate.train.saved_model import SavedModel
from tests.hymate.evaluate.explanation.conftest import Trained

pytestmark = pytest.mark.trained

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Look:
    """Size of attribution (n, F) under one model, and the deletion by it, for some stays."""

    stays: NDArray[np.int64]
    size: Floats
    deletion: Deletion


def rows(trained: Trained) -> NDArray[np.int64]:
    return trained.store.rows("held_out")


@pytest.fixture(scope="module")
def looks(trained: Trained) -> dict[str, Look]:
    """By name of the model."""
    found = {}
    for name, count in (("saved", 200), ("noise", 60), ("untrained", 60)):
        model: SavedModel = getattr(trained, name)
        stays = rows(trained)[:count]
        size = np.abs(attributed(model, trained.store, stays, None, 1).by_feature)
        found[name] = Look(stays, size, delete_features(model, trained.store, stays, size, draws=3))
    return found


def area(trained: Trained, answers: Floats) -> float:
    found = auroc(trained.store.label[rows(trained)].astype(np.float64), answers)
    assert found is not None
    return found


def loss_of_top_and_random(trained: Trained, deletion: Deletion) -> tuple[float, float]:
    """Lost AUROC without the top features, and without random ones (mean over the draws)."""
    whole = area(trained, deletion.whole)
    random = np.mean([area(trained, answers) for answers in deletion.without_random])
    return whole - area(trained, deletion.without_top), whole - float(random)


def separation_lost(trained: Trained, look: Look) -> float:
    """How much nearer the mean log odds of both classes come without the top features."""
    positive = trained.store.label[look.stays] == 1

    def apart(answers: Floats) -> float:
        return float(answers[positive].mean() - answers[~positive].mean())

    return apart(look.deletion.whole) - apart(look.deletion.without_top)


def agreement(trained: Trained, size: Floats) -> float:
    """Spearman correlation of importance with the truth's signal, by code."""
    codes = [entry.code for entry in trained.saved.vocabulary.codes]
    signal = np.array([abs(trained.truth["codes"].get(code, 0.0)) for code in codes])
    first, second = (np.argsort(np.argsort(x)).astype(float) for x in (size.mean(axis=0), signal))
    return float(np.corrcoef(first, second)[0, 1])


def test_deleting_top_features_hurts_more_than_deleting_random_ones(
    trained: Trained, looks: dict[str, Look]
) -> None:
    deletion = looks["saved"].deletion
    assert area(trained, deletion.whole) > 0.85
    assert deletion.moved_by_top.mean() > 2 * deletion.moved_by_random.mean()
    top, random = loss_of_top_and_random(trained, deletion)
    assert top > random + 0.015


@pytest.mark.parametrize("which", ["noise", "untrained"])
def test_where_nothing_was_learned_nothing_is_lost(
    trained: Trained, looks: dict[str, Look], which: str
) -> None:
    """Attributions are true to such a model too, but what they call important tells nothing of the label."""
    here, real = looks[which], looks["saved"]
    assert separation_lost(trained, real) > 0.3
    assert abs(separation_lost(trained, here)) < separation_lost(trained, real) / 4
    assert here.deletion.moved_by_top.mean() < real.deletion.moved_by_top.mean() / 3
    assert agreement(trained, here.size) < agreement(trained, real.size) - 0.2


def test_importance_follows_the_truth_and_decoys_come_last(trained: Trained, looks: dict[str, Look]) -> None:
    size = looks["saved"].size
    assert agreement(trained, size) > 0.6
    codes = [entry.code for entry in trained.saved.vocabulary.codes]
    order = [codes[k] for k in np.argsort(-size.mean(axis=0))]
    decoys = [order.index(code) for code in trained.truth["none"]]
    assert len(decoys) == 2
    assert min(decoys) >= len(codes) // 2
    assert set(order[:5]) <= set(trained.truth["important"])


def test_a_wrong_order_of_importance_is_noticed(trained: Trained, looks: dict[str, Look]) -> None:
    """The check can fail: turned upside down, attributions do worse than chance."""
    wrong = delete_features(trained.saved, trained.store, rows(trained), -looks["saved"].size, draws=1)
    assert wrong.moved_by_top.mean() < wrong.moved_by_random.mean()


def test_deletion_never_empties_a_stay(trained: Trained) -> None:
    size = np.ones((1, trained.saved.vocabulary.size))
    row = rows(trained)[:1]
    almost_all = delete_features(trained.saved, trained.store, row, size, features=1000)
    assert np.isfinite(almost_all.without_top).all()
    assert almost_all.moved_by_top[0] > 0
