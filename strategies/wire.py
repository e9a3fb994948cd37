"""Typed records <-> Flower records.

A message's content is a RecordDict with `config` (one JSON string), `arrays` (weights, only where
the record needs them) and `metrics` (the weight Flower's own strategies read as `num-examples`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from hymate.errors import InputFault
from hymate.protocol import Refusal

Weights = Mapping[str, NDArray[np.generic]]
Record = TypeVar("Record", bound=BaseModel)

ARRAYS = "arrays"
CONFIG = "config"
METRICS = "metrics"
WEIGHT = "num-examples"


class SiteRefused(Exception):
    """The site answered, and declined."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


def pack(record: BaseModel, weights: Weights | None = None, examples: int | None = None) -> RecordDict:
    """Flower content for `record`; arrays keep their names, order, shapes and dtypes."""
    content = RecordDict({CONFIG: pack_config(record)})
    if weights is not None:
        content[ARRAYS] = pack_weights(weights)
    if examples is not None:
        content[METRICS] = MetricRecord({WEIGHT: examples})
    return content


def pack_config(record: BaseModel) -> ConfigRecord:
    return ConfigRecord({"kind": type(record).__name__, "json": record.model_dump_json()})


def pack_weights(weights: Weights) -> ArrayRecord:
    return ArrayRecord({name: Array(np.asarray(array, order="C")) for name, array in weights.items()})


def unpack(content: RecordDict, kind: type[Record]) -> Record:
    """The record of a message. Raises SiteRefused where the site declined, InputFault where the
    content is of another kind or does not validate (another release at the other end)."""
    config = content.config_records.get(CONFIG)
    if config is None or "kind" not in config:
        raise InputFault("message", "carries no record", "run the same hymate-federated release at both ends")
    found, text = str(config["kind"]), str(config["json"])
    if found == Refusal.__name__ and kind is not Refusal:
        raise SiteRefused(Refusal.model_validate_json(text))
    if found != kind.__name__:
        raise InputFault(
            "message",
            f"holds {found} where {kind.__name__} was expected",
            "run the same hymate-federated release at both ends",
        )
    try:
        return kind.model_validate_json(text)
    except ValidationError as invalid:
        fault = invalid.errors()[0]
        key = ".".join(str(part) for part in fault["loc"])
        raise InputFault(
            f"message {found}", f"{key}: {fault['msg']}", "run the same hymate-federated release at both ends"
        ) from None


def unpack_weights(content: RecordDict) -> dict[str, NDArray[np.generic]]:
    """Arrays of a message by name; empty where it carries none."""
    record = content.array_records.get(ARRAYS)
    return {} if record is None else {name: array.numpy() for name, array in record.items()}
