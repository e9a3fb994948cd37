"""Noise at the coordinator: what one site can change, how much there is of it, its cost, and refusals."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from dp_accounting.pld import privacy_loss_distribution as pld
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy import stats

from hymate.errors import InputFault
from hymate.privacy.accounting import epsilon_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.privacy_config import CentralPrivacyConfig
from server.central_noise import RATE, CentralNoise, multiplier_of
from server.failure import StudyFailure
from server.study import StudyConfig, load_study
from strategies.base import Arrays, Round, Update
from strategies.fedavg import FedAvg
from strategies.registry import ALGORITHMS
from tests.in_process import small_study
from tests.server.studies import Broken, Study, breaks_after

CENTRAL: dict[str, Any] = {"mode": "central", "noise_multiplier": 2.0, "delta": 0.01}
UNIFORM = {"weighting": "uniform"}
ROUND = Round(1, 4)


def updates_of(changes: list[list[float]], current: Arrays) -> list[Update]:
    """Each site moves the first array by the first half of its numbers and the second by the rest."""
    half = len(changes[0]) // 2
    return [
        Update(
            {
                "a": (current["a"] + np.array(change[:half])).astype(current["a"].dtype),
                "b": (current["b"] + np.array(change[half:])).astype(current["b"].dtype),
            },
            weight=1.0,
            site=f"site {number}",
        )
        for number, change in enumerate(changes)
    ]


def weights(size: int = 2) -> Arrays:
    return {"a": np.linspace(-1, 1, size), "b": np.linspace(0, 3, size)}


def central(
    multiplier: float, noised: Callable[[str], None] = lambda site: None, **changes: Any
) -> CentralNoise:
    keys = itertools.count(1)
    privacy = CentralPrivacyConfig(**{**CENTRAL, **changes})
    inner = FedAvg(FedAvg.Settings())
    return CentralNoise(inner, privacy, multiplier, noised=noised, key=lambda: bytes([next(keys)] * 32))


def moved(by: CentralNoise, changes: list[list[float]]) -> np.ndarray:
    """How far the mean of these changes moves the weights."""
    current = weights(len(changes[0]) // 2)
    after = by.aggregate(ROUND, current, updates_of(changes, current))
    return np.concatenate([np.asarray(after[name], float) - current[name] for name in ("a", "b")])


NUMBERS = st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.lists(NUMBERS, min_size=2, max_size=5), st.sampled_from([0.1, 1.0, 30.0]))
def test_one_site_changes_the_sum_by_the_norm_at_most(changes: list[list[float]], norm: float) -> None:
    whole = moved(central(0.0, clipping_norm=norm), changes)
    for site in range(len(changes)):
        without = [*changes[:site], [0.0] * 4, *changes[site + 1 :]]
        difference = (whole - moved(central(0.0, clipping_norm=norm), without)) * len(changes)
        assert np.linalg.norm(difference) <= norm * (1 + 1e-6) + 1e-9


def test_short_updates_are_averaged_as_they_are_and_long_ones_cut() -> None:
    np.testing.assert_allclose(moved(central(0.0), [[0.1, 0, 0, 0], [0, 0, 0.3, 0]]), [0.05, 0, 0.15, 0])
    np.testing.assert_allclose(moved(central(0.0), [[30, 0, 40, 0], [0] * 4]), [0.3, 0, 0.4, 0])


def test_the_noise_is_normal_and_as_large_as_was_said() -> None:
    size, sites = 40_000, 4
    found = moved(central(1.5, clipping_norm=0.2), [[0.0] * size] * sites)
    assert stats.kstest(found / (1.5 * 0.2 / sites), "norm").pvalue > 0.01
    noise = central(1.5)
    assert not np.allclose(moved(noise, [[0.0] * 8] * 2), moved(noise, [[0.0] * 8] * 2))  # of two rounds
    adaptive = moved(central(1.5, clipping="adaptive"), [[0.0] * size] * sites)
    of_count = 1.5  # the larger of it and 4 / 20
    share = (1.5**-2 - (2 * of_count) ** -2) ** -0.5
    assert stats.kstest(adaptive / (share / sites), "norm").pvalue > 0.01


def test_without_a_key_of_a_test_no_noise_comes_twice() -> None:
    privacy = CentralPrivacyConfig(**CENTRAL)
    made = [CentralNoise(FedAvg(FedAvg.Settings()), privacy, 1.0, noised=lambda site: None) for _ in range(2)]
    first, second = (moved(each, [[0.0] * 8] * 2) for each in made)
    assert not np.allclose(first, second)


@pytest.mark.parametrize("quantile", [0.25, 0.75])
def test_an_adaptive_norm_finds_the_quantile(quantile: float) -> None:
    """From far above and far below; without noise, and with little on the count."""
    lengths = np.linspace(0.5, 4.5, 9)
    changes = [[length, 0.0, 0.0, 0.0] for length in lengths]
    for first, multiplier in ((100.0, 0.0), (0.01, 0.0), (100.0, 0.2)):
        adaptive = central(multiplier, clipping="adaptive", clipping_norm=first, quantile=quantile)
        norms = [moved(adaptive, changes) is not None and adaptive.norm for _ in range(150)]
        wanted = np.quantile(lengths, quantile)
        assert np.mean(norms[-50:]) == pytest.approx(wanted, rel=0.25)


def test_an_adaptive_norm_moves_as_the_paper_says() -> None:
    adaptive = central(0.0, clipping="adaptive", clipping_norm=2.0)
    moved(adaptive, [[1.0, 0, 0, 0], [3.0, 0, 0, 0], [5.0, 0, 0, 0], [7.0, 0, 0, 0]])
    # Of four updates one is short enough; the count's noise is 4 / 20.
    assert adaptive.norm == pytest.approx(2.0 * math.exp(-RATE * (0.25 - 0.5)), rel=RATE * 3 / 20)
    assert adaptive.norm > 2.0
    again = central(0.0, clipping="adaptive", clipping_norm=2.0)
    again.restore(adaptive.state())
    assert again.norm == adaptive.norm


@pytest.mark.parametrize("name", [name for name, kind in ALGORITHMS.items() if kind.of_the_mean])
def test_these_algorithms_read_nothing_but_the_mean(name: str) -> None:
    kind = ALGORITHMS[name]
    one, all_ = kind(kind.Settings()), kind(kind.Settings())
    current = weights()
    rng = np.random.default_rng(0)
    for _ in range(3):
        updates = updates_of(rng.normal(size=(3, 4)).tolist(), current)
        mean = {
            key: np.mean([np.asarray(update.arrays[key], float) for update in updates], axis=0)
            for key in current
        }
        found = one.aggregate(ROUND, current, [Update(mean, weight=1.0)])
        for key, array in all_.aggregate(ROUND, current, updates).items():
            np.testing.assert_allclose(np.asarray(found[key], float), np.asarray(array, float), rtol=1e-12)
    assert not one.beside()
    assert not one.facts_expected()


@pytest.mark.parametrize(("noise", "rounds"), [(1.0, 5), (3.0, 40), (8.0, 100)])
def test_epsilon_is_that_of_so_many_gaussian_mechanisms(noise: float, rounds: int) -> None:
    exact = pld.from_gaussian_mechanism(noise / math.sqrt(rounds)).get_epsilon_for_delta(0.01)
    found = epsilon_of([Spend(SAMPLED_GAUSSIAN, 1.0, noise, rounds)], 0.01)
    assert exact <= found * (1 + 1e-3)
    assert found == pytest.approx(exact, rel=0.01)
    target = CentralPrivacyConfig(mode="central", target_epsilon=found, delta=0.01)
    assert multiplier_of(target, rounds) == pytest.approx(noise, rel=0.01)


@pytest.fixture(scope="module")
def hospitals(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(2)


@pytest.fixture(scope="module")
def done(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study that broke off in its last round, and went on."""
    made = Study(hospitals, tmp_path_factory.mktemp("done") / "run")
    settings: dict[str, Any] = {
        "privacy": {**CENTRAL, "clipping": "adaptive"},
        "strategy": {"name": "fedadam", **UNIFORM},
        "participation": {"norm_factor": 1.01},  # without effect
    }
    with pytest.raises(Broken):
        made.run(breaks_after(2 * (3 + 1 + 1)), rounds=(1, 2), **settings)
    made.run(rounds=(1, 2), **settings)
    return made


