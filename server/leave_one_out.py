"""Each site left out in turn: the study trained without it, and tested on it.

Nothing of the site enters: the vocabulary, its scaling, the weight of positives, early stopping, the edges
and the operating point come from the others alone. Each such run lies in `without/SITE/` of the run
directory, has its own identity at the sites, and goes on after a crash like the study itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

from hymate.data.statistics import SiteStatistics
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.joining_protocol import PrepareReply
from hymate.protocol import Action
from hymate.score_reports import Detail, ScoreReport
from hymate.scoring_protocol import EvaluateReply, EvaluateRequest, KeptScores
from server.detail import agreed_detail
from server.failure import StudyFailure
from server.phases import agree_vocabulary, preparation
from server.rounds import Federation
from server.run import Finetuned, Run, open_run
from server.scoring_phases import without_groups
from server.study import StudyConfig
from server.training_phases import train

FOLDER = "without"


@dataclass(frozen=True)
class Tested:
    """How a model does at a site that took no part in it."""

    held_out: ScoreReport
    development: ScoreReport
    """Its training and tuning stays: no model saw them, and there are more of them."""
    detail: Detail
    """What both reports have in common."""
    prepared: PrepareReply
    vocabulary: Vocabulary
    trained_on: tuple[str, ...]
    tuned: Finetuned
    seconds: float


@dataclass(frozen=True)
class LeftOut:
    """The sites that were left out, and why some of them could not be."""

    tested: Mapping[str, Tested]
    gaps: Mapping[str, str]


def leave_each_out(run: Run, statistics: Mapping[str, SiteStatistics]) -> LeftOut:
    """Train without each site of the study and test on it.

    A site or a training that fails is a gap in the result; the study goes on to its report.

    Args:
        statistics: what the sites told of their codes.
    """
    tested: dict[str, Tested] = {}
    gaps: dict[str, str] = {}
    saved = run.checkpoints.latest("left_out")
    done = saved.number if saved else 0
    for number, site in enumerate(statistics, start=1):
        if number > done:
            run.journal.metric("left_out", "site", site=site)
        try:
            tested[site] = leave_out(run, site, statistics)
        except (StudyFailure, InputFault) as fault:
            gaps[site] = str(fault)
            run.journal.metric("left_out", "note", text=f"no model without {site}: {fault}")
        if number > done:
            run.complete("left_out", number)
    return LeftOut(tested, gaps)


def leave_out(run: Run, site: str, statistics: Mapping[str, SiteStatistics]) -> Tested:
    """Train without this site and test on it."""
    others = {name: told for name, told in statistics.items() if name != site}
    folder = run.folder / FOLDER / site
    folder.mkdir(parents=True, exist_ok=True)
    inner = open_run(
        study_among(run.study, len(others)),
        folder,
        lambda journal: run.federation.among(others, journal),
        id=f"{run.id}-{hashlib.sha256(site.encode()).hexdigest()[:8]}",
        left_out=site,
    )
    try:
        inner.begin("vocabulary")
        vocabulary = agree_vocabulary(inner, others).vocabulary
        tuned = train(inner, vocabulary).tuned
        inner.begin("evaluate")
        return _test(run, inner, vocabulary, tuned, tuple(others))
    finally:
        inner.journal.close()


def study_among(study: StudyConfig, sites: int) -> StudyConfig:
    """The study of so many sites: a code that all sites had to have is one that these have."""
    rules = study.vocabulary
    fewer = rules.model_copy(update={"min_sites": min(rules.min_sites, sites)})
    return study.model_copy(update={"vocabulary": fewer})


def _test(
    run: Run, inner: Run, vocabulary: Vocabulary, tuned: Finetuned, trained_on: tuple[str, ...]
) -> Tested:
    site = inner.left_out
    detail = without_groups(agreed_detail(inner.study, tuned.tuning))
    saved = inner.checkpoints.latest("evaluate")
    if saved is None:
        alone = run.federation.among([site], inner.journal)
        alone.freeze(preparation(inner.study, vocabulary))
        reports = {split: _report(run, inner, alone, vocabulary, tuned, detail, split) for split in SPLITS}
        prepared = alone.prepared[site]
        inner.complete(
            "evaluate",
            0,
            {
                **{split: report.model_dump(mode="json") for split, report in reports.items()},
                "prepared": prepared.model_dump(mode="json"),
            },
        )
    else:
        reports = {split: ScoreReport.model_validate(saved.facts[split]) for split in SPLITS}
        prepared = PrepareReply.model_validate(saved.facts["prepared"])
    return Tested(
        held_out=reports["held_out"],
        development=reports["development"],
        detail=detail,
        prepared=prepared,
        vocabulary=vocabulary,
        trained_on=trained_on,
        tuned=tuned,
        seconds=inner.clock.seconds["total"],
    )


SPLITS = ("held_out", "development")


def _report(
    run: Run,
    inner: Run,
    alone: Federation,
    vocabulary: Vocabulary,
    tuned: Finetuned,
    detail: Detail,
    split: str,
) -> ScoreReport:
    request = EvaluateRequest.model_validate(
        {
            **inner.training(vocabulary),
            "split": split,
            "detail": detail,
            # Under the study's own run, where the scores of the models it is compared with are kept.
            "keep": KeptScores(run=run.id, kind="left_out") if split == "held_out" else None,
        }
    )
    (reply,) = alone.ask(Action.EVALUATE, request, EvaluateReply, tuned.weights)
    return reply.record.report
