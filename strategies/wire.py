"""Typed records <-> Flower records.

A message's content is a RecordDict with `config` (one JSON string), `arrays` (weights, only where
the record needs them) and `metrics` (the weight Flower's own strategies read as `num-examples`).

Weights travel *joined*: all arrays of one dtype as a single one, and `config` says how to cut it. Flower
fetches every array by two requests of its own, on each of the two hops of each way, so a model of fifty
arrays would otherwise spend most of a round on some hundreds of requests. Strategies see named arrays.
"""

from __future__ import annotations

import hashlib
import json
import math
import zipfile
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from hymate.errors import SAME_RELEASE, InputFault
from hymate.protocol import Refusal
from strategies.arrays import Weights
from strategies.prefixed import prefixed, under

Record = TypeVar("Record", bound=BaseModel)

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
WEIGHT = "num-examples"
LAYOUT = "layout"
"""Key of `config`: JSON list of (name, dtype, shape) in the order in which the arrays were joined."""
BESIDE = "beside/"
"""Before the names of what an algorithm's halves send each other beside the weights."""


class SiteRefused(Exception):
    """The site answered, and declined."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def pack(record: BaseModel, weights: Weights | None = None, examples: int | None = None) -> RecordDict:
    """Flower content for `record`, weights joined; they keep their names, order, shapes and dtypes."""
    content = RecordDict({CONFIG: pack_config(record)})
    if weights is not None:
        content = _with_joined(content, weights)
    if examples is not None:
        content[METRICS] = MetricRecord({WEIGHT: examples})
    return content


def pack_config(record: BaseModel) -> ConfigRecord:
    return ConfigRecord({"kind": type(record).__name__, "json": record.model_dump_json()})


def pack_weights(weights: Weights) -> ArrayRecord:
    """Arrays as strategies see them: one for every name."""
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in weights.items()})


def joined(content: RecordDict) -> RecordDict:
    """The same content with all arrays of one dtype as a single one; without arrays, as it is."""
    weights = unpack_weights(content)
    return _with_joined(content, weights) if weights else content


def named(content: RecordDict) -> RecordDict:
    """The opposite of `joined`."""
    config = _config_of(content)
    if LAYOUT not in config:
        return content
    rest = ConfigRecord({key: value for key, value in config.items() if key != LAYOUT})
    return RecordDict({**content, CONFIG: rest, ARRAYS: pack_weights(unpack_weights(content))})


def unpack(content: RecordDict, kind: type[Record]) -> Record:
    """The record of a message. Raises SiteRefused where the site declined, InputFault where the
    content is of another kind or does not validate (another release at the other end)."""
    config = content.config_records.get(CONFIG)
    if config is None or "kind" not in config:
        raise InputFault("message", "carries no record", SAME_RELEASE)
    found, text = str(config["kind"]), str(config["json"])
    if found == Refusal.__name__ and kind is not Refusal:
        raise SiteRefused(Refusal.model_validate_json(text))
    if found != kind.__name__:
        raise InputFault(
            "message",
            f"holds {found} where {kind.__name__} was expected",
            SAME_RELEASE,
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as invalid:
        fault = invalid.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise InputFault(f"message {found}", f"{key}: {fault['msg']}", SAME_RELEASE) from None


def with_beside(weights: Weights, beside: Weights) -> dict[str, NDArray[np.generic]]:
    """Both as one set of arrays: they travel together."""
    return {**weights, **prefixed(BESIDE, beside)}


def apart(
    arrays: Weights,
) -> tuple[dict[str, NDArray[np.generic]], dict[str, NDArray[np.generic]]]:
    """The opposite of `with_beside`."""
    shared = {name: array for name, array in arrays.items() if not name.startswith(BESIDE)}
    return shared, under(BESIDE, arrays)


def weights_digest(weights: Weights) -> str:
    """SHA-256 (hex) of names, types, shapes and values, whatever the order."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = np.ascontiguousarray(weights[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def unpack_weights(content: RecordDict) -> dict[str, NDArray[np.generic]]:
    """Arrays of a message by name, joined or not; empty where it carries none.

    Raises:
        InputFault: they are not arrays of numbers, or not cut as announced.
    """
    record = content.array_records.get(ARRAYS)
    if record is None:
        return {}
    try:
        arrays = {name: _numbers(array) for name, array in record.items()}
        layout = _config_of(content).get(LAYOUT)
        return arrays if layout is None else _cut(arrays, json.loads(str(layout)))
    except _UNREADABLE as fault:
        reason = f"holds arrays that cannot be read ({type(fault).__name__})"
        raise InputFault("message", reason, SAME_RELEASE) from None


_UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OverflowError,
    EOFError,
    zipfile.BadZipFile,
    MemoryError,  # more announced than there is room for
    RecursionError,
)


def _with_joined(content: RecordDict, weights: Weights) -> RecordDict:
    parts: dict[str, list[NDArray[np.generic]]] = {}
    layout = []
    for name, given in weights.items():
        array = np.asarray(given)
        kind = array.dtype.name
        layout.append((name, kind, array.shape))
        parts.setdefault(kind, []).append(np.ravel(array))
    whole = pack_weights({kind: np.concatenate(arrays) for kind, arrays in parts.items()})
    config = ConfigRecord({**_config_of(content), LAYOUT: json.dumps(layout)})
    return RecordDict({**content, CONFIG: config, ARRAYS: whole})


def _config_of(content: RecordDict) -> ConfigRecord:
    return content.config_records.get(CONFIG, ConfigRecord())


def _numbers(array: Array) -> NDArray[np.generic]:
    values = array.numpy()
    if not isinstance(values, np.ndarray):  # numpy reads archives, too
        raise TypeError("not an array")
    return values


def _cut(wholes: Weights, layout: list[tuple[str, str, list[int]]]) -> dict[str, NDArray[np.generic]]:
    """Arrays by name out of joined ones, as copies: their own memory, aligned like any other's."""
    taken = dict.fromkeys(wholes, 0)
    weights = {}
    for name, kind, shape in layout:
        begin = taken[kind]
        taken[kind] = begin + math.prod(shape)
        weights[str(name)] = wholes[kind][begin : taken[kind]].reshape(shape).copy()
    if len(weights) != len(layout) or any(whole.shape != (taken[kind],) for kind, whole in wholes.items()):
        raise ValueError("their layout does not fit them")
    return weights
