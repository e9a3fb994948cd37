"""Epsilon against Opacus, dp-accounting and published tables; what must hold of any composition."""

from __future__ import annotations

import math
from random import Random

import pytest
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus.accountants import PRVAccountant, RDPAccountant

from hymate.errors import InputFault
from hymate.privacy import accounting
from hymate.privacy.accounting import ORDERS, Accountant, account, epsilon_of, noise_for, renyi_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend

Parts = tuple[tuple[float, float, int], ...]
"""Noise, rate, steps."""
GRID: tuple[tuple[Parts, float], ...] = (
    (((1.3, 256 / 60000, 3516),), 1e-5),
    (((0.7, 0.01, 1000),), 1e-5),
    (((3.0, 0.08192, 2468),), 1e-5),
    (((4.0, 0.01, 10000),), 1e-6),
    (((1.0, 1.0, 4),), 1e-5),
    (((10.0, 0.3, 5),), 1e-7),
    (((2.0, 0.05, 600), (1.5, 0.02, 300)), 1e-5),
    (((5.0, 0.1, 500), (1.0, 0.01, 100), (20.0, 1.0, 3)), 1e-4),
)
HUGE = ((0.3, 0.3, 1000), (0.05, 0.1, 10), (1e-3, 0.5, 1), (1.0, 1.0, 10_000))


def spends(parts: Parts) -> list[Spend]:
    return [Spend(SAMPLED_GAUSSIAN, rate, noise, steps) for noise, rate, steps in parts]


def loss_distribution(parts: Parts, delta: float, *, pessimistic: bool, interval: float) -> float:
    """dp-accounting's epsilon: an upper bound, or a lower one."""
    composed = pld.identity(interval, pessimistic_estimate=pessimistic)
    for noise, rate, steps in parts:
        one = pld.from_gaussian_mechanism(
            noise,
            sampling_prob=rate,
            value_discretization_interval=interval,
            pessimistic_estimate=pessimistic,
            use_connect_dots=pessimistic,
        )
        composed = composed.compose(one.self_compose(steps))
    return float(composed.get_epsilon_for_delta(delta))


@pytest.mark.parametrize(("parts", "delta"), GRID)
def test_epsilon_agrees_with_dp_accounting(parts: Parts, delta: float) -> None:
    ours = account(spends(parts), delta)
    assert ours.accountant == "prv"
    assert ours.epsilon == pytest.approx(
        loss_distribution(parts, delta, pessimistic=True, interval=5e-4), rel=0.01
    )


@pytest.mark.parametrize(("parts", "delta"), [*GRID[:3], *GRID[6:], (((100.0, 0.01, 100),), 1e-7)])
def test_epsilon_is_never_below_what_it_must_be(parts: Parts, delta: float) -> None:
    interval = 1e-6 if parts[0][0] > 50.0 else 1e-4
    lower = loss_distribution(parts, delta, pessimistic=False, interval=interval)
    assert 0.0 < lower <= epsilon_of(spends(parts), delta)
    assert lower <= epsilon_of(spends(parts), delta, "rdp")


@pytest.mark.parametrize(("parts", "delta"), GRID)
def test_epsilon_agrees_with_opacus(parts: Parts, delta: float) -> None:
    prv, rdp = PRVAccountant(), RDPAccountant()
    prv.history = rdp.history = list(parts)
    # Opacus adds 0.01, its error, to whatever it finds.
    assert epsilon_of(spends(parts), delta) == pytest.approx(
        prv.get_epsilon(delta, eps_error=0.01) - 0.01, rel=0.01, abs=0.002
    )
    ours = epsilon_of(spends(parts), delta, "rdp")
    assert ours == pytest.approx(rdp.get_epsilon(delta, alphas=list(ORDERS)), rel=1e-9)
    assert ours <= rdp.get_epsilon(delta) * 1.002, "with Opacus' own orders"


def test_opacus_own_figures() -> None:
    """tests/accountants_test.py of https://github.com/meta-pytorch/opacus: RDP and PRV of one training."""
    assert epsilon_of(spends(((1.5, 0.04, 2250),)), 1e-5, "rdp") == pytest.approx(7.32911117143, rel=1e-3)
    assert epsilon_of(spends(((1.5, 0.04, 2249),)), 1e-5) == pytest.approx(6.777395712150674, rel=0.01)


