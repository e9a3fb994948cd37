"""An ensemble says the mean of its members, and is saved and read as one model; the event head learns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hymate.config import TaskConfig
from hymate.data.batching import collate
from hymate.data.forecasting import forecast_batches
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.model.ensemble import Ensemble
from hymate.train.loop import make_optimiser, pretrain_epochs
from hymate.train.objectives import event_loss
from hymate.train.saved_model import SavedModel, as_ensemble, load_model, save_model
from hymate.train.scoring import forecast_error, score
from tests.hymate.train.planted import CODES, MODEL, PRETRAIN, new_model, planted_store

VOCABULARY = Vocabulary(
    codes=tuple(VocabularyEntry(f"c{i}", "", 0.0, 1.0, True) for i in range(CODES)),
    static=tuple(VocabularyEntry(name, "", 0.0, 1.0, False) for name in "ab"),
)


def test_probabilities_or_numbers_are_averaged() -> None:
    store, members = planted_store(train=12, tuning=0), [new_model(seed) for seed in (0, 1, 2)]
    rows = store.rows("train")
    mean = np.mean([score(member, store, rows) for member in members], axis=0)
    assert score(Ensemble(members), store, rows) == pytest.approx(mean, abs=1e-6)
    batch = collate(store, rows)
    with torch.no_grad():
        for member in members:
            member.eval()
        outputs = torch.stack([member(batch) for member in members]).mean(dim=0)
        numbers = Ensemble(members, of_probabilities=False).eval()
        assert torch.allclose(numbers(batch), outputs)
        assert not torch.allclose(Ensemble(members).eval()(batch), outputs, atol=1e-6)


def test_members_sure_of_themselves_stay_finite() -> None:
    member = new_model().eval()
    with torch.no_grad():
        member.classification_head.out.bias.fill_(-300.0)
    batch = collate(planted_store(), np.arange(3))
    with torch.no_grad():
        assert Ensemble([member, member]).eval()(batch) == pytest.approx(member(batch), rel=1e-4)


def test_it_is_one_model_on_disk(tmp_path: Path) -> None:
    store = planted_store(train=12, tuning=0)
    rows = store.rows("train")
    members = [SavedModel(f"m{seed}", new_model(seed), MODEL, TaskConfig(), VOCABULARY) for seed in (0, 1, 2)]
    together = as_ensemble(members, "three")
    save_model(tmp_path / "model", together)
    found = load_model(tmp_path)
    assert (found.name, found.members) == ("three", 3)
    assert np.array_equal(score(found.model, store, rows), score(together.model, store, rows))
    save_model(tmp_path / "one", members[0])
    assert load_model(tmp_path / "one").members == 1
    assert "members" not in (tmp_path / "one" / "config.json").read_text()


def test_the_event_head_changes_no_other_weight_and_learns_what_is_measured() -> None:
    store = planted_store(train=64, tuning=32)
    config = MODEL.model_copy(update={"event_head": True})
    plain, model = new_model(), new_model(config=config)
    ours = model.state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in plain.state_dict().items())
    settings = PRETRAIN.model_copy(update={"event_rate": 2.0, "rounds": 6})

    def error() -> float:
        batch = next(iter(forecast_batches(store, store.rows("tuning"), settings, np.random.default_rng(0))))
        model.eval()
        with torch.no_grad():
            values, logits = model.forecast_with_events(batch.input)
            assert torch.equal(values, model.forecast(batch.input))
            losses = event_loss(logits, batch)
        by_hand = F.binary_cross_entropy_with_logits(logits[:, 1:], batch.target_mask[:, 1:].float())
        assert float(losses.mean()) == pytest.approx(float(by_hand), abs=1e-6)
        return float(losses.mean())

    before, values = error(), forecast_error(model, store, settings, seed=0)
    optimiser = make_optimiser(model, settings)
    result = pretrain_epochs(model, store, settings, optimiser, seed=0, first_epoch=0, epochs=6)
    assert error() < before - 0.1
    both = pretrain_epochs(
        new_model(config=config),
        store,
        settings,
        make_optimiser(model, settings),
        seed=0,
        first_epoch=0,
        epochs=1,
    )
    alone = pretrain_epochs(
        plain, store, PRETRAIN, make_optimiser(model, PRETRAIN), seed=0, first_epoch=0, epochs=1
    )
    assert both.loss > alone.loss + 1.0  # of 2 x about log 2
    assert values is not None
    assert result.stays == alone.stays
