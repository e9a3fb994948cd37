"""Sums in a ring are exact and never overflow; masks are uniform and cancel."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from strategies.secure.ring import added, decoded, encoded, mask, masked, unmasked

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("bits", [16, 32, 64])
@pytest.mark.parametrize("sites", [2, 3, 32, 512])
def test_no_sum_of_extremes_leaves_the_ring(bits: int, sites: int) -> None:
    limit = 3.0
    for extreme in (limit, -limit, 10 * limit):
        one = encoded(np.full(4, extreme), limit, bits, sites)
        total = one * one.dtype.type(sites)  # sites equal residues, added
        expected = np.clip(extreme, -limit, limit) * sites
        assert decoded(total, limit, bits, sites) == pytest.approx(np.full(4, expected), rel=1e-2)


@settings(max_examples=60, deadline=None)
@given(
    sites=st.integers(2, 40),
    size=st.integers(0, 30),
    bits=st.sampled_from([16, 32, 64]),
    limit=st.floats(1e-3, 1e3),
    seed=st.integers(0, 999),
)
def test_a_sum_is_off_by_rounding_alone(sites: int, size: int, bits: int, limit: float, seed: int) -> None:
    values = np.random.default_rng(seed).uniform(-limit, limit, (sites, size))
    total = encoded(values[0], limit, bits, sites)
    for row in values[1:]:
        total = total + encoded(row, limit, bits, sites)
    steps = (1 << (bits - 2)) // sites
    allowed = sites / 2 * limit / steps + 1e-12 * limit * sites
    assert np.abs(decoded(total, limit, bits, sites) - values.sum(axis=0)).max(initial=0.0) <= allowed


def test_the_error_that_the_study_file_s_documentation_states() -> None:
    sites, limit = 512, 1.0
    worst = sites / 2 * limit / ((1 << 30) // sites) / sites
    assert worst == pytest.approx(2.4e-7, rel=0.02)


def _seeds(names: list[str]) -> tuple[dict[str, bytes], dict[tuple[str, str], bytes]]:
    own = {name: RNG.bytes(32) for name in names}
    return own, {pair: RNG.bytes(32) for pair in combinations(names, 2)}


@settings(max_examples=40, deadline=None)
@given(sites=st.integers(2, 8), data=st.data())
def test_masks_cancel_with_any_number_of_dropouts(sites: int, data: st.DataObject) -> None:
    names = [f"s{i}" for i in range(sites)]
    own, pairs = _seeds(names)
    survivors = data.draw(st.lists(st.sampled_from(names), min_size=1, unique=True))
    size = data.draw(st.integers(0, 50))
    vectors = {
        name: {"a": RNG.integers(0, 2**32, size, np.uint32), "b": RNG.integers(0, 2**64, 3, np.uint64)}
        for name in names
    }
    common = {frozenset(pair): seed for pair, seed in pairs.items()}
    sent = {
        name: masked(
            vectors[name],
            name,
            own[name],
            {other: common[frozenset((name, other))] for other in names if other != name},
        )
        for name in names
    }
    total, plain = sent[survivors[0]], vectors[survivors[0]]
    for name in survivors[1:]:
        total, plain = added(total, sent[name]), added(plain, vectors[name])
    left = {
        (name, gone): common[frozenset((name, gone))]
        for name in survivors
        for gone in names
        if gone not in survivors
    }
    found = unmasked(total, {name: own[name] for name in survivors}, left)
    for part, expected in plain.items():
        np.testing.assert_array_equal(found[part], expected)


def test_a_mask_is_uniform_and_of_its_seed_alone() -> None:
    like = {"a": np.zeros(2**16, np.uint32), "b": np.zeros(2**16, np.uint32)}
    one, other = mask(bytes(32), like), mask(b"\1" + bytes(31), like)
    assert mask(bytes(32), like)["a"].tobytes() == one["a"].tobytes()
    for numbers in (one["a"], one["b"], other["a"], one["a"] - one["b"], one["a"] - other["a"]):
        for shift in (0, 12, 24):  # lowest, middle and highest bits
            counts = np.bincount((numbers >> np.uint32(shift)) & np.uint32(255), minlength=256)
            assert chisquare(counts).pvalue > 1e-4


def test_the_key_stream_is_chacha20_s() -> None:
    """RFC 8439, appendix A.1, test vector 1: key, nonce and counter of zeros."""
    stream = mask(bytes(32), {"a": np.zeros(4, np.uint32)})["a"]
    assert stream.astype("<u4").tobytes().hex() == "76b8e0ada0f13d90405d6ae55386bd28"
