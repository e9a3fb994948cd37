"""What an update gives away is found where it is there, and not where noise covers it."""

from __future__ import annotations

import pytest

from hymate.audit.update_probe import Leak, Round, can_probe, probe
from tests.hymate.audit.conftest import BLOCKS, LEARN, Remembered

ALONE, NOISY = Round(1, 1, 0.0), Round(1, 1, 1.0)


@pytest.fixture(scope="module")
def leaks(remembered: Remembered) -> dict[Round, Leak]:
    trials = {ALONE: 6, NOISY: 12, Round(4, 1, 0.0): 2, Round(4, 3, 0.0): 2, Round(4, 3, 2.0): 4}
    return {each: probe(remembered.saved, remembered.people, LEARN, each, n) for each, n in trials.items()}


def test_an_update_of_one_stay_names_its_codes_its_label_and_its_values(leaks: dict[Round, Leak]) -> None:
    leak = leaks[ALONE]
    assert leak.present is not None
    assert 0.0 < leak.present <= 1 / BLOCKS
    assert leak.precision == leak.recall == leak.separation == leak.label == 1.0
    assert leak.value_error is not None
    assert leak.guess_error is not None
    assert leak.value_error < 0.5 * leak.guess_error


def test_with_noise_codes_label_and_values_are_guesses(leaks: dict[Round, Leak]) -> None:
    leak = leaks[NOISY]
    assert leak.recall == 1.0  # every row moves
    assert leak.precision == leak.present
    assert leak.separation is not None
    assert 0.3 < leak.separation < 0.7
    assert leak.label is not None
    assert 0.1 < leak.label < 0.9
    assert leak.value_error is not None
    assert leak.guess_error is not None
    assert leak.value_error > 0.8 * leak.guess_error


@pytest.mark.parametrize("rounds", [Round(4, 1, 0.0), Round(4, 3, 0.0)])
def test_codes_of_several_stays_and_steps_are_named_too(rounds: Round, leaks: dict[Round, Leak]) -> None:
    leak = leaks[rounds]
    assert leak.precision == leak.recall == 1.0
    assert leak.present is not None
    assert leak.present > 1 / BLOCKS
    assert leak.label is None
    assert leak.value_error is None


def test_noise_over_several_steps_covers_codes(leaks: dict[Round, Leak]) -> None:
    leak = leaks[Round(4, 3, 2.0)]
    assert leak.precision == leak.present
    assert leak.separation is not None
    assert 0.3 < leak.separation < 0.7


def test_a_model_without_a_row_for_each_code_is_not_probed(remembered: Remembered) -> None:
    from dataclasses import replace

    from hymate.train.saved_model import new_model

    saved = remembered.saved
    config = saved.config.model_copy(update={"embedding": "code_value"})
    other = replace(saved, model=new_model(config, saved.task, saved.vocabulary, 0), config=config)
    assert can_probe(saved)
    assert not can_probe(other)
