"""What a federated algorithm is: one class for the server's half, and one for the site's, in one file.

    server half (`Algorithm`)                  site half (`SiteHalf`), in every site of the round
    beside()          -- weights, `beside` -->   begin(local)
                                                 before_step, on_gradient, after_step, after_epoch
    aggregate(...)    <-- weights, `beside`,     finish(local)
                          `facts` --

What both halves remember is arrays by name: the server's are kept in every checkpoint (`state`), the
site's on the site's disk by round (`LocalRound.memory`). Neither half knows Flower, disk or network.

Around every algorithm, and known to none: which layers are exchanged at all (`strategies.local_layers`),
how much each site counts (`strategies.weighting`), how updates are made smaller (`strategies.compression`)
and checked (`strategies.screening`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from hymate.frozen import Frozen
from hymate.train.loop import EpochResult, LocalHook

if TYPE_CHECKING:
    from hymate.data.store import TripletStore

Arrays = dict[str, NDArray[np.generic]]


@dataclass(frozen=True)
class Update:
    """One site's reply to a round."""

    arrays: Arrays
    """Its shared weights after local training."""
    weight: float
    """How much it counts (`strategies.weighting`); positive."""
    site: str = ""
    steps: int = 1
    """Optimiser steps it took."""
    beside: Arrays = field(default_factory=dict)
    """What its half of the algorithm sent beside the weights."""
    facts: Mapping[str, float] = field(default_factory=dict)
    """Numbers its half of the algorithm sent."""


@dataclass(frozen=True)
class Round:
    """What the server's half may know of a round beside the updates."""

    number: int
    """1-based, within the phase."""
    sites: int
    """Of the whole study, whether they took part in the round or not."""


@dataclass
class LocalRound:
    """What the site's half is given for one round. It may change `model` and `memory`."""

    model: nn.Module
    """Under the weights received; trained in place."""
    received: Mapping[str, Tensor]
    """Copies of the shared weights as they were received. Parameters that are not in it stay at the
    site: no algorithm touches them."""
    sent: Mapping[str, Tensor]
    """What the server's half sent beside the weights (`Algorithm.beside`)."""
    memory: dict[str, Tensor]
    """What this half left here in the last round that counted; empty in the first. Kept on disk."""
    train: Callable[[nn.Module, LocalHook | None], EpochResult]
    """This round's epochs, the same batches, on another model; its optimiser is remembered, too."""
    loss: Callable[[], float]
    """Mean loss of the model as it is now over the training stays: the phase's objective, without dropout."""
    store: TripletStore
    min_cell: int
    """Counts of people below it may not leave the site."""
    score: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None
    """Probability of the label of these rows of `store`, of the model as it is now; None in pretraining,
    which knows no label."""
    phase: Literal["pretrain", "finetune"] = "finetune"
    steps: int = 0
    """Optimiser steps taken; known in `finish`."""


@dataclass(frozen=True)
class Beside:
    """What a site sends besides its weights."""

    arrays: Mapping[str, Tensor] = field(default_factory=dict)
    facts: Mapping[str, float] = field(default_factory=dict)


class SiteHalf:
    """What a site does in one round, beside plain training: a `LocalHook` with a beginning and an end."""

    noised_only: ClassVar[bool] = False
    """Whether all that it sends, remembers and does to weights is made of weights, of what the server's half
    sent and of `p.grad` in `on_gradient`, which a round with noise has noised before. Where it is not, there
    are no rounds with noise."""

    def trainings(self, phase: Literal["pretrain", "finetune"]) -> int:
        """How often it has this round's steps taken, the shared model's own included."""
        return 1

    def begin(self, local: LocalRound) -> None:
        """The weights were received, and no step was taken."""

    def before_step(self, model: nn.Module) -> None:
        """As in `LocalHook`."""

    def on_gradient(self, model: nn.Module) -> None:
        """As in `LocalHook`."""

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """As in `LocalHook`."""

    def after_epoch(self, model: nn.Module) -> None:
        """As in `LocalHook`."""

    def finish(self, local: LocalRound) -> Beside:
        """All steps were taken; `local.memory` is kept as it is when this returns."""
        return Beside()


class Algorithm(ABC):
    """The server's half of one federated algorithm, and the way to its other half.

    Subclasses name themselves, may add `Settings` (keys of the study's `strategy:`) and implement
    `aggregate`; everything else has a default that suits an algorithm without a memory.
    """

    name: ClassVar[str]
    personal: ClassVar[bool] = False
    """Whether a site's own model differs from the shared one (`personalise`)."""
    exact_updates: ClassVar[str] = ""
    """Why updates must not be compressed with a loss; empty where they may."""
    dense_updates: ClassVar[str] = ""
    """Why updates must not be made sparse (`top_k`); empty where they may."""
    weights_unused: ClassVar[str] = ""
    """Why the sites' weights make no difference; empty where they do."""
    of_the_mean: ClassVar[bool] = False
    """Whether `aggregate` reads of the updates nothing but the weighted mean of their arrays, so that one
    update which is that mean comes to the same."""
    needs_raw: ClassVar[str] = ""
    """What its server's half needs to know of a site that no noise covers; empty where nothing."""

    class Settings(Frozen):
        """Keys of `strategy:` besides those that every algorithm has."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @abstractmethod
    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        """The next shared weights; called once for each complete round, and may change the state.

        `updates` is non-empty, in the order of the sites' names, with the keys, shapes and dtypes of
        `current`; so must be what is returned.
        """

    def beside(self) -> Arrays:
        """What goes to every site of the next round beside the weights."""
        return {}

    def beside_expected(self, current: Arrays) -> Arrays:
        """Arrays that every site must send beside its weights, as an example of names, shapes and dtypes.

        A reply that lacks one, or has another one, is quarantined.
        """
        return {}

    def fewest(self) -> int:
        """Updates without which a round is not defined: with fewer it waits, as below the study's quorum."""
        return 1

    def facts_needed(self) -> frozenset[str]:
        """Of `facts_expected`, those without which a reply is quarantined."""
        return frozenset()

    def facts_expected(self) -> frozenset[str]:
        """Names of the numbers a site may send; a reply with another, or one not finite, is quarantined."""
        return frozenset()

    def state(self) -> Arrays:
        """What the server's half remembers between rounds: kept in every checkpoint."""
        return {}

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:  # noqa: B027 (most have no state)
        """Go on from `state`, as it was after the last complete round."""

    def site_half(self) -> SiteHalf | None:
        """What the site does inside its round; None: plain training."""
        return None

    def personalise(self, model: nn.Module, memory: Mapping[str, Tensor]) -> None:  # noqa: B027 (most do not)
        """Make of `model`, under the shared weights, the site's own one, from what its half remembers."""
