"""Who belongs to which group, from the static rows of a store."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hymate.evaluation_config import AttributeConfig

SEVERAL = "several"
"""The value of a stay that has two or more codes of one attribute."""
BETWEEN = " & "
"""Between the two groups of an intersection."""


class StaticCodes(Protocol):
    @property
    def static_codes(self) -> tuple[str, ...]: ...


class StaticRows(Protocol):
    """The part of `hymate.data.store.TripletStore` that is read here."""

    @property
    def header(self) -> StaticCodes: ...
    @property
    def static_offset(self) -> NDArray[np.int64]: ...
    @property
    def static_code(self) -> NDArray[np.int32]: ...
    @property
    def static_value(self) -> NDArray[np.float32]: ...


@dataclass(frozen=True)
class Members:
    """The groups of one attribute. `group` (n,): position in `names`; -1 where it is not recorded."""

    names: tuple[str, ...]
    group: NDArray[np.int64]


def members(store: StaticRows, rows: NDArray[np.int64], attribute: AttributeConfig) -> Members:
    """The groups of these stays; a name is `LABEL//VALUE`."""
    codes = store.header.static_codes
    stay = np.repeat(np.arange(len(store.static_offset) - 1), np.diff(store.static_offset))
    if attribute.cuts:
        values = _bands(attribute.cuts)
        of_code = np.array([code == attribute.code for code in codes], bool)
        here = of_code[store.static_code] & np.isfinite(store.static_value)
        group = np.full(len(store.static_offset) - 1, -1, np.int64)
        group[stay[here]] = np.searchsorted(attribute.cuts, store.static_value[here], side="right")
    else:
        values, group = _by_code(store, stay, attribute.code)
    return Members(tuple(f"{attribute.label}//{value}" for value in values), group[rows])


def recorded(attribute: AttributeConfig, codes: Collection[str]) -> bool:
    """Whether any of these static codes puts a stay into a group of the attribute.

    >>> [recorded(AttributeConfig(code=code), ["GENDER//F", "AGE"]) for code in ("GENDER", "AGE", "GEN")]
    [True, True, False]
    """
    banded = bool(attribute.cuts)
    prefix = attribute.code + "//"
    return attribute.code in codes or (not banded and any(code.startswith(prefix) for code in codes))


def crossed(first: Members, second: Members) -> Members:
    """The groups of two attributes together; -1 where either is not recorded."""
    names = tuple(f"{a}{BETWEEN}{b}" for a in first.names for b in second.names)
    group = first.group * len(second.names) + second.group
    return Members(names, np.where((first.group < 0) | (second.group < 0), -1, group))


def without_several(found: Members) -> Members:
    """The same, where who has several codes is in no group: that somebody has follows from the data."""
    names = tuple(name for name in found.names if not name.endswith(f"//{SEVERAL}"))
    return Members(names, np.where(found.group < len(names), found.group, -1))


def _by_code(store: StaticRows, stay: NDArray[np.int64], wanted: str) -> tuple[list[str], NDArray[np.int64]]:
    codes, stays = store.header.static_codes, len(store.static_offset) - 1
    if wanted in codes:
        group = np.zeros(stays, np.int64)
        group[stay[store.static_code == codes.index(wanted)]] = 1
        return ["no", "yes"], group
    prefix = wanted + "//"
    values = [code.removeprefix(prefix) for code in codes if code.startswith(prefix)]
    number = np.full(len(codes) + 1, -1, np.int64)
    number[[place for place, code in enumerate(codes) if code.startswith(prefix)]] = np.arange(len(values))
    group = np.full(stays, -1, np.int64)
    value = number[store.static_code]
    here = value >= 0
    group[stay[here]] = value[here]
    times = np.bincount(stay[here], minlength=stays)
    if (times > 1).any():
        values = [*values, SEVERAL]
        group[times > 1] = len(values) - 1
    return values, group


def _bands(cuts: tuple[float, ...]) -> list[str]:
    inner = [f"{low:g}-<{high:g}" for low, high in pairwise(cuts)]
    return [f"<{cuts[0]:g}", *inner, f"{cuts[-1]:g}+"]
