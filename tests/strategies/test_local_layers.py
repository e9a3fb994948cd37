"""Layers that stay at the sites: which they are, whose turn it is, and what makes no sense."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from hymate.config import ModelConfig
from hymate.errors import InputFault
from hymate.model.hymate import build_model
from server.study import StudyConfig
from strategies.base import SiteHalf
from strategies.local_layers import GROUPS, InTurn, local_names, put_local, taken_local

CONFIG = ModelConfig(
    d_model=8,
    mamba_blocks=2,
    d_state=4,
    attention_heads=2,
    d_static=4,
    d_summary=4,
    event_head=True,
    bidirectional=True,
)
MODEL = build_model(CONFIG, codes=5, static_width=3, time_scale_hours=48, seed=0)
NAMES = frozenset(MODEL.state_dict())


def names_below(*modules: str) -> set[str]:
    """By the model's own structure, not by the look of names."""
    return {
        f"{path}.{name}"
        for path, module in MODEL.named_modules()
        if path in modules
        for name, _ in module.named_parameters()
    }


@pytest.mark.parametrize(
    ("layer", "modules"),
    [
        ("head", ["classification_head"]),
        ("forecast_head", ["forecast_head", "event_head"]),
        ("static", ["static"]),
        ("summary", ["summary"]),
        ("embedding", ["embedding"]),
        ("fusion", ["fusion"]),
        ("mamba", ["mamba"]),
        ("mamba.1", ["mamba.1"]),
        ("norms", [path for path, module in MODEL.named_modules() if "Norm" in type(module).__name__]),
    ],
)
def test_words_mean_parts_of_the_model(layer: str, modules: list[str]) -> None:
    assert modules
    found = local_names([layer], NAMES)
    assert found == names_below(*modules)
    assert 0 < len(found) < len(NAMES)


def test_every_group_is_tested_and_there_and_they_add_up() -> None:
    assert set(GROUPS) == {"head", "forecast_head", "static", "summary", "embedding", "fusion", "norms"}
    both = local_names(["head", "norms"], NAMES)
    assert both == local_names(["head"], NAMES) | local_names(["norms"], NAMES)
    assert local_names([], NAMES) == frozenset()


@pytest.mark.parametrize(
    ("layers", "words"),
    [
        (["hed"], "no part called 'hed'; did you mean 'head'"),
        (["zzz"], "no part called 'zzz'; known: .*attention.*norms"),
        (["mamb"], "no part called 'mamb'"),  # a prefix ends where a name does
        (sorted({name.split(".")[0] for name in NAMES}), "no layer would be left to share"),
    ],
)
def test_words_that_name_nothing_or_all_are_refused(layers: list[str], words: str) -> None:
    with pytest.raises(InputFault, match=words):
        local_names(layers, NAMES)


def test_what_was_taken_can_be_put_back() -> None:
    names = local_names(["norms"], NAMES)
    one, other = (build_model(CONFIG, codes=5, static_width=3, time_scale_hours=48, seed=s) for s in (1, 2))
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.add_(1.0)
    taken = taken_local(one, names)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.zero_()
    assert bool((taken["layers/norm.weight"] != 0).all())  # copies, not views
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    put_local(other, {**taken, "algorithm/norm.weight": torch.zeros(8)})
    for name, tensor in other.state_dict().items():
        expected = taken[f"layers/{name}"] if name in names else before[name]
        assert torch.equal(tensor, expected), name
    assert not torch.equal(other.state_dict()["norm.weight"], before["norm.weight"])


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.own = nn.Parameter(torch.ones(1))
        self.shared = nn.Parameter(torch.ones(1))


class Watching(SiteHalf):
    """Notes which gradients an algorithm is shown, and what it is called for."""

    def __init__(self) -> None:
        self.shown: list[list[str]] = []
        self.calls: list[str] = []

    def before_step(self, model: nn.Module) -> None:
        self.calls.append("before")

    def on_gradient(self, model: nn.Module) -> None:
        self.shown.append([name for name, p in model.named_parameters() if p.grad is not None])

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.calls.append("after")

    def after_epoch(self, model: nn.Module) -> None:
        self.calls.append("epoch")


def test_own_layers_learn_first_and_the_algorithm_sees_what_learns() -> None:
    """Two epochs, two, and one more: AdamW, with decay, leaves alone whose turn it is not."""
    model, watching = Pair(), Watching()
    hook = InTurn(["own"], 2, watching)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    moved = []
    for _ in range(4):
        before = model.own.item(), model.shared.item()
        hook.before_step(model)
        optimiser.zero_grad()
        (model.own * model.shared).sum().backward()
        hook.on_gradient(model)
        optimiser.step()
        hook.after_step(model, optimiser)
        hook.after_epoch(model)
        moved.append((model.own.item() != before[0], model.shared.item() != before[1]))
    assert moved == [(True, False), (True, False), (False, True), (False, True)]
    assert watching.shown == [["own"], ["own"], ["shared"], ["shared"]]
    assert watching.calls == ["before", "after", "epoch"] * 4


def study(strategy: dict[str, Any], epochs: int = 2, pretrain_rounds: int = 1) -> StudyConfig:
    pretrain = {"rounds": pretrain_rounds, "local_epochs": epochs}
    content = {"name": "s", "strategy": strategy, "pretrain": pretrain}
    return StudyConfig.model_validate({**content, "finetune": {"local_epochs": epochs}})


@pytest.mark.parametrize(
    ("strategy", "epochs", "words"),
    [
        ({"local_layers": ["head"], "local_layers_first": 2}, 2, "leaves none of finetune.local_epochs 2"),
        (
            {"local_layers": ["head"], "pretrain": {"local_layers": ["head"], "local_layers_first": 1}},
            1,
            "leaves none of pretrain.local_epochs 1",
        ),
        ({"local_layers_first": 1}, 2, "name local_layers"),
        ({"pretrain": {"local_layers": ["norms"]}}, 2, "'norms', strategy.local_layers does not"),
        ({"local_layers": ["head"], "pretrain": {"local_layers": ["head", "static"]}}, 2, "names 'static'"),
    ],
)
def test_layers_that_would_never_learn_or_be_lost_are_refused(
    strategy: dict[str, Any], epochs: int, words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        study(strategy, epochs)


def test_what_makes_sense_is_taken() -> None:
    fedrep = study({"local_layers": ["head"], "local_layers_first": 1}).strategy
    assert fedrep.of("finetune").local_layers_first == 1
    assert fedrep.of("pretrain").local_layers == ("head",)
    assert fedrep.of("pretrain").local_layers_first == 0  # the head learns nothing there
    study({"local_layers": ["head", "norms"], "pretrain": {"local_layers": ["norms"]}}, 1)
    study({"local_layers": ["norms"], "pretrain": {"name": "fedavg"}}, 1)
    study({"pretrain": {"local_layers": ["norms"], "local_layers_first": 1}}, 1, pretrain_rounds=0)
