"""Every baseline learns through HyMaTE's own loop: gradients reach all weights, a signal is found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hymate.config import FinetuneConfig, OptimiserConfig, PretrainConfig
from hymate.data.batching import TripletBatch
from hymate.errors import InputFault
from hymate.evaluate.metrics import auroc
from hymate.model.baselines.baseline import Baseline
from hymate.model.hymate import HyMaTE
from hymate.model.registry import MODELS, build
from hymate.train.loop import finetune_epochs, make_optimiser, pretrain_epochs
from hymate.train.objectives import classification_loss
from hymate.train.scoring import forecast_error, score
from tests.hymate.model.baselines.small import FORECASTERS, SMALL, new
from tests.hymate.model.batches import CODES, STATIC, batch_of, random_stay
from tests.hymate.model.batches import SMALL as HYMATE
from tests.hymate.train.planted import CODES as PLANTED_CODES
from tests.hymate.train.planted import planted_store

FINETUNE = FinetuneConfig(batch_size=16, learning_rate=1e-2, clip_norm=1.0)
PRETRAIN = PretrainConfig(batch_size=16, learning_rate=1e-2)
NAMES = sorted(SMALL)


def eight_stays() -> TripletBatch:
    batch = batch_of([random_stay(20 + seed, seed) for seed in range(8)])
    batch.label.copy_(torch.arange(8) % 2)
    return batch


@pytest.mark.parametrize("name", NAMES)
def test_gradients_reach_every_weight(name: str) -> None:
    model, batch = new(name), eight_stays()
    loss = classification_loss(model.classify(batch), batch.label, 1.0).sum()
    if model.can_forecast:
        loss = loss + model.forecast(batch).square().sum()
    torch.autograd.backward(loss)
    dead = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert dead == []


@pytest.mark.parametrize("name", NAMES)
def test_eight_stays_are_learned_by_heart(name: str) -> None:
    model, batch = new(name).train(), eight_stays()
    torch.manual_seed(0)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        loss = classification_loss(model.classify(batch), batch.label, 1.0).mean()
        torch.autograd.backward(loss)
        optimiser.step()
    with torch.no_grad():
        after = classification_loss(model.eval().classify(batch), batch.label, 1.0)
    assert after.mean() < 0.3  # chance: 0.69


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_signal_is_found_on_stays_no_training_saw(name: str) -> None:
    store = planted_store(train=128, tuning=64)
    model = new(name, codes=PLANTED_CODES, static_width=2)
    rows = store.rows("tuning")
    optimiser = make_optimiser(model, FINETUNE)
    result = finetune_epochs(
        model, store, FINETUNE, optimiser, positive_weight=1.0, seed=0, first_epoch=0, epochs=6
    )
    assert result.stays == 128
    found = auroc(store.label[rows].astype(np.float64), score(model, store, rows))
    assert found is not None
    assert found > 0.8


@pytest.mark.parametrize("name", NAMES)
def test_pretraining_lowers_the_forecast_error_or_is_refused(name: str) -> None:
    store = planted_store(train=96, tuning=48)
    model = new(name, codes=PLANTED_CODES, static_width=2)
    assert model.can_forecast is (name in FORECASTERS)
    optimiser = make_optimiser(model, PRETRAIN)

    def pretrain() -> None:
        pretrain_epochs(model, store, PRETRAIN, optimiser, seed=0, first_epoch=0, epochs=10)

    if not model.can_forecast:
        with pytest.raises(InputFault, match=r"pretrain.rounds"):
            pretrain()
        return
    before = forecast_error(model, store, PRETRAIN, seed=0)
    pretrain()
    after = forecast_error(model, store, PRETRAIN, seed=0)
    assert before is not None
    assert after is not None
    assert after < 0.95 * before


@pytest.mark.parametrize("name", NAMES)
def test_epochs_in_two_calls_are_epochs_in_one(name: str) -> None:
    """Bitwise, as the loop promises: nothing in a baseline keeps a state of its own."""
    store = planted_store(train=32, tuning=8)

    def trained(calls: list[tuple[int, int]]) -> dict[str, torch.Tensor]:
        model = new(name, codes=PLANTED_CODES, static_width=2)
        optimiser = make_optimiser(model, FINETUNE)
        for first, epochs in calls:
            finetune_epochs(
                model,
                store,
                FINETUNE,
                optimiser,
                positive_weight=1.0,
                seed=3,
                first_epoch=first,
                epochs=epochs,
            )
        return model.state_dict()

    once, twice = trained([(0, 2)]), trained([(0, 1), (1, 1)])
    assert all(torch.equal(once[key], twice[key]) for key in once)


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_spares_biases_norms_and_embeddings(name: str) -> None:
    model = new(name)
    decayed, spared = make_optimiser(model, OptimiserConfig()).param_groups
    named = {id(parameter): key for key, parameter in model.named_parameters()}
    assert {named[id(p)] for p in [*decayed["params"], *spared["params"]]} == set(named.values())
    tables = ("embedding.feature.weight", "position.weight")
    for parameter in decayed["params"]:
        assert parameter.ndim >= 2
        assert not named[id(parameter)].endswith(tables)


@pytest.mark.parametrize("name", NAMES)
def test_first_weights_depend_on_the_seed_alone(name: str) -> None:
    state = torch.random.get_rng_state()
    one, same, other = new(name, seed=1), new(name, seed=1), new(name, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state)
    batch = eight_stays()
    assert torch.equal(one.classify(batch), same.classify(batch))
    assert not torch.equal(one.classify(batch), other.classify(batch))


@pytest.mark.parametrize("name", NAMES)
def test_no_buffers_and_no_demographics(name: str) -> None:
    """Everything kept is learned; without demographics the sequence is all."""
    model = new(name, static_width=0)
    assert list(model.buffers()) == []
    assert not any(key.startswith("static") for key, _ in model.named_parameters())
    assert model.classify(eight_stays()).shape == (8,)
    assert isinstance(model, Baseline)


def test_the_registry_builds_hymate_too() -> None:
    model = build(HYMATE, codes=CODES, static_width=STATIC, time_scale_hours=48.0, seed=0)
    assert isinstance(model, HyMaTE)
    assert set(MODELS) == {"hymate", *SMALL}
