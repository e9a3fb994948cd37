"""What a reply of a site holds, by the names under which docs/privacy.md lists it: `Record.field`."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

from flwr.app import Message
from pydantic import BaseModel

from hymate.data.statistics import SiteStatistics
from hymate.joining_protocol import PrepareReply, SiteDescription, StatisticsReply
from hymate.protocol import AloneReply, MaskedReply, Refusal, TrainReply
from hymate.scoring_protocol import CompareReply, EvaluateReply, RecalibrateReply
from hymate.secure_protocol import KeysReply, SharesReply, UnmaskReply
from strategies.wire import ARRAYS, BESIDE, CONFIG, LAYOUT, METRICS, WEIGHT, unpack_weights

PAGE = Path(__file__).parent.parent.parent / "docs" / "privacy.md"
TITLE = "## What leaves a site, field by field"
NEVER = "not sent"
KINDS: tuple[type[BaseModel], ...] = (
    *(AloneReply, CompareReply, EvaluateReply, PrepareReply, RecalibrateReply),
    *(Refusal, SiteDescription, StatisticsReply, TrainReply),
    *(KeysReply, MaskedReply, SharesReply, UnmaskReply),
)
SHARED, EXTRA, NUMBER = "arrays: weights", "arrays: beside", "metrics: num-examples"
OWN, MASKED = "arrays: own model", "arrays: masked"


@dataclass(frozen=True)
class Row:
    """What a line of the page's table says of a field."""

    without_noise: str
    with_noise: str


def listed(text: str) -> dict[str, Row]:
    """The table of docs/privacy.md, a field a row."""
    rows: dict[str, Row] = {}
    for line in text.split(TITLE)[1].split("\n## ", maxsplit=1)[0].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            assert len(cells) == 3, line
            for name in re.findall(r"`([^`]+)`", cells[0]):
                assert name not in rows, f"{name} stands there twice"
                rows[name] = Row(cells[1], cells[2])
    return rows


def possible() -> set[str]:
    """Every field that the records of a site have, whether anything was ever sent in it or not."""
    found: set[str] = {SHARED, EXTRA, NUMBER, OWN, MASKED}
    waiting: list[Any] = [*KINDS, SiteStatistics]
    seen: set[Any] = set()
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        for name, annotation in _annotations(kind).items():
            found.add(f"{kind.__name__}.{name}")
            waiting += [inner for inner in _within(annotation) if _is_record(inner)]
    return found


def fields_of(reply: Message) -> set[str]:
    """Every field in which this reply holds something."""
    content = reply.content
    assert set(content) <= {CONFIG, ARRAYS, METRICS}, set(content)
    config = content.config_records[CONFIG]
    assert set(config) <= {"kind", "json", LAYOUT}, set(config)
    kind = {kind.__name__: kind for kind in KINDS}[str(config["kind"])]
    record = kind.model_validate_json(str(config["json"]))  # raises where it holds a field that nobody knows
    found = set(_held(record))
    if isinstance(record, StatisticsReply):
        told = SiteStatistics.from_json(record.statistics)
        assert json.loads(told.to_json()) == json.loads(record.statistics)
        found |= set(_held(told))
    whole = {AloneReply: OWN, MaskedReply: MASKED}
    for name in unpack_weights(content):
        found.add(whole.get(kind, EXTRA if name.startswith(BESIDE) else SHARED))
    for name in content.metric_records.get(METRICS, {}):
        assert name == WEIGHT
        found.add(NUMBER)
    return found


def _held(record: Any) -> Iterator[str]:
    for name in _annotations(type(record)):
        value = getattr(record, name)
        if value is None or (isinstance(value, Mapping | list | tuple) and not value):
            continue
        yield f"{type(record).__name__}.{name}"
        for inner in _records(value):
            yield from _held(inner)


def _records(value: Any) -> Iterator[Any]:
    if _is_record(type(value)):
        yield value
    elif isinstance(value, Mapping):
        for inner in value.values():
            yield from _records(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _records(inner)


def _is_record(kind: Any) -> bool:
    return isinstance(kind, type) and (issubclass(kind, BaseModel) or is_dataclass(kind))


def _annotations(kind: Any) -> dict[str, Any]:
    if issubclass(kind, BaseModel):
        return {name: field.annotation for name, field in kind.model_fields.items()}
    return {name: hint for name, hint in get_type_hints(kind).items() if name in kind.__dataclass_fields__}


def _within(annotation: Any) -> Iterator[Any]:
    yield annotation
    for inner in get_args(annotation):
        yield from _within(inner)