def test_the_account_goes_on_over_a_restart(done: Study) -> None:
    privacy = done.report()["privacy"]
    assert (privacy["mode"], privacy["unit"]) == ("central", "site")
    expected = epsilon_of([Spend(SAMPLED_GAUSSIAN, 1.0, 2.0, 3)], 0.01)
    assert list(privacy["sites"]) == ["hospital_1", "hospital_2"]
    for site in privacy["sites"].values():
        assert site["rounds"] == {"pretrain": 1, "finetune": 2}
        assert site["spent"] == {"epsilon": pytest.approx(expected), "delta": 0.01}
        assert site["declared"] is None


def test_the_report_says_whose_epsilon_it_is(done: Study) -> None:
    page = (done.folder / "report.html").read_text()
    assert "The coordinator clipped each (clipping adaptive at norm 1.0)" in page
    assert "tell of any one hospital" in page
    assert "as the hospitals declare" not in page


def test_the_adaptive_norm_is_in_the_checkpoint(done: Study) -> None:
    from server.central_noise import NORM
    from server.checkpoint import Checkpoints

    latest = Checkpoints(done.folder).latest("finetune")
    assert latest is not None
    assert float(np.asarray(latest.strategy[NORM], float)) != 1.0
    assert any(name.startswith("m/") for name in latest.strategy)


