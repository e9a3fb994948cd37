"""Rounds that draw some of the sites: who is drawn, who is asked all the same, and what is scored."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flwr.app import Error, Message
from pydantic import ValidationError

from hymate.errors import InputFault
from hymate.protocol import TrainReply
from server.failure import StudyFailure
from server.participation import ParticipationConfig
from server.sampling import Draw
from strategies.wire import unpack
from tests.in_process import InProcessGrid
from tests.server.studies import Broken, Study, breaks_after, origin, outcomes

SITES = [f"hospital_{number}" for number in (1, 2, 3, 4)]


def draw(number: int = 1, sites: int = 4, **rules: Any) -> Draw:
    return Draw(ParticipationConfig(**rules), sites, "pretrain", number, seed=3)


def test_a_draw_follows_from_seed_phase_and_round_alone() -> None:
    drawn = [draw(number, sample=2).of(SITES) for number in range(1, 30)]
    assert drawn == [draw(number, sample=2).of(reversed(SITES)) for number in range(1, 30)]
    assert all(len(sites) == 2 for sites in drawn)
    assert len(set(drawn)) == 6  # every pair there is
    others = [
        [Draw(ParticipationConfig(sample=2), 4, "finetune", number, 3).of(SITES) for number in range(1, 30)],
        [Draw(ParticipationConfig(sample=2), 4, "pretrain", number, 4).of(SITES) for number in range(1, 30)],
    ]
    assert drawn not in others


def test_every_site_is_drawn_as_often_as_any_other() -> None:
    counts = Counter(site for number in range(1, 2001) for site in draw(number, sample=0.5).of(SITES))
    assert sorted(counts) == SITES
    assert all(abs(count - 1000) < 5 * 22.4 for count in counts.values())  # standard deviation sqrt(500)


def test_a_site_that_is_away_changes_its_own_place_only() -> None:
    for number in range(1, 40):
        whole = draw(number, sample=2)
        drawn = whole.of(SITES)
        for away in SITES:
            left = whole.of([site for site in SITES if site != away])
            assert len(left) == 2
            assert left >= drawn - {away}
            assert (left == drawn) == (away not in drawn)


def test_those_that_answered_keep_their_places_in_another_try() -> None:
    whole = draw(sample=2)
    first, second = sorted(whole.of(SITES))
    assert whole.of([site for site in SITES if site != first], answered={first}) == {second}
    rest = [site for site in SITES if site not in (first, second)]
    assert len(whole.of(rest, answered={first})) == 1  # `second` was quarantined: the next one


def test_required_sites_are_always_drawn_and_count_among_the_drawn() -> None:
    for number in range(1, 20):
        assert "hospital_4" in draw(number, sample=2, required=["hospital_4"]).of(SITES)
        assert len(draw(number, sample=2, required=["hospital_4"]).of(SITES)) == 2
    assert draw(sample=1, required=SITES[:3]).of(SITES) == set(SITES[:3])


@pytest.mark.parametrize(
    ("rules", "size", "needed"),
    [
        ({}, 4, 4),
        ({"sample": 1.0, "quorum": 0.5}, 4, 2),
        ({"sample": 0.5}, 2, 2),
        ({"sample": 0.6}, 3, 3),
        ({"sample": 3, "quorum": 0.5}, 3, 2),
        ({"sample": 3, "quorum": 2}, 3, 2),
        ({"sample": 0.01}, 1, 1),
        ({"sample": 1}, 1, 1),
    ],
)
def test_the_quorum_is_of_those_drawn(rules: dict[str, Any], size: int, needed: int) -> None:
    whole = draw(**rules)
    assert (whole.size, whole.needed, len(whole.of(SITES))) == (size, needed, size)
    assert whole.enough(SITES[:needed])
    assert not whole.enough(SITES[: needed - 1])


def test_an_algorithm_that_needs_more_sites_gets_them() -> None:
    whole = Draw(ParticipationConfig(sample=1), 4, "pretrain", 1, 0, least=3)
    assert (whole.size, whole.needed) == (3, 3)


def test_a_one_off_exchange_asks_everyone() -> None:
    everyone = draw(0, sample=2)
    assert (everyone.of(SITES), everyone.needed, everyone.samples) == (frozenset(SITES), 4, False)


def test_a_quorum_above_what_is_drawn_is_refused_when_the_file_is_read() -> None:
    with pytest.raises(ValidationError, match="quorum is 3, but a round draws 2 sites; lower it"):
        ParticipationConfig(sample=2, quorum=3)
    ParticipationConfig(sample=2, quorum=3, required=("a", "b", "c"))
    for wrong in (0, 0.0, 1.5, -1, True, float("nan"), "half"):
        with pytest.raises(ValidationError, match=r"write a share of the sites .* or a number of them"):
            ParticipationConfig.model_validate({"sample": wrong})
    for right in (1, 1.0, 0.5, 3):
        kept = ParticipationConfig.model_validate_json(ParticipationConfig(sample=right).model_dump_json())
        assert (kept.sample, type(kept.sample)) == (right, type(right))  # 1 is one site, 1.0 all of them


# --- whole studies ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hospitals(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(4)


def test_the_drawn_train_and_all_others_are_told_of(study: Study) -> None:
    lines = study.run(participation={"sample": 0.5})
    for phase, rounds in (("pretrain", 3), ("finetune", 2)):
        for number in range(1, rounds + 1):
            drawn = Draw(ParticipationConfig(sample=0.5), 4, phase, number, 0).of(SITES)
            expected = {site: ["asked", "replied"] if site in drawn else ["undrawn"] for site in SITES}
            assert outcomes(lines, phase, number) == expected
    (reason, *_) = [line["reason"] for line in lines if line["outcome"] == "undrawn"]
    assert reason == "not among the 2 sites drawn for this round"
    assert study.asked("train.pretrain") == 6
    assert study.asked("query.statistics") == study.asked("query.prepare") == 4
    report = json.loads((study.folder / "report.json").read_text())
    assert report["participation"]["troubles"] == []
    assert sum(site["undrawn"] for site in report["participation"]["sites"].values()) == 10
    assert len(report["sites"]) == 4  # held-out figures are of all


def scores_of_rounds(study: Study) -> list[bool]:
    """Of each reply in fine-tuning: whether it reports on the weights received."""
    return [
        unpack(reply.content, TrainReply).received is not None
        for reply in study.grid.replies
        if reply.metadata.message_type == "train.finetune"
    ]


def test_tuning_scores_are_of_all_sites_whoever_was_drawn(
    study: Study, hospitals: Path, tmp_path: Path
) -> None:
    """Round 1 of fine-tuning starts from the same weights in both: the score must be the same, too."""
    study.run(rounds=(0, 2), participation={"sample": 1})
    assert study.asked("evaluate.score") == 4 * (2 + 1 + 1)  # both rounds, the last weights, held out
    assert scores_of_rounds(study) == [False, False]  # the drawn site has told its own with the others
    whole = Study(hospitals, tmp_path / "whole")
    whole.run(rounds=(0, 2))
    assert whole.asked("evaluate.score") == 4 * (1 + 1)
    assert scores_of_rounds(whole) == [True] * 8
    first, other = study.metrics("finetune")[0], whole.metrics("finetune")[0]
    assert first["tuning_auroc"] == other["tuning_auroc"]
    assert first["tuning_auprc"] == other["tuning_auprc"]
    assert first["loss"] != other["loss"]


SOME = {"sample": 2, "required": ["hospital_2"]}


@pytest.fixture(scope="module")
def undisturbed(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(hospitals, tmp_path_factory.mktemp("undisturbed") / "run")
    study.run(participation=SOME)
    return study


@pytest.mark.parametrize("messages", [13, 24])  # in pretraining's first round, between fine-tuning's two
def test_a_study_that_goes_on_draws_the_same(messages: int, study: Study, undisturbed: Study) -> None:
    """After a restart the sites of a simulation are strangers until they have said their names."""
    with pytest.raises(Broken):
        study.run(breaks_after(messages), participation=SOME)
    lines = study.run(participation=SOME)
    for phase, rounds in (("pretrain", 3), ("finetune", 2)):
        for number in range(1, rounds + 1):
            told = outcomes(lines, phase, number)
            assert {site for site, words in told.items() if words[-1] == "replied"} == {
                site
                for site, words in outcomes(undisturbed.lines("participation"), phase, number).items()
                if words[-1] == "replied"
            }
            assert told["hospital_2"][-1] == "replied"
    assert study.bits() == undisturbed.bits()


def test_the_next_one_takes_the_place_of_a_site_that_is_away(study: Study) -> None:
    """Node keys are known: the site that is away is named, and the round is complete without it."""
    (study.folder / "sites.json").write_text(json.dumps({str(10 + i): site for i, site in enumerate(SITES)}))
    rules = ParticipationConfig(sample=2)
    away = sorted(Draw(rules, 4, "pretrain", 1, 0).of(SITES))[0]

    def gone(grid: InProcessGrid) -> None:
        grid.away.add(10 + SITES.index(away))

    lines = study.run(None, gone, rounds=(1, 1), participation={"sample": 2, "quorum": 0.75})
    told = outcomes(lines, "pretrain", 1)
    assert told.pop(away) == ["absent"]
    left = Draw(rules, 4, "pretrain", 1, 0).of([site for site in SITES if site != away])
    assert {site for site, words in told.items() if words[-1] == "replied"} == left


def test_more_sites_than_there_are_cannot_be_drawn(study: Study) -> None:
    with pytest.raises(InputFault, match=r"participation\.sample: draws 5 sites of 4"):
        study.run(participation={"sample": 5})
    with pytest.raises(InputFault, match="quorum: needs 3 sites of the 2 that a round draws"):
        study.run(participation={"sample": 0.5, "quorum": 3})


def test_a_round_of_drawn_sites_below_quorum_says_so(study: Study) -> None:
    def never(name: str, reply: Message) -> Message:
        if reply.metadata.message_type != "train.pretrain":
            return reply
        return Message(Error(code=2, reason="out of memory"), reply_to=origin(reply))

    with pytest.raises(
        StudyFailure, match=r"pretrain round 1: 0 of 2 sites drawn gave a usable reply, 2 are"
    ):
        study.run(never, participation={"sample": 2, "attempts": 1, "retries": 0})
