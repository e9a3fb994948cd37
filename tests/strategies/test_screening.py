"""A bad update is recognised, and the reason names the array, or says how long it is."""

from __future__ import annotations

import json

import numpy as np
import pytest

from strategies.screening import REMEMBERED, LengthCheck, Lengths, fault_of, length, whole_length

REFERENCE = {"w": np.zeros((2, 2), dtype=np.float32), "b": np.zeros(2, dtype=np.float32)}


def test_a_good_update_passes() -> None:
    assert fault_of({name: array + 1 for name, array in REFERENCE.items()}, REFERENCE, 10) is None


@pytest.mark.parametrize(
    ("update", "weight", "words"),
    [
        ({"w": REFERENCE["w"]}, 1, "missing or unknown, first: b"),
        ({**REFERENCE, "extra": REFERENCE["b"]}, 1, "first: extra"),
        ({**REFERENCE, "b": np.zeros(3, dtype=np.float32)}, 1, "b is float32[3], expected float32[2]"),
        ({**REFERENCE, "b": np.zeros(2)}, 1, "b is float64[2]"),
        (
            {**REFERENCE, "b": np.array([0, np.nan], dtype=np.float32)},
            1,
            "b holds values that are not finite",
        ),
        ({**REFERENCE, "b": np.array([0, np.inf], dtype=np.float32)}, 1, "not finite"),
        (REFERENCE, 0, "weight 0 is not a positive number"),
        (REFERENCE, float("nan"), "weight nan"),
    ],
)
def test_faults_are_named(update: dict[str, np.ndarray], weight: float, words: str) -> None:
    fault = fault_of(update, REFERENCE, weight)
    assert fault is not None
    assert words in fault


def lengths(**updates: float) -> dict[str, Lengths]:
    return {site: Lengths(update) for site, update in updates.items()}


def test_an_update_s_length_is_for_its_steps() -> None:
    moved = {name: array + np.float32(2) for name, array in REFERENCE.items()}  # six entries
    assert length(moved, REFERENCE, 1) == pytest.approx(2 * 6**0.5)
    assert length(moved, REFERENCE, 4) == pytest.approx(6**0.5)
    assert length(REFERENCE, REFERENCE, 4) == 0
    assert whole_length(moved) == pytest.approx(2 * 6**0.5)
    assert whole_length({}) == 0


def test_a_walk_at_random_of_many_steps_is_as_long_as_one_of_few() -> None:
    steps = np.random.default_rng(0).normal(size=(900, 5000)).astype(np.float32)
    still = {"w": np.zeros(5000, np.float32)}
    short, long = (length({"w": steps[:n].sum(axis=0)}, still, n) for n in (9, 900))
    assert 0.9 < long / short < 1.1


def test_one_long_update_among_others_is_named() -> None:
    found = LengthCheck(20).faults(lengths(a=1.0, b=1.2, c=25.0))
    assert found == {
        "c": "for its steps its update is 22.7 times as long as the study's median, 20 is the limit"
    }
    assert LengthCheck(20).faults(lengths(a=1.0, b=1.2, c=21.0)) == {}
    assert LengthCheck(float("inf")).faults(lengths(a=1.0, b=1.2, c=1e30)) == {}


def test_of_two_sites_in_a_first_round_the_longer_one_is_the_fault() -> None:
    check = LengthCheck(20)
    assert list(check.faults(lengths(a=1.0, b=100.0))) == ["b"]
    assert list(check.faults(lengths(a=0.001, b=1.0))) == ["b"]
    assert check.faults(lengths(a=1.0)) == {}  # nothing to compare it with
    assert check.faults(lengths(a=0.0, b=1.0)) == {}  # nor here


def test_later_rounds_are_compared_with_earlier_ones_and_a_restart_forgets_nothing() -> None:
    check = LengthCheck(20)
    check.remember(lengths(a=1.0, b=1.0).values())
    for one in (check, LengthCheck(20, json.loads(json.dumps(check.state)))):
        assert list(one.faults(lengths(b=100.0))) == ["b"]
        assert list(one.faults(lengths(a=0.001, b=1.0))) == []  # now it is known who is usual
    for _ in range(100):
        check.remember(lengths(a=50.0).values())
    assert len(check.state["update"]) == REMEMBERED
    assert check.faults(lengths(b=100.0)) == {}  # what is usual changes


def test_one_bad_site_does_not_move_what_is_usual() -> None:
    """Two sites of five send what is far too long: the median of the others still tells."""
    found = LengthCheck(20).faults(lengths(a=1, b=1.5, c=2, d=1000, e=2000))
    assert list(found) == ["d", "e"]


def test_what_is_sent_beside_the_weights_is_compared_too() -> None:
    sent = {"a": Lengths(1.0, 5.0), "b": Lengths(1.0, 6.0), "c": Lengths(1.0, 500.0)}
    found = LengthCheck(20).faults(sent)
    assert found == {
        "c": "what it sends beside its weights is 90.9 times as long as the study's median, 20 is the limit"
    }
    assert LengthCheck(20).faults({site: Lengths(1.0) for site in "abc"}) == {}


def test_numbers_near_the_end_of_their_range_are_long_and_no_crash() -> None:
    far = {"w": np.full(3, 1e308)}
    check = LengthCheck(20)
    found = {"a": Lengths(1.0), "b": Lengths(length(far, {"w": -far["w"]}, 1))}
    assert list(check.faults(found)) == ["b"]


def test_what_is_usual_by_earlier_rounds_passes_at_once_and_in_the_end() -> None:
    check = LengthCheck(20)
    assert not check.usual(Lengths(1.0))  # nothing to compare it with
    check.remember(lengths(a=1.0, b=1.2).values())
    assert check.usual(Lengths(20.0))
    assert not check.usual(Lengths(30.0))
    assert not check.usual(Lengths(1.0, beside=1.0))  # nobody sent anything beside so far
    others = dict.fromkeys("bcdef", 0.001)
    assert check.faults(lengths(a=19.0, **others)) == {}  # it may be in a sum already
    assert list(check.faults(lengths(a=30.0, **others))) == ["a"]
