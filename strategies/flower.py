"""Flower's own strategies (`flwr.serverapp.strategy`) under their own names, as they are.

    strategy: {name: flower.FedTrimmedAvg, beta: 0.25}

Keys are those of the strategy's constructor, but for those that say who takes part (`participation:` does)
and how records are named. Each round it is handed the weights that were sent and the sites' replies as
Flower messages, and its weights are read back; what it remembers goes into every checkpoint
(`strategies.flower_state`).

Not usable: what needs a half at the sites that is not there: FedProx (this project's `fedprox` has it), the
wrappers for differential privacy, XGBoost.

Known of Flower 1.41:
- FedTrimmedAvg cuts int(beta n) of n values at each end: with four sites and beta 0.2, none.
- Krum, MultiKrum, Bulyan compute ||x - y||^2 as ||x||^2 + ||y||^2 - 2 x.y of the weights in float32: sites
  whose weights differ by less than about 1e-3 of their length are told apart by rounding errors.
- Krum and MultiKrum go on with fewer sites than they are defined for; Bulyan returns nothing (here: a fault).
- Bulyan chooses its sites by one ranking, where the paper ranks anew after each choice.
- QFedAvg leaves out the sites' weights. FedAdam: see `strategies.adaptive`.
`krum`, `multikrum`, `bulyan`, `trimmed_mean`, `median` and `qfedavg` are free of these.
"""

from __future__ import annotations

import contextlib
import functools
import gc
import inspect
import logging
import random
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np
from flwr.app import ConfigRecord, Message, MetricRecord, RecordDict
from numpy.typing import NDArray
from pydantic import create_model, model_validator

from hymate.errors import InputFault
from strategies.base import Algorithm, Arrays, Round, SiteHalf, Update
from strategies.flower_state import captured, put_back
from strategies.received_loss import LOSS, ReceivedLoss
from strategies.wire import ARRAYS, CONFIG, METRICS, WEIGHT, pack_weights

if TYPE_CHECKING:
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import Strategy

PREFIX = "flower."
TRAIN_LOSS = "train_loss"
EVERYBODY: dict[str, Any] = {
    "fraction_train": 1.0,
    "fraction_evaluate": 1.0,
    "min_train_nodes": 1,
    "min_evaluate_nodes": 1,
    "min_available_nodes": 1,
}
"""So that Flower takes the replies there are, and waits for nobody."""
OURS: dict[str, Any] = {
    **EVERYBODY,
    "weighted_by_key": WEIGHT,
    "arrayrecord_key": ARRAYS,
    "configrecord_key": CONFIG,
    "train_loss_key": TRAIN_LOSS,
}
"""Constructor arguments that a study does not set, and what they are."""
SPARSE = "most coordinates of most updates would be zero, and zeros would outvote the rest"
REPLACED = "its rule counts every site once"
DENSE = ("Bulyan", "FedMedian", "FedTrimmedAvg", "Krum", "MultiKrum")
UNWEIGHTED = ("Bulyan", "FedMedian", "FedTrimmedAvg", "Krum", "QFedAvg")


def flower_names() -> list[str]:
    """Every strategy that can be used, as a study names it."""
    return [PREFIX + name for name in _strategies() if not _why_not(name)]


def flower_algorithm(name: str, source: str = "study") -> type[Algorithm] | None:
    """The algorithm that runs Flower's strategy; None where Flower has none of that name.

    Raises:
        InputFault: it has, and it cannot be used here.
    """
    plain = name.removeprefix(PREFIX)
    if plain not in _strategies():
        return None
    if reason := _why_not(plain):
        raise InputFault(source, f"strategy.name: '{name}' cannot be used: {reason[0]}", reason[1])
    return _algorithm(plain)


def run_strategy(strategy: Strategy, number: int, current: Arrays, updates: Sequence[Update]) -> Arrays:
    """One round of Flower's strategy: weights in, weights out, in the dtypes of `current`.

    Raises:
        InputFault: it gave up, in one line.
    """
    what = f"{PREFIX}{type(strategy).__name__}"
    config = ConfigRecord()
    grid = cast("Grid", _Present(len(updates)))
    with _by_itself():
        try:
            asked = {
                message.metadata.dst_node_id: message
                for message in strategy.configure_train(number, pack_weights(current), config, grid)
            }
            replies = [
                Message(_content(update), reply_to=asked[node])
                for node, update in enumerate(updates, 1)
                if node in asked
            ]
            record, _ = strategy.aggregate_train(number, replies)
        except Exception as fault:  # Flower's own faults have no common kind that says so
            words = " ".join(str(fault).split()) or type(fault).__name__
            raise InputFault(
                "strategy", f"{what} failed in round {number}: {words}", "see its settings"
            ) from fault
    arrays = {} if record is None else {name: array.numpy() for name, array in record.items()}
    if {name: array.shape for name, array in arrays.items()} != {
        name: array.shape for name, array in current.items()
    }:
        raise InputFault(
            "strategy",
            f"{what} made no weights of the {len(updates)} updates of round {number}",
            "let more sites take part (participation.quorum), or expect fewer faulty ones",
        )
    return {name: np.asarray(arrays[name]).astype(array.dtype) for name, array in current.items()}


