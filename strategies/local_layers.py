"""Layers that never leave a site: one mechanism for FedPer, FedRep, FedBN and what lies between.

    FedPer (arXiv 1912.00818)   local_layers: [head]
    FedRep (arXiv 2102.07078)   local_layers: [head], local_layers_first: 1, local_epochs: 2
    FedBN  (arXiv 2102.07623)   local_layers: [norms]        (HyMaTE has RMS norms in place of batch norms)

A site sends and receives the other layers only; its own it keeps on its disk, by round, and they are
part of the model that it is scored with.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable, Mapping

import torch
from torch import Tensor, nn

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.base import SiteHalf

PREFIX = "layers/"
"""Of the local layers among what a site remembers."""

GROUPS: dict[str, Callable[[str], bool]] = {
    "head": lambda name: name.startswith("classification_head."),
    "forecast_head": lambda name: name.startswith(("forecast_head.", "event_head.")),
    "static": lambda name: name.startswith("static."),
    "summary": lambda name: name.startswith("summary."),
    "embedding": lambda name: name.startswith("embedding."),
    "fusion": lambda name: name.startswith("fusion."),
    "norms": lambda name: any(part.endswith("norm") for part in name.split(".")[:-1]),
}
"""What a study may call parts of HyMaTE, by the names of their parameters."""


def local_names(layers: Iterable[str], parameters: Collection[str], source: str = "study") -> frozenset[str]:
    """Which of `parameters` stay at the site; `source` is the file that names them.

    Raises:
        InputFault: a word names none of them, or nothing would be left to share.

    >>> sorted(local_names(["norms"], ["mamba.0.norm.weight", "fusion.score.weight", "norm.weight"]))
    ['mamba.0.norm.weight', 'norm.weight']
    """
    found: set[str] = set()
    for layer in layers:
        belongs = GROUPS.get(layer, lambda name, layer=layer: name == layer or name.startswith(layer + "."))
        named = {name for name in parameters if belongs(name)}
        if not named:
            parts = {name.split(".")[0] for name in parameters}
            near = difflib.get_close_matches(layer, [*GROUPS, *parts], n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted({*GROUPS, *parts}))}"
            raise InputFault(
                f"{source}: strategy.local_layers", f"the model has no part called '{layer}'", hint
            )
        found |= named
    if found and len(found) == len(parameters):
        raise InputFault(
            f"{source}: strategy.local_layers",
            "no layer would be left to share",
            "take one out, or let each site train by itself (evaluation.local_baseline)",
        )
    return frozenset(found)


def demand_layers(strategies: Mapping[str, StrategyConfig], epochs: Mapping[str, int]) -> None:
    """`ValueError` where a layer would never learn, or be lost between the phases.

    Args:
        strategies: that of `pretrain` and of `finetune`.
        epochs: a round's, of those phases that have rounds.
    """
    for phase in epochs:
        strategy = strategies[phase]
        first = strategy.local_layers_first
        if first and not strategy.local_layers:
            raise ValueError("strategy.local_layers_first is for layers of the sites: name local_layers")
        if first >= epochs[phase]:
            raise ValueError(
                f"strategy.local_layers_first {first} leaves none of {phase}.local_epochs {epochs[phase]} to "
                f"the shared layers: raise {phase}.local_epochs, or give {phase} another strategy"
            )
    lost = sorted(set(strategies["pretrain"].local_layers) - set(strategies["finetune"].local_layers))
    if lost and "pretrain" in epochs:
        raise ValueError(
            f"strategy.pretrain.local_layers names '{lost[0]}', strategy.local_layers does not: what the "
            "sites learned there would be in nobody's model; name it in both, or in strategy.local_layers"
        )


def put_local(model: nn.Module, memory: Mapping[str, Tensor]) -> None:
    """The site's own layers in place of those in `model`, where it remembers any."""
    own = model.state_dict()
    with torch.no_grad():
        for name, tensor in memory.items():
            if name.startswith(PREFIX):
                own[name.removeprefix(PREFIX)].copy_(tensor)


def taken_local(model: nn.Module, names: Collection[str]) -> dict[str, Tensor]:
    """Copies of the site's own layers, named as they are remembered."""
    state = model.state_dict()
    return {PREFIX + name: state[name].detach().clone() for name in sorted(names)}


class InTurn(SiteHalf):
    """A hook that lets the local layers learn first, and the shared ones after (FedRep); wraps another."""

    def __init__(self, local: Collection[str], first_epochs: int, inner: SiteHalf) -> None:
        self._local, self._left, self._inner = frozenset(local), first_epochs, inner

    def before_step(self, model: nn.Module) -> None:
        self._inner.before_step(model)

    def on_gradient(self, model: nn.Module) -> None:
        """AdamW leaves alone what has no gradient: neither moments nor weight decay touch it. Nor does
        the algorithm count it."""
        local_first = self._left > 0
        for name, parameter in model.named_parameters():
            if (name in self._local) != local_first:
                parameter.grad = None
        self._inner.on_gradient(model)

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self._inner.after_step(model, optimiser)

    def after_epoch(self, model: nn.Module) -> None:
        self._left -= 1
        self._inner.after_epoch(model)
