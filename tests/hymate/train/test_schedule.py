"""The learning rate depends on the place in the phase alone, and rounds agree with one long training."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hymate.config import OptimiserConfig
from hymate.train.loop import finetune_epochs, make_optimiser, pretrain_epochs
from hymate.train.optimiser import of_encoder
from hymate.train.schedule import LOWEST, changes, rate_factor, set_rate
from tests.hymate.train.planted import FINETUNE, PRETRAIN, new_model, planted_store

COSINE = OptimiserConfig(schedule="cosine", warmup=0.1)


def test_it_rises_over_the_warm_up_and_falls_along_a_cosine() -> None:
    factors = [rate_factor(COSINE, step, 100) for step in range(101)]
    assert factors[0] == pytest.approx(1 / 11)
    assert max(factors) == factors[10] == pytest.approx(0.5 * (1 + 0.95106), abs=1e-4)
    assert all(a < b for a, b in pairwise(factors[:11]))
    assert all(a > b for a, b in pairwise(factors[10:91]))
    assert factors[50] == pytest.approx(0.5)
    assert factors[100] == rate_factor(COSINE, 130, 100) == LOWEST


def test_the_default_is_constant() -> None:
    assert not changes(OptimiserConfig())
    assert {rate_factor(OptimiserConfig(), step, 7) for step in range(9)} == {1.0}
    assert changes(OptimiserConfig(warmup=0.5))


def test_every_group_keeps_its_share() -> None:
    model = new_model()
    settings = FINETUNE.model_copy(update={"encoder_rate": 0.1})
    optimiser = make_optimiser(model, settings)
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    for factor in (0.5, 0.2):
        set_rate(optimiser, factor)
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                share = 0.1 if of_encoder(name_of[id(parameter)]) else 1.0
                assert group["lr"] == pytest.approx(factor * share * settings.learning_rate)
    assert of_encoder("mamba.0.norm.weight")
    assert not of_encoder("static.hidden.weight")
    assert not of_encoder("classification_head.out.bias")


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_rounds_of_one_epoch_take_the_steps_of_one_training(phase: str) -> None:
    store = planted_store(train=30, tuning=0)
    change = {"schedule": "cosine", "warmup": 0.2, "rounds": 4, "windows_per_stay": 2}
    if phase == "finetune":
        del change["windows_per_stay"]

    def train(
        first: int, epochs: int, model: torch.nn.Module, optimiser: torch.optim.Optimizer
    ) -> list[float]:
        rates: list[float] = []

        class Watch:
            def before_step(self, model: torch.nn.Module) -> None: ...

            def on_gradient(self, model: torch.nn.Module) -> None:
                rates.append(optimiser.param_groups[0]["lr"])

            def after_step(self, model: torch.nn.Module, optimiser: torch.optim.Optimizer) -> None: ...

            def after_epoch(self, model: torch.nn.Module) -> None: ...

        common = {"seed": 0, "first_epoch": first, "epochs": epochs, "hook": Watch()}
        if phase == "pretrain":
            pretrain_epochs(model, store, PRETRAIN.model_copy(update=change), optimiser, **common)  # type: ignore[arg-type]
        else:
            settings = FINETUNE.model_copy(update=change)
            finetune_epochs(model, store, settings, optimiser, positive_weight=1.0, **common)  # type: ignore[arg-type]
        return rates

    straight, rounds = new_model(), new_model()
    optimiser = make_optimiser(straight, FINETUNE)
    planned = train(0, 4, straight, optimiser)
    optimiser = make_optimiser(rounds, FINETUNE)
    taken = [rate for number in range(4) for rate in train(number, 1, rounds, optimiser)]
    assert planned == taken
    steps = len(planned)
    settings = OptimiserConfig(schedule="cosine", warmup=0.2)
    assert planned == [FINETUNE.learning_rate * rate_factor(settings, i, steps) for i in range(steps)]
    assert all(torch.equal(a, b) for a, b in zip(straight.parameters(), rounds.parameters(), strict=True))