class FlowerAlgorithm(Algorithm):
    """Any one of Flower's strategies; `_algorithm` makes a subclass for each."""

    flower: ClassVar[str] = ""
    """Flower's name of it."""

    def __init__(self, settings: Algorithm.Settings) -> None:
        super().__init__(settings)
        self._strategy = built(self.flower, settings.model_dump(exclude_unset=True))

    def aggregate(self, round: Round, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return run_strategy(self._strategy, round.number, current, updates)

    def site_half(self) -> SiteHalf | None:
        return ReceivedLoss() if self.facts_needed() else None

    def facts_expected(self) -> frozenset[str]:
        return self.facts_needed()

    def facts_needed(self) -> frozenset[str]:
        return frozenset({LOSS} if "train_loss_key" in _parameters(self.flower) else ())

    def state(self) -> Arrays:
        return captured(self._strategy, self.name)

    def restore(self, state: Mapping[str, NDArray[np.generic]]) -> None:
        put_back(self._strategy, state)


class FlowerSettings(Algorithm.Settings):
    """Of the constructor's arguments those that a study may set."""

    flower: ClassVar[str] = ""

    @model_validator(mode="before")
    @classmethod
    def _ours(cls, given: Any) -> Any:
        for key in given if isinstance(given, dict) else ():
            if key in OURS and key in _parameters(cls.flower):
                raise ValueError(
                    f"'{key}' is not a study's to set (who takes part: participation; weights: weighting)"
                )
        return given

    @model_validator(mode="after")
    def _accepted(self) -> FlowerSettings:
        built(self.flower, self.model_dump(exclude_unset=True))
        return self


def _strategies() -> list[str]:
    """Names of the strategies that Flower exports; imported late, for sites need none of it."""
    from flwr.serverapp import strategy

    kinds = {name: getattr(strategy, name) for name in strategy.__all__}
    return [
        name
        for name, kind in kinds.items()
        if inspect.isclass(kind) and issubclass(kind, strategy.Strategy) and not inspect.isabstract(kind)
    ]


def _why_not(name: str) -> tuple[str, str] | None:
    """Why a strategy cannot be used, and what to do."""
    if name == "FedProx":
        return "its proximal term belongs to the sites' half", "take 'fedprox', which has both halves"
    if name.startswith("DifferentialPrivacy"):
        return "it wraps another strategy, and its site half is missing", "leave it out"
    if "Xgb" in name:
        return "it merges trees, and the model here is made of arrays", "take another algorithm"
    return None


@functools.cache
def _algorithm(name: str) -> type[Algorithm]:
    """`FlowerAlgorithm` for one of Flower's strategies, its settings those of the constructor."""
    own = {key: parameter for key, parameter in _parameters(name).items() if key not in OURS}
    fields: dict[str, Any] = {
        key: (kind, ... if default is inspect.Parameter.empty else default)
        for key, (kind, default) in own.items()
        if _plain(kind)
    }
    settings = create_model(f"{name}Settings", __base__=FlowerSettings, **fields)
    settings.flower = name
    words = {
        "name": PREFIX + name,
        "flower": name,
        "Settings": settings,
        "dense_updates": SPARSE if name in DENSE else "",
        "weights_unused": REPLACED if name in UNWEIGHTED else "",
        "__doc__": f"Flower's {name}.",
    }
    return type(name, (FlowerAlgorithm,), words)


@functools.cache
def _parameters(name: str) -> dict[str, tuple[Any, Any]]:
    """Annotation and default of each argument of a strategy's constructor."""
    from flwr.serverapp import strategy

    build = getattr(strategy, name).__init__
    hints = typing.get_type_hints(build)
    arguments = list(inspect.signature(build).parameters.items())[1:]
    return {key: (hints.get(key, Any), argument.default) for key, argument in arguments}


def _plain(kind: Any) -> bool:
    """Whether values of this kind can be written in a file: numbers, words, switches, or none of them."""
    kinds = set(typing.get_args(kind)) or {kind}
    return kinds <= {int, float, str, bool, type(None)}


def built(name: str, settings: Mapping[str, Any]) -> Strategy:
    """Flower's strategy of that name, which takes whatever replies there are."""
    from flwr.serverapp import strategy

    given = {key: value for key, value in OURS.items() if key in _parameters(name)}
    with _by_itself():
        return cast("Strategy", getattr(strategy, name)(**given, **settings))


def _content(update: Update) -> RecordDict:
    """A site's reply as Flower's strategies expect it."""
    metrics = MetricRecord({WEIGHT: update.weight})
    if LOSS in update.facts:
        metrics[TRAIN_LOSS] = update.facts[LOSS]
    return RecordDict({ARRAYS: pack_weights(update.arrays), METRICS: metrics})


class _Present:
    """What a strategy sees of the grid: the nodes whose updates there are, 1 to n."""

    def __init__(self, nodes: int) -> None:
        self._nodes = nodes

    def get_node_ids(self) -> list[int]:
        return list(range(1, self._nodes + 1))


@contextlib.contextmanager
def _by_itself() -> Iterator[None]:
    """Flower's lines about rounds are not the study's, and its draws leave no trace in Python's own.

    Some strategies collect garbage once for every update, through all that torch ever made: a third of a
    second each. What there was before is taken out of sight.
    """
    logger = logging.getLogger("flwr")
    level, drawn = logger.level, random.getstate()
    logger.setLevel(logging.WARNING)
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        logger.setLevel(level)
        random.setstate(drawn)