@pytest.mark.parametrize(
    ("noise", "rate", "epochs", "published"),
    [
        # Abadi et al. 2016, figure 2: the moments accountant after 100 epochs. https://arxiv.org/abs/1607.00133
        (4.0, 0.01, 100, 1.26),
        # TensorFlow Privacy's MNIST tutorials, with batches of 256 of 60,000.
        # https://github.com/tensorflow/privacy/blob/047e1eef0e446daf41a9adbb712c546ebbd38c12/tutorials/README.md
        (1.12, 256 / 60000, 60, 2.92),
        (0.6, 256 / 60000, 30, 9.74),
        (1.2, 256 / 60000, 10, 1.20),
        # Bu et al. 2020, figure 4: moments accountant. https://pmc.ncbi.nlm.nih.gov/articles/PMC7695347/
        (1.3, 256 / 60000, 20, 1.34),
        (0.7, 256 / 60000, 70, 8.68),
    ],
)
def test_published_tables(noise: float, rate: float, epochs: int, published: float) -> None:
    """They convert Renyi divergence to epsilon by the older rule (Mironov 2017, proposition 3); the newer
    bounds from the same divergence, and PRV's, are smaller."""
    delta, done = 1e-5, spends(((noise, rate, int(epochs / rate)),))
    older = min(loss + math.log(1 / delta) / (order - 1) for order, loss in renyi_of(done).items())
    assert older == pytest.approx(published, rel=0.01)
    assert published * 0.6 < epsilon_of(done, delta) < epsilon_of(done, delta, "rdp") < published


PART = st.tuples(st.floats(0.6, 20.0), st.floats(1e-3, 0.3), st.integers(1, 300))


@settings(max_examples=10, deadline=None)
@given(st.lists(PART, min_size=2, max_size=3), st.randoms())
def test_composition(parts: list[tuple[float, float, int]], random: Random) -> None:
    holds_of_composition(parts, random, "rdp", slack=1.0)


@settings(max_examples=2, deadline=None)
@given(st.lists(PART, min_size=2, max_size=2), st.randoms())
def test_composition_by_prv(parts: list[tuple[float, float, int]], random: Random) -> None:
    holds_of_composition(parts, random, "prv", slack=1.006)  # its error of 0.2 % is added on both sides


def holds_of_composition(
    parts: list[tuple[float, float, int]], random: Random, accountant: Accountant, slack: float
) -> None:
    """The order says nothing; steps taken apart are steps taken together; more steps cost more, and no more
    than by themselves."""
    delta, done = 1e-5, spends(tuple(parts))
    noise, rate, number = parts[0]
    apart = [*done[1:], *spends(((noise, rate, number - 1), (noise, rate, 1)))]
    random.shuffle(apart)
    whole = account(done, delta, accountant)
    assert account(apart, delta, accountant) == whole
    assert epsilon_of(done[:-1], delta, accountant) <= whole.epsilon * slack
    alone = sum(epsilon_of([one], delta / len(done), accountant) for one in done)
    assert whole.epsilon <= alone * slack


def test_what_costs_nothing_and_what_costs_everything() -> None:
    assert epsilon_of([], 1e-5) == 0.0
    assert epsilon_of(spends(((1.0, 0.0, 5), (1.0, 0.5, 0))), 1e-5) == 0.0
    assert epsilon_of(spends(((1.0, 0.1, 5), (0.0, 0.1, 1))), 1e-5) == math.inf
    assert epsilon_of(spends(((1e-160, 0.5, 1),)), 1e-5) == math.inf, "Opacus' RDP would never end"
    assert epsilon_of(spends(((1e12, 0.5, 1),)), 1e-7) == epsilon_of(spends(((1e3, 0.5, 1),)), 1e-7) > 0.0


@pytest.mark.parametrize("part", HUGE)
def test_beyond_prv_there_is_a_bound_and_a_reason(part: tuple[float, float, int]) -> None:
    """Opacus' PRV takes gigabytes, answers with infinity or raises here."""
    found = account(spends((part,)), 1e-5)
    assert found.accountant == "rdp"
    assert "epsilon is beyond" in found.why
    assert found.epsilon > 50.0


