"""Updates made smaller before they leave a site: composable steps, each with its way back.

    compression: [delta, {name: top_k, share: 0.1}, int8]

The site applies the steps in their order, the coordinator undoes them in the opposite one. What the steps
from `top_k` on could not send, the site remembers and adds to the next round that counts (error feedback,
Karimireddy et al. 2019, arXiv 1901.09847).

Only arrays of floating-point numbers are made smaller; integers and truth values go as they are. Beside
the arrays, under their own names, travel `@where` (bytes: which entries `top_k` kept) and `@scale`
(float32: one for each array in `int8`), in the order of the arrays' names. The coordinator knows from its
own weights what must come, name by name and byte by byte, and takes no memory that a site announces.

What comes back: with `delta` alone, an entry that stays within a factor of two of what was received is
exact (Sterbenz), any other right to within one rounding of the difference and one of the sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.errors import SAME_RELEASE, InputFault
from hymate.strategy_config import Compressor, Delta, TopK
from strategies.base import Arrays
from strategies.quantisation import LARGEST_FLOAT16, from_int8, scale_of, to_float16, to_int8
from strategies.top_k import bytes_of_positions, kept_of, largest, read, written

WHERE, SCALE = "@where", "@scale"
ORDER = {"delta": 0, "top_k": 1, "fp16": 2, "int8": 2}
ONE = np.float32(1.0)
SENT = "its compressed update"

Numbers = NDArray[Any]
"""Of any of the number formats on the way."""


def demand_order(steps: Sequence[Compressor], source: str) -> None:
    """Raise `InputFault` where the steps cannot follow each other."""

    def refuse(what: str, remedy: str) -> InputFault:
        return InputFault(source, f"strategy.compression: {what}", remedy)

    names = [step.name for step in steps]
    for name in names:
        if names.count(name) > 1:
            raise refuse(f"'{name}' stands there twice", "name each step once")
    if "fp16" in names and "int8" in names:
        raise refuse("fp16 and int8 both say how many bits a number has", "take one of them")
    for first, second in pairwise(names):
        if ORDER[first] > ORDER[second]:
            raise refuse(f"'{second}' cannot come after '{first}'", "the order is delta, top_k, fp16 or int8")
    for name in ("top_k", "int8"):
        if name in names and "delta" not in names:
            raise refuse(
                f"'{name}' without 'delta' would spoil the weights themselves, not what changed of them",
                f"begin with delta: [delta, {name}]",
            )


def loses(steps: Sequence[Compressor]) -> bool:
    """Whether what arrives differs from what was sent by more than rounding."""
    return any(not isinstance(step, Delta) for step in steps)


def compressed(
    steps: Sequence[Compressor],
    arrays: Arrays,
    reference: Arrays,
    residual: Arrays,
    rng: np.random.Generator,
) -> tuple[Arrays, Arrays]:
    """What is sent in place of `arrays`, and what is still to be sent (the next `residual`).

    Args:
        reference: the weights received, with the keys and shapes of `arrays`.
        residual: what the rounds before could not send; empty at first.

    Raises:
        InputFault: a value is not finite, or too large for its bits (65504 under fp16): clipped in
            silence, it would be another model.
    """
    if not steps:
        return arrays, {}
    plan = _Plan.of(steps)
    sent: Arrays = {}
    left: Arrays = {}
    parts: list[_Part] = []
    for name in sorted(arrays):  # a coordinator that resumed has them in another order
        array = arrays[name]
        if not _is_float(array):
            sent[name] = array
            continue
        whole = _flat(array)
        with np.errstate(over="ignore", invalid="ignore"):
            if plan.delta:
                whole = whole - _flat(reference[name])
            if plan.remembers and name in residual:
                whole = whole + _flat(residual[name])
        part = plan.narrowed(name, whole, rng)
        parts.append(part)
        sent[name] = part.values if plan.share is not None else part.values.reshape(array.shape)
        if plan.remembers:
            left[name] = (whole - part.widened(whole)).reshape(array.shape)
    if plan.share is not None:
        sent[WHERE] = np.concatenate([np.zeros(0, dtype=np.uint8), *(part.where for part in parts)])
    if plan.bits == "int8":
        sent[SCALE] = np.array([part.scale for part in parts], dtype=np.float32)
    return sent, left


def restored(steps: Sequence[Compressor], sent: Arrays, reference: Arrays) -> Arrays:
    """The weights that `compressed` was given, as near as its steps leave them.

    Values may come back infinite or not a number where a site sent such: `strategies.screening` tells.

    Raises:
        InputFault: `sent` is not what these steps make of arrays like `reference`.
    """
    if not steps:
        return sent
    plan = _Plan.of(steps)
    _demand_same(sent, plan.expected(reference))
    scales = iter(_checked_scales(sent.get(SCALE)))
    where = np.asarray(sent.get(WHERE, np.zeros(0, dtype=np.uint8)), dtype=np.uint8)
    weights: Arrays = {}
    for name in sorted(reference):
        before = reference[name]
        if not _is_float(before):
            weights[name] = sent[name]
            continue
        base = _flat(before)
        positions = None
        if plan.share is not None:
            kept = kept_of(base.size, plan.share)
            length = bytes_of_positions(base.size, kept)
            positions, where = read(where[:length], base.size, kept), where[length:]
            if positions is None:
                raise InputFault(SENT, f"names no valid entries of {name}", SAME_RELEASE)
        scale = next(scales) if plan.bits == "int8" else ONE
        values = _Part(_flat(sent[name]), scale, positions, base.size).widened(base)
        with np.errstate(over="ignore", invalid="ignore"):
            weights[name] = (base + values if plan.delta else values).reshape(before.shape)
    return {name: weights[name] for name in reference}


@dataclass(frozen=True)
class _Part:
    """What is sent of one array."""

    values: Numbers
    scale: np.float32
    positions: NDArray[np.intp] | None
    size: int

    @property
    def where(self) -> NDArray[np.uint8]:
        """The positions as bytes."""
        assert self.positions is not None
        return written(self.positions, self.size)

    def widened(self, like: Numbers) -> Numbers:
        """All entries in the dtype of `like`, as both ends have them; what was not sent is zero."""
        int8 = self.values.dtype == np.int8
        values = from_int8(self.values, self.scale, like.dtype) if int8 else self.values.astype(like.dtype)
        if self.positions is None:
            return values
        whole = np.zeros_like(like)
        whole[self.positions] = values
        return whole


@dataclass(frozen=True)
class _Plan:
    """What the steps come to: their order is fixed (`demand_order`)."""

    delta: bool
    share: float | None
    remembers: bool
    bits: str
    """`fp16`, `int8` or as they are."""

    @classmethod
    def of(cls, steps: Sequence[Compressor]) -> _Plan:
        names = {step.name for step in steps}
        top = next((step for step in steps if isinstance(step, TopK)), None)
        return cls(
            delta="delta" in names,
            share=None if top is None else top.share,
            remembers=top is not None and top.error_feedback,
            bits="int8" if "int8" in names else "fp16" if "fp16" in names else "",
        )

    def narrowed(self, name: str, whole: Numbers, rng: np.random.Generator) -> _Part:
        """What is sent of the entries (n,) of an array."""
        if not np.isfinite(whole).all():
            raise _unusable(f"{name} holds values that are not finite")
        positions = None if self.share is None else largest(whole, kept_of(whole.size, self.share))
        values, scale = whole if positions is None else whole[positions], ONE
        if self.bits == "int8":
            scale = scale_of(values)
            if not np.isfinite(scale):
                raise _unusable(f"{name} holds values beyond those of 32 bits, in which int8 keeps its scale")
            values = to_int8(values, scale, rng)
        elif self.bits == "fp16":
            halved = to_float16(values)
            if halved is None:
                raise _unusable(f"{name} holds values beyond {LARGEST_FLOAT16:g}, fp16's largest number")
            values = halved
        return _Part(values, scale, positions, whole.size)

    def expected(self, reference: Arrays) -> dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]:
        """Dtype and shape of everything that is sent."""
        found: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]] = {}
        bits: dict[str, np.dtype[np.generic]] = {"int8": np.dtype(np.int8), "fp16": np.dtype(np.float16)}
        floats = [array for array in reference.values() if _is_float(array)]
        for name, array in reference.items():
            kind, shape = array.dtype, array.shape
            if _is_float(array):
                kind = bits.get(self.bits, kind)
                shape = shape if self.share is None else (kept_of(array.size, self.share),)
            found[name] = (kind, shape)
        if self.share is not None:
            lengths = (bytes_of_positions(each.size, kept_of(each.size, self.share)) for each in floats)
            found[WHERE] = (np.dtype(np.uint8), (sum(lengths),))
        if self.bits == "int8":
            found[SCALE] = (np.dtype(np.float32), (len(floats),))
        return found


def _is_float(array: NDArray[np.generic]) -> bool:
    return array.dtype.kind == "f"


def _flat(array: NDArray[np.generic]) -> Numbers:
    """Entries (n,) of an array of numbers."""
    return np.asarray(array).ravel()


def _unusable(what: str) -> InputFault:
    return InputFault(
        "the weights after training",
        what,
        "lower the phase's learning_rate, or leave the step out of strategy.compression",
    )


def _demand_same(sent: Arrays, expected: dict[str, tuple[np.dtype[np.generic], tuple[int, ...]]]) -> None:
    strange = sorted(set(sent) ^ set(expected))
    if strange:
        what = f"{len(strange)} arrays missing or unknown, first: {strange[0][:100]}"
        raise InputFault(SENT, what, SAME_RELEASE)
    for name, (kind, shape) in expected.items():
        array = sent[name]
        if array.dtype != kind or array.shape != shape:
            raise InputFault(
                SENT,
                f"{name} is {array.dtype}{list(array.shape)}, expected {kind}{list(shape)}",
                SAME_RELEASE,
            )


def _checked_scales(scales: NDArray[np.generic] | None) -> Sequence[np.float32]:
    if scales is None:
        return []
    found = np.asarray(scales, dtype=np.float32)
    if not np.isfinite(found).all() or np.any(found < 0):
        raise InputFault(SENT, "a scale is negative or not finite", SAME_RELEASE)
    return list(found)
