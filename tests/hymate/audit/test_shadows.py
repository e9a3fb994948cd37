"""A model that has learned people by heart is told from one that has not; shadow models, kill and all."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from hymate.audit import shadows
from hymate.audit.attack import Attack, measure
from hymate.audit.people import People
from hymate.audit.shadows import (
    ShadowSettings,
    confidence,
    halves,
    likelihood_ratios,
    shadow_answers,
)
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.train.alone import Progress
from tests.hymate.audit.conftest import LEARN, Remembered

FEW = BootstrapSettings(200)
SHORT = LEARN.model_copy(update={"rounds": 2})


def nothing(number: int, progress: Progress | None) -> None: ...


def of_chance(attack: Attack) -> bool:
    assert attack.auc.lower is not None
    assert attack.auc.upper is not None
    return attack.auc.lower < 0.5 < attack.auc.upper


def test_members_learned_by_heart_are_found_and_only_they(remembered: Remembered) -> None:
    people = remembered.people
    known = confidence(remembered.saved, people)
    loud = measure("loss", known, people.member, 1e-5, FEW)
    assert loud.auc.value is not None
    assert loud.auc.value > 0.7
    assert loud.auc.lower is not None
    assert loud.auc.lower > 0.6
    assert loud.epsilon_floor > 0
    shuffled = np.random.default_rng(3).permutation(people.member)
    assert of_chance(measure("loss", known, shuffled, 1e-5, FEW))
    never = measure("loss", confidence(remembered.untrained, people), people.member, 1e-5, FEW)
    assert of_chance(never)
    assert never.epsilon_floor == 0.0


def test_a_person_s_answer_is_the_mean_over_their_stays(remembered: Remembered) -> None:
    people = remembered.people
    single = confidence(remembered.saved, people)
    store = people.store
    twins = np.arange(len(store)) // 2
    paired = People.of(replace(store, subject_id=twins), np.repeat(people.member[::2], 2))
    assert len(paired) == len(people) // 2
    np.testing.assert_allclose(confidence(remembered.saved, paired), single.reshape(-1, 2).mean(1))


def test_everybody_is_in_half_of_the_models() -> None:
    within = halves(41, 8, seed=0)
    assert (within.sum(0) == 4).all()
    assert set(within.sum(1)) == {20, 21}
    assert (halves(41, 8, seed=1) != within).any()


def test_the_likelihood_ratio_is_that_of_two_normals() -> None:
    rng = np.random.default_rng(0)
    within = halves(30, 6, seed=0)
    said = rng.normal(size=(6, 30)) + 2.0 * within
    observed = rng.normal(size=30)
    found = likelihood_ratios(observed, said, within)
    parts = []
    for chosen in (within, ~within):
        values = [said[chosen[:, person], person] for person in range(30)]
        spread = np.sqrt(np.mean([np.var(each, ddof=1) for each in values]))
        parts.append(stats.norm.logpdf(observed, [each.mean() for each in values], spread))
    np.testing.assert_allclose(found, parts[0] - parts[1])


def test_shadow_models_find_members_too(remembered: Remembered, tmp_path: Path) -> None:
    people = remembered.people
    settings = ShadowSettings(4, LEARN.model_copy(update={"rounds": 10}))
    said, within = shadow_answers(remembered.saved, people, settings, tmp_path, nothing)
    ratio = likelihood_ratios(confidence(remembered.saved, people), said, within)
    auc = measure("ratio", ratio, people.member, 1e-5, FEW).auc.value
    assert auc is not None
    assert auc > 0.6


def test_a_killed_audit_goes_on_within_the_model_it_was_at(
    remembered: Remembered, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ShadowSettings(4, SHORT)

    def run(folder: str, done: Callable[[int, Progress | None], None]) -> tuple[np.ndarray, np.ndarray]:
        return shadow_answers(remembered.saved, remembered.people, settings, tmp_path / folder, done)

    whole = run("whole", nothing)
    heard: list[tuple[int, int | None]] = []

    def killed(number: int, progress: Progress | None) -> None:
        heard.append((number, progress.round if progress else None))
        if (number, progress and progress.round) == (3, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run("killed", killed)
    heard.clear()
    with pytest.raises(KeyboardInterrupt):
        run("killed", killed)
    # Models 1 and 2 are read, of model 3 the second round alone is trained.
    assert heard == [(1, None), (2, None), (3, 2)]
    again = run("killed", nothing)
    np.testing.assert_array_equal(again[0], whole[0])
    np.testing.assert_array_equal(again[1], whole[1])
    monkeypatch.setattr(shadows, "train_alone", lambda *given, **further: pytest.fail("trained again"))
    run("whole", nothing)
    with pytest.raises(pytest.fail.Exception):
        shadow_answers(
            remembered.saved, remembered.people, ShadowSettings(4, SHORT, seed=1), tmp_path / "whole", nothing
        )


@pytest.mark.parametrize("number", [1, 2, 5])
def test_an_odd_number_of_shadows_is_refused(number: int) -> None:
    with pytest.raises(InputFault, match="even number"):
        ShadowSettings(number, SHORT).demand_even()
