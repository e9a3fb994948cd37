"""Algorithms through the real ClientApp: what each equals, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from hymate.protocol import FinetuneRequest
from hymate.train.loop import finetune_epochs, make_optimiser
from strategies.wire import apart, unpack, unpack_weights
from tests.server.algorithms.runs import (
    FINETUNE,
    PRETRAIN,
    SITES,
    Ran,
    carry,
    fine_tuned,
    ranked,
    weights,
    whole,
)


def test_fedprox_without_a_pull_is_fedavg_bit_for_bit(laid_out: Path, tmp_path: Path, plain: Ran) -> None:
    still = carry(laid_out, tmp_path / "still", {"name": "fedprox", "mu": 0})
    pulled = carry(laid_out, tmp_path / "pulled", {"name": "fedprox", "mu": 50})
    assert weights(still) == weights(plain)
    assert weights(pulled) != weights(plain)


def test_scaffold_with_one_site_is_fedavg_bit_for_bit(laid_out: Path, tmp_path: Path) -> None:
    """With c and c_i as large as gradients, and equal."""
    one = carry(laid_out, tmp_path / "one", {"name": "scaffold"}, hospitals=1, rounds=3)
    other = carry(laid_out, tmp_path / "other", {"name": "fedavg"}, hospitals=1, rounds=3)
    assert weights(one) == weights(other)
    control = one.last().strategy["control/classification_head.out.weight"]
    assert np.abs(control).max() > 1e-3


class Freeze:
    """A hook that lets some parameters learn."""

    def __init__(self, learns: Callable[[str], bool]) -> None:
        self._learns = learns

    def on_gradient(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if not self._learns(name):
                parameter.grad = None

    def before_step(self, model: nn.Module) -> None: ...
    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None: ...
    def after_epoch(self, model: nn.Module) -> None: ...


def test_fedrep_trains_the_head_first_and_the_rest_after(laid_out: Path, tmp_path: Path) -> None:
    strategy = {"local_layers": ["head"], "local_layers_first": 1}
    ran = carry(laid_out, tmp_path / "run", strategy, epochs=2, rounds=1)
    message = ran.told(FINETUNE)[0]
    request, optimiser = unpack(message.content, FinetuneRequest), None
    model = whole(ran, unpack_weights(message.content), {})
    optimiser = make_optimiser(model, request.finetune)

    def head(name: str) -> bool:
        return name.startswith("classification_head.")

    for number, learns in enumerate((head, lambda name: not head(name))):
        finetune_epochs(
            model,
            ran.store("hospital_1"),
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            first_epoch=number,
            epochs=1,
            hook=Freeze(learns),
        )
    expected = {name: x.numpy().tobytes() for name, x in model.state_dict().items()}
    (reply,) = ran.said(FINETUNE, "hospital_1")
    assert {name: x.tobytes() for name, x in reply.items()} == {
        name: x for name, x in expected.items() if not head(name)
    }
    layers = ran.remembered("hospital_1")
    assert {name.removeprefix("layers/"): x.numpy().tobytes() for name, x in layers.items()} == {
        name: x for name, x in expected.items() if head(name)
    }


def test_pretraining_may_have_a_strategy_of_its_own(scaffolded: Ran, plain: Ran) -> None:
    ran = scaffolded
    beside = {kind: [set(apart(arrays)[1]) for arrays in ran.said(kind)] for kind in (PRETRAIN, FINETUNE)}
    assert beside[PRETRAIN] == [set(), set()]
    assert beside[FINETUNE] == [set(ran.last().weights)] * 6
    assert [ran.kept(SITES[0], phase) for phase in ("pretrain", "finetune")] == [[], [1, 2, 3]]
    assert ran.last("pretrain").strategy == {}
    first = ran.told(FINETUNE)[0].content  # fine-tuning knows no control variate of pretraining
    assert {name: x.tobytes() for name, x in unpack_weights(first).items()} == {
        name: x.tobytes() for name, x in unpack_weights(plain.told(FINETUNE)[0].content).items()
    }


def test_ditto_s_own_models_are_scored_and_kept_and_the_shared_one_is_fedavg_s(
    laid_out: Path, tmp_path: Path, plain: Ran
) -> None:
    """Without a pull, the own model is that of a site that fine-tunes the pretrained weights by itself."""
    ran = carry(laid_out, tmp_path / "run", {"name": "ditto", "lambda": 0}, tamper=ranked(2))
    assert weights(ran) == weights(plain)
    assert [set(apart(arrays)[1]) for arrays in ran.said(FINETUNE)] == [set()] * 4
    assert ran.kept(SITES[0], "pretrain") == []
    message = ran.told(FINETUNE)[0]
    for site in SITES[:2]:
        alone = whole(ran, unpack_weights(message.content), {})
        fine_tuned(ran, site, alone, unpack(message.content, FinetuneRequest), [0, 1])
        own = ran.own_model(site).state_dict()
        for name, tensor in alone.state_dict().items():
            assert own[name].numpy().tobytes() == tensor.numpy().tobytes(), (site, name)
    assert ran.report["personal"] is True
