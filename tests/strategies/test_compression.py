"""Updates made smaller: what comes back, and what is remembered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from strategies.base import Algorithm, Round, Update
from strategies.compression import compressed, demand_order, loses, restored
from strategies.fedavg import weighted_mean
from strategies.quantisation import from_int8, scale_of, to_float16, to_int8
from strategies.registry import ALGORITHMS, make_algorithm
from strategies.top_k import bytes_of_positions, kept_of, largest, read, written
from strategies.wire import pack, unpack_weights
from tests.strategies.halves import _Nothing
from tests.strategies.small_updates import ALL, TOP, Arrays, model, near, steps


def through(words: list[Any], arrays: Arrays, reference: Arrays, seed: int = 0) -> tuple[Arrays, Arrays]:
    """What arrives by way of the wire, and the residual."""
    sent, left = compressed(steps(*words), arrays, reference, {}, np.random.default_rng(seed))
    arrived = unpack_weights(pack(_Nothing, sent))
    return restored(steps(*words), arrived, reference), left


@pytest.mark.parametrize("words", ALL, ids=str)
def test_what_comes_back_fits_and_what_is_no_float_is_exact(words: list[Any]) -> None:
    reference = model(1)
    arrays = near(reference, 2)
    back, _ = through(words, arrays, reference)
    assert list(back) == list(reference)
    for name, array in arrays.items():
        assert (back[name].shape, back[name].dtype) == (array.shape, array.dtype)
    for name in ("count", "mask"):
        assert back[name].tobytes() == arrays[name].tobytes()


@pytest.mark.parametrize("words", ALL, ids=str)
def test_a_coordinator_that_has_the_arrays_in_another_order_gets_the_same(words: list[Any]) -> None:
    reference = model(1)
    arrays = near(reference, 2)
    sent, _ = compressed(steps(*words), arrays, reference, {}, np.random.default_rng(0))
    one = restored(steps(*words), sent, reference)
    other = restored(steps(*words), sent, dict(sorted(reference.items())))
    assert {name: array.tobytes() for name, array in one.items()} == {
        name: array.tobytes() for name, array in other.items()
    }


def test_without_steps_nothing_changes() -> None:
    arrays = model(2)
    sent, left = compressed((), arrays, model(1), {}, np.random.default_rng(0))
    assert sent is arrays
    assert left == {}


def test_delta_is_exact_within_a_factor_of_two_and_else_right_to_rounding() -> None:
    rng = np.random.default_rng(0)
    before = rng.normal(size=20_000).astype(np.float32)
    after = (before * rng.uniform(-3, 3, size=20_000)).astype(np.float32)
    back, left = through(["delta"], {"w": after}, {"w": before})
    ratio = np.divide(after, before)
    close = (ratio > 0.5) & (ratio < 2)
    assert close.sum() > 1000
    assert back["w"][close].tobytes() == after[close].tobytes()
    error = np.abs(back["w"].astype(np.float64) - after)
    assert np.all(error <= 2.0**-23 * np.maximum(np.abs(after), np.abs(after - before)))
    assert error.max() > 0
    assert left == {}


def test_fp16_is_right_to_eleven_bits_and_refuses_what_it_cannot_hold() -> None:
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32) * np.float32(100)
    back, _ = through(["fp16"], {"w": values}, {"w": np.zeros(1000, np.float32)})
    np.testing.assert_allclose(back["w"], values, rtol=2.0**-11, atol=2.0**-25)
    assert to_float16(np.array([65504.0, -65519.0])) is not None
    assert to_float16(np.array([65520.0])) is None
    with pytest.raises(InputFault, match=r"w holds values beyond 65504, fp16's largest number; lower"):
        through(["fp16"], {"w": values * np.float32(1e4)}, {"w": values})


@pytest.mark.parametrize("words", [words for words in ALL if words], ids=str)
def test_a_model_that_is_not_finite_does_not_leave_the_site(words: list[Any]) -> None:
    for bad in (np.nan, np.inf):
        with pytest.raises(InputFault, match="w holds values that are not finite"):
            through(words, {"w": np.array([1, bad], np.float32)}, {"w": np.zeros(2, np.float32)})


def test_int8_is_right_on_average_and_never_off_by_a_level() -> None:
    values = np.array([0.3, -1.0, 1e-3, 0.0, 0.77777, -0.5, 1.0 / 3.0])
    scale = scale_of(values)
    rng = np.random.default_rng(0)
    draws = np.stack([from_int8(to_int8(values, scale, rng), scale, values.dtype) for _ in range(20_000)])
    assert np.all(np.abs(draws - values) < scale)
    # The mean of n draws, each within one level of two, has a standard error of at most level / 2 sqrt(n).
    assert np.all(np.abs(draws.mean(axis=0) - values) < 5 * scale / 2 / np.sqrt(20_000))
    assert len({bytes(row) for row in draws}) > 10  # by chance, not to the nearest
    assert np.all(draws[:, 3] == 0)


@pytest.mark.parametrize("values", [np.zeros(5), np.full(5, 1e-46), np.zeros(0), np.array([1e-44, 2e-43])])
def test_int8_of_nearly_nothing(values: NDArray[np.float64]) -> None:
    scale = scale_of(values)
    levels = to_int8(values, scale, np.random.default_rng(0))
    assert np.all(np.abs(levels) <= 127)
    assert np.all(np.abs(from_int8(levels, scale, values.dtype) - values) <= max(scale, 1e-45))


def test_int8_of_what_32_bits_cannot_hold_is_refused() -> None:
    with pytest.raises(InputFault, match="in which int8 keeps its scale"):
        through(["delta", "int8"], {"w": np.array([1e300])}, {"w": np.zeros(1)})
    almost = np.array([3e38], np.float32)
    back, _ = through(["delta", "int8"], {"w": almost}, {"w": np.zeros(1, np.float32)})
    np.testing.assert_allclose(back["w"], almost, rtol=1e-6)


def test_int8_of_a_peak_that_rounds_down_stays_within_its_levels() -> None:
    rng = np.random.default_rng(3)
    for peak in rng.lognormal(sigma=20, size=300):
        values = np.array([peak, -peak])
        scale = scale_of(values)
        assert float(scale) * 127 >= peak


def test_equal_chance_gives_equal_bits_and_other_chance_others() -> None:
    reference = model(1)
    arrays = near(reference, 2)
    one, other, third = (through(["delta", TOP, "int8"], arrays, reference, seed)[0] for seed in (0, 0, 1))
    assert one["w"].tobytes() == other["w"].tobytes()
    assert one["w"].tobytes() != third["w"].tobytes()


def test_top_k_sends_the_largest_and_the_first_of_equal_ones() -> None:
    values = np.array([1.0, -3.0, 2.0, 3.0, -3.0, 0.0])
    assert largest(values, 2).tolist() == [1, 3]
    back, left = through(["delta", {"name": "top_k", "share": 0.5}], {"w": values}, {"w": np.zeros(6)})
    assert back["w"].tolist() == [0, -3, 0, 3, -3, 0]
    assert left["w"].tolist() == [1, 0, 2, 0, 0, 0]


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000, 65_536, 65_537])
@pytest.mark.parametrize("share", [1e-4, 0.01, 0.1, 0.5, 1.0])
def test_positions_come_back_in_no_more_bytes_than_either_form(size: int, share: float) -> None:
    kept = kept_of(size, share)
    positions = np.sort(np.random.default_rng(0).permutation(size)[:kept])
    content = written(positions, size)
    assert len(content) == bytes_of_positions(size, kept) <= -(-size // 8)
    assert len(content) <= kept * (2 if size <= 65_536 else 4)
    back = read(content, size, kept)
    assert back is not None
    assert back.tolist() == positions.tolist()


@pytest.mark.parametrize("words", [["delta", TOP], ["delta", TOP, "fp16"], ["delta", TOP, "int8"]], ids=str)
def test_with_error_feedback_everything_arrives(words: list[Any]) -> None:
    """What was received and what is still to be sent sum to what the site made, round after round."""
    rng = np.random.default_rng(0)
    reference = model(1)
    made = {name: np.zeros(x.shape) for name, x in reference.items() if x.dtype.kind == "f"}
    arrived = {name: np.zeros(array.shape) for name, array in made.items()}
    residual: Arrays = {}
    for number in range(40):
        arrays = near(reference, 100 + number)
        sent, residual = compressed(steps(*words), arrays, reference, residual, rng)
        back = restored(steps(*words), sent, reference)
        for name in made:
            made[name] += arrays[name].astype(np.float64) - reference[name]
            arrived[name] += back[name].astype(np.float64) - reference[name]
    for name, whole in made.items():
        np.testing.assert_allclose(arrived[name] + residual[name], whole, atol=2e-5)
    assert np.abs(residual["w"]).max() < 0.1 < np.abs(made["w"]).max()


def test_without_error_feedback_nothing_is_remembered() -> None:
    reference = model(1)
    _, left = through(["delta", {**TOP, "error_feedback": False}], near(reference, 2), reference)
    assert left == {}


@pytest.mark.parametrize(("feedback", "arrives"), [(True, True), (False, False)])
def test_on_a_quadratic_top_k_needs_its_feedback(feedback: bool, arrives: bool) -> None:
    """Two hospitals that pull hard in opposite directions on some weights, and gently the same way on
    others: the gentle ones are never among the largest, and without feedback never learned."""
    words = steps("delta", {"name": "top_k", "share": 0.25, "error_feedback": feedback})
    optima = [np.array([9.0, -9.0, 1.0, 1.0]), np.array([-9.0, 9.0, 1.0, 1.0])]
    shared: Arrays = {"w": np.zeros(4)}
    residuals: list[Arrays] = [{}, {}]
    rng = np.random.default_rng(0)
    tail: list[NDArray[np.float64]] = []
    for number in range(600):
        updates = []
        for index, optimum in enumerate(optima):
            trained = {"w": shared["w"] - 0.02 * (shared["w"] - optimum)}
            sent, residuals[index] = compressed(words, trained, shared, residuals[index], rng)
            updates.append(Update(restored(words, sent, shared), 1.0))
        shared = weighted_mean(updates)
        if number >= 400:
            tail.append(np.asarray(shared["w"], np.float64))
    mean = np.mean(tail, axis=0)
    assert bool(np.abs(mean - [0, 0, 1, 1]).max() < 0.1) == arrives
    assert bool(mean[2] < 1e-9) != arrives


def test_it_saves_what_it_says() -> None:
    """Bytes of an update of 100 000 float32 weights."""
    reference: Arrays = {"w": np.zeros((100, 1000), np.float32)}
    arrays: Arrays = {"w": np.random.default_rng(0).normal(size=(100, 1000)).astype(np.float32)}
    expected = {
        (): 400_000,
        ("delta",): 400_000,
        ("fp16",): 200_000,
        ("delta", "int8"): 100_004,
        ("delta", "top_k"): 40_000 + 12_500,
        ("delta", "top_k", "int8"): 10_000 + 12_500 + 4,
    }
    for words, size in expected.items():
        sent, _ = compressed(steps(*words), arrays, reference, {}, np.random.default_rng(0))
        assert sum(array.nbytes for array in sent.values()) == size, words


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["fp16", "delta"], "'delta' cannot come after 'fp16'; the order is delta, top_k, fp16 or int8"),
        (["delta", "int8", "top_k"], "'top_k' cannot come after 'int8'"),
        (["delta", "fp16", "int8"], "fp16 and int8 both say how many bits"),
        (["delta", "int8", "fp16"], "fp16 and int8 both say how many bits"),
        (["delta", "delta"], "'delta' stands there twice"),
        (["delta", "top_k", "top_k"], "'top_k' stands there twice"),
        (["top_k"], "'top_k' without 'delta' would spoil the weights themselves"),
        (["int8"], "'int8' without 'delta' would spoil"),
        (["top_k", "delta"], "'delta' cannot come after 'top_k'"),
    ],
)
def test_an_order_that_makes_no_sense_is_one_line(words: list[str], what: str) -> None:
    with pytest.raises(InputFault) as fault:
        make_algorithm(StrategyConfig(compression=steps(*words)), "study.yaml")
    assert f"study.yaml: strategy.compression: {what}" in str(fault.value)
    assert "\n" not in str(fault.value)


@pytest.mark.parametrize("words", ALL, ids=str)
def test_an_order_that_makes_sense_is_taken(words: list[Any]) -> None:
    demand_order(steps(*words), "study.yaml")


def test_one_step_needs_no_list() -> None:
    read = StrategyConfig.model_validate
    assert (
        read({"compression": "fp16"})
        == read({"compression": ["fp16"]})
        == read({"compression": [{"name": "fp16"}]})
    )
    assert read({"compression": {"name": "top_k", "share": 0.5}}) == read(
        {"compression": [{"name": "top_k", "share": 0.5}]}
    )


class Exact(Algorithm):
    name = "test-exact"
    exact_updates = "it compares them bit by bit"

    def aggregate(self, round: Round, current: Arrays, updates: Any) -> Arrays:
        return weighted_mean(updates)


@pytest.mark.parametrize("words", ALL, ids=str)
def test_an_algorithm_that_needs_exact_updates_refuses_what_loses_digits(
    words: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALGORITHMS, Exact.name, Exact)
    config = StrategyConfig(name=Exact.name, compression=steps(*words))
    if not loses(config.compression):
        assert words in ([], ["delta"])
        assert isinstance(make_algorithm(config), Exact)
        return
    with pytest.raises(InputFault, match="it compares them bit by bit"):
        make_algorithm(config)
