"""A compressed update that a site may have made up: it is taken or refused in one line."""

from __future__ import annotations

import json
import resource
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hymate.errors import InputFault
from strategies.compression import SCALE, WHERE, compressed, restored
from strategies.wire import ARRAYS, CONFIG, LAYOUT, pack, unpack_weights
from tests.strategies.halves import _Nothing
from tests.strategies.small_updates import ALL, TOP, Arrays, model, near, steps

SPARSE = ["delta", {"name": "top_k", "share": 0.01}, "int8"]  # few enough for numbers, not bits


def honest(words: list[Any]) -> tuple[Arrays, Arrays]:
    reference: Arrays = {"w": np.ones((40, 50), np.float32), "b": np.ones(3, np.float32)}
    arrays = {name: array + np.float32(0.5) for name, array in reference.items()}
    sent, _ = compressed(steps(*words), arrays, reference, {}, np.random.default_rng(0))
    return sent, reference


def refused(words: list[Any], sent: Arrays, reference: Arrays) -> str:
    with pytest.raises(InputFault) as fault:
        restored(steps(*words), sent, reference)
    assert "\n" not in str(fault.value)
    assert len(str(fault.value)) < 400
    return str(fault.value)


@pytest.mark.parametrize(
    ("positions", "good"),
    [
        (list(range(20)), True),
        ([*range(19), 2000], False),  # one beyond the end
        ([*range(19), 65_535], False),
        ([*range(19), 18], False),  # twice the same
        ([*range(18), 19, 18], False),  # not ascending
    ],
)
def test_positions_that_are_none(positions: list[int], good: bool) -> None:
    sent, reference = honest(SPARSE)
    sent["@where"] = np.concatenate([sent[WHERE][:1], np.array(positions, "<u2").view(np.uint8)])
    if good:
        restored(steps(*SPARSE), sent, reference)
        return
    assert "names no valid entries of w" in refused(SPARSE, sent, reference)


def test_bits_that_are_too_many_too_few_or_beyond_the_end() -> None:
    words = ["delta", TOP]
    for change in (1, 2**7):
        sent, reference = honest(words)
        where = sent[WHERE].copy()
        where[0] ^= change  # of `b`: three entries, one of them sent
        sent[WHERE] = where
        assert "names no valid entries of b" in refused(words, sent, reference)
    sent, reference = honest(words)
    where = sent[WHERE].copy()
    where[0] = 0b0001_0000  # one bit, but of a fourth entry
    sent[WHERE] = where
    assert "names no valid entries of b" in refused(words, sent, reference)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -1.0])
def test_a_scale_that_is_none(bad: float) -> None:
    sent, reference = honest(SPARSE)
    sent[SCALE] = np.array([bad, 1.0], np.float32)
    assert "a scale is negative or not finite" in refused(SPARSE, sent, reference)


@pytest.mark.parametrize("words", [words for words in ALL if words], ids=str)
def test_arrays_that_are_missing_added_or_of_another_kind(words: list[Any]) -> None:
    sent, reference = honest(words)
    for name, array in sent.items():
        others: list[NDArray[Any]] = [
            array[..., :-1],
            np.concatenate([array, array]),
            array.astype(np.float64),
            array.astype(array.dtype.newbyteorder()) if array.dtype.itemsize > 1 else array.astype(np.bool_),
            array.reshape(-1, 1),
            np.broadcast_to(np.zeros(1, array.dtype), (10**9, 10**6)),
        ]
        for other in others:
            assert f"{name} is " in refused(words, {**sent, name: other}, reference)
        rest = {key: value for key, value in sent.items() if key != name}
        assert f"missing or unknown, first: {name}" in refused(words, rest, reference)
    assert "first: zzz" in refused(words, {**sent, "z" * 1000: np.zeros(1)}, reference)


def header(shape: tuple[int, ...], kind: str = "<f4") -> bytes:
    """A numpy file that announces a shape and holds four bytes."""
    words = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(words).to_bytes(2, "little") + words + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("data", "layout"),
    [
        (header((10**15,)), None),
        (header((2**40, 2**40)), None),
        (header((10**9,)), None),
        (header((1,)), [["w", "float32", [10**12]]]),
        (header((1,)), [["w", "float32", [-1]]]),
        (header((1,)), [["w", "float32", [2, 10**18, 0]], ["v", "float32", [10**6]]]),
        (header((1,)), "[" * 100_000),
        (header((1,), "|O"), None),
        (b"", None),
    ],
)
def test_a_message_that_announces_more_than_it_holds(data: bytes, layout: Any) -> None:
    content = pack(_Nothing, {"w": np.zeros(1, np.float32)})
    content[ARRAYS] = ArrayRecord(
        {"float32": Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=data)}
    )
    if layout is not None:
        words = layout if isinstance(layout, str) else json.dumps(layout)
        content.config_records[CONFIG][LAYOUT] = words
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputFault, match="holds arrays that cannot be read"):
        unpack_weights(content)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kilobytes


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_whatever_is_sent_it_is_taken_or_refused_in_one_line(seed: int) -> None:
    """Some bytes of an honest update are replaced, arrays swapped, cut or renamed."""
    rng = np.random.default_rng(seed)
    words = ALL[1 + rng.integers(len(ALL) - 1)]
    reference = model(1)
    sent, _ = compressed(steps(*words), near(reference, 2), reference, {}, rng)
    names = list(sent)
    for _ in range(rng.integers(1, 4)):
        name, other = rng.choice(names, 2)
        match rng.integers(4):
            case 0:
                content = bytearray(sent[name].tobytes())
                for place in rng.integers(0, max(len(content), 1), 5) if content else ():
                    content[place] = rng.integers(256)
                shape, kind = sent[name].shape, sent[name].dtype
                sent[name] = np.frombuffer(bytes(content), kind).reshape(shape)
            case 1:
                sent[name], sent[other] = sent[other], sent[name]
            case 2:
                sent[name] = sent[name].ravel()[: rng.integers(0, sent[name].size + 1)]
            case 3:
                kind = rng.choice(["f8", "i1", "u1", "f2", "c16", "U3", "M8[s]"])
                sent[name] = np.zeros(sent[name].shape, kind)
    try:
        back = restored(steps(*words), sent, reference)
    except InputFault as fault:
        assert "\n" not in str(fault)  # noqa: PT017 (most of it is refused, not all)
        return
    assert {name: (x.shape, x.dtype) for name, x in back.items()} == {
        name: (x.shape, x.dtype) for name, x in reference.items()
    }