def test_a_delta_that_rounding_would_decide_is_rdps(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hymate")
    found = account(spends(((1.5, 0.04, 2249),)), 1e-11)
    assert (found.accountant, found.why) == ("rdp", "rounding errors outweigh so small a delta")
    assert found.epsilon > epsilon_of(spends(((1.5, 0.04, 2249),)), 1e-8)
    assert "epsilon is RDP's bound" in caplog.text


def test_an_accountant_that_fails_gives_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opacus' own fault, by its own words (issue 601), whatever the grid."""
    from opacus.accountants.analysis import prv

    tried = []

    def fails(loss: object, domain: object) -> None:
        tried.append(domain)
        raise RuntimeError("Discrete mean differs significantly from continuous mean.")

    done = spends(((1.5, 0.04, 200),))
    monkeypatch.setattr(prv, "discretize", fails)
    found = account(done, 1e-5)
    assert found.accountant == "rdp"
    assert "Discrete mean differs" in found.why
    assert found.epsilon == epsilon_of(done, 1e-5, "rdp")
    assert len(tried) == 3


@pytest.mark.parametrize("damage", ["lost", "nan", "contradiction"])
def test_a_distribution_that_is_none_gives_way(damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mass lost on the way would make epsilon too small."""
    from opacus.accountants.analysis import prv

    real = prv.compose_heterogeneous

    def spoilt(parts: list[object], steps: list[int]) -> object:
        composed = real(parts, steps)
        if damage == "lost":
            composed.pmf[len(composed.pmf) // 2 :] = 0.0
        elif damage == "nan":
            composed.pmf[0] = math.nan
        else:
            composed.compute_epsilon = lambda *_: (0.5, 0.4, 0.3)
        return composed

    monkeypatch.setattr(prv, "compose_heterogeneous", spoilt)
    found = account(spends(((1.5, 0.04, 200),)), 1e-5)
    assert (found.accountant, found.why.split(":")[0]) == ("rdp", "PRV says")


@pytest.mark.parametrize(
    ("target", "delta", "planned"),
    [
        (8.0, 1e-5, [(0.03, 300), (0.05, 200)]),
        (80.0, 1e-5, [(0.03, 300)]),
        (0.5, 1e-6, [(1.0, 1)]),
    ],
)
def test_noise_for_a_target(target: float, delta: float, planned: list[tuple[float, int]]) -> None:
    noise = noise_for(target, delta, planned)
    reached = epsilon_of(spends(tuple((noise, rate, steps) for rate, steps in planned)), delta)
    assert target * 0.98 < reached <= target
    assert noise_for(target, delta, planned[::-1]) == noise


def test_more_allowed_is_less_noise() -> None:
    planned = [(0.05, 200), (0.03, 300)]
    assert noise_for(8.0, 1e-5, planned) > noise_for(8.4, 1e-5, planned)


def test_noise_for_nothing_and_for_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    assert noise_for(1.0, 1e-5, []) == 0.0
    monkeypatch.setattr(accounting, "MOST_NOISE", 10.0)
    with pytest.raises(InputFault, match=r"no noise brings the planned steps down to 0\.011 at delta 1e-05"):
        noise_for(0.011, 1e-5, [(0.05, 20)])


@pytest.mark.parametrize(
    ("mechanism", "rate", "noise", "steps"),
    [
        ("laplace", 0.1, 1.0, 1),
        (SAMPLED_GAUSSIAN, 1.1, 1.0, 1),
        (SAMPLED_GAUSSIAN, math.nan, 1.0, 1),
        (SAMPLED_GAUSSIAN, 0.1, -1.0, 1),
        (SAMPLED_GAUSSIAN, 0.1, math.inf, 1),
        (SAMPLED_GAUSSIAN, 0.1, 1.0, -1),
        (SAMPLED_GAUSSIAN, 0.1, 1.0, 1.5),
    ],
)
def test_a_spend_that_cannot_be(mechanism: str, rate: float, noise: float, steps: float) -> None:
    with pytest.raises(ValueError, match=r"accountant for|sampling rate|noise multiplier|steps are"):
        Spend(mechanism, rate, noise, steps)  # type: ignore[arg-type]


def test_delta_and_target_must_make_sense() -> None:
    for delta in (0.0, 1.0, math.nan):
        with pytest.raises(ValueError, match="delta lies"):
            epsilon_of([], delta)
    with pytest.raises(ValueError, match="target epsilon is positive"):
        noise_for(0.0, 1e-5, [])