def test_a_site_may_still_demand_its_own_noise(hospitals: Path, tmp_path: Path) -> None:
    study = Study(hospitals, tmp_path / "run")
    path = study.folder / "sites" / "hospital_1" / "site.yaml"
    site = yaml.safe_load(path.read_text())
    site["policy"]["privacy"] = {"epsilon": 8.0, "demand": True}
    path.write_text(yaml.safe_dump(site))
    with pytest.raises(StudyFailure, match="its policy lets no update leave without noise"):
        study.run(rounds=(0, 1), privacy=CENTRAL, strategy=UNIFORM)


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ({"name": "scaffold", **UNIFORM}, "needs more than the mean of the updates.*fedadam.*fedavg"),
        ({"name": "krum", **UNIFORM}, "needs more than the mean"),
        ({"name": "flower.FedAvg", **UNIFORM}, "needs more than the mean"),
        ({"weighting": "stays"}, "set it to uniform"),
        ({**UNIFORM, "pretrain": {"name": "fedavg"}}, "set it to uniform"),
    ],
)
def test_what_the_mean_does_not_cover_is_refused(
    strategy: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump({"name": "small", "privacy": CENTRAL, "strategy": strategy}))
    with pytest.raises(InputFault, match=words):
        load_study(path)
    path.write_text(yaml.safe_dump({"name": "small", "privacy": CENTRAL, "strategy": UNIFORM}))
    assert load_study(path).privacy == CentralPrivacyConfig(**CENTRAL)


def test_a_section_that_says_too_little_or_too_much_is_refused() -> None:
    def made(**privacy: Any) -> StudyConfig:
        return small_study(privacy={"mode": "central", **privacy})

    for wrong in ({}, {"noise_multiplier": 1.0, "target_epsilon": 1.0}):
        with pytest.raises(ValidationError, match="one of the two"):
            made(**wrong)
    with pytest.raises(ValidationError, match="max_grad_norm"):
        made(noise_multiplier=1.0, max_grad_norm=1.0)
    with pytest.raises(ValidationError, match="leave_one_site_out"):
        small_study(privacy=CENTRAL, evaluation={"leave_one_site_out": True})
