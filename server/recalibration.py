"""Calibration slope and intercept over all sites: a few exchanges of sums, each a step of Newton's method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.recalibration import Fit, Kind, Sums, start_from_cells
from hymate.protocol import Action
from hymate.score_reports import Detail, GroupReport, OwnFit, ScoreReport
from hymate.scoring_protocol import RecalibrateReply, RecalibrateRequest
from server.failure import StudyFailure
from server.run import Finetuned, Run
from server.scoring_phases import scoring

EXCHANGES = 10
"""From the sites' own fits it takes two or three, more where few positives nearly part from the rest; a site
gives sums at most `client.question_limit.MOST_POINTS` times."""


@dataclass(frozen=True)
class Recalibrated:
    """Slope and calibration in the large of some stays over the sites named; None: there is none."""

    sites: tuple[str, ...] = ()
    slope: float | None = None
    slope_error: float | None = None
    intercept: float | None = None
    intercept_error: float | None = None


class Recalibration:
    """The fits of all stays ("") and of every group told, on their way."""

    def __init__(self, reports: Mapping[str, ScoreReport], least: int = 1) -> None:
        """Args: least: fewest positives and negatives of a group that is fitted."""
        told: dict[str, list[ScoreReport | GroupReport]] = {"": []}
        for report in reports.values():
            if report.cells is not None:
                told[""].append(report)
            for name, group in report.groups.items():
                told.setdefault(name, []).append(group)
        self._fits = {
            name: (_start(of, "slope"), _start(of, "intercept"))
            for name, of in told.items()
            if name == "" or _fewest(of) >= least
        }
        self._sites: dict[str, tuple[str, ...]] = {}

    @property
    def points(self) -> dict[str, list[tuple[float, float]]]:
        """Where sums are wanted next; empty: all fits have ended."""
        return {
            name: [fit.point for fit in fits]
            for name, fits in self._fits.items()
            if any(fit.state == "going" for fit in fits)
        }

    def step(self, replies: Sequence[RecalibrateReply]) -> None:
        """Take the sites' sums at `points` into account."""
        for name in self.points:
            told = {reply.site: reply.sums[name] for reply in replies if name in reply.sums}
            fits = self._fits[name]
            if tuple(told) != self._sites.setdefault(name, tuple(told)):
                # Of other sites than before: likelihoods do not compare.
                fits = tuple(replace(fit, likelihood=float("-inf")) for fit in fits)  # type: ignore[assignment]
                self._sites[name] = tuple(told)
            slope, level = (
                fit.after(sum((_sums(of[i]) for of in told.values()), start=_NOTHING))
                if told
                else replace(fit, state="none")
                for i, fit in enumerate(fits)
            )
            self._fits[name] = (slope, level)

    @property
    def found(self) -> dict[str, Recalibrated]:
        """What has come to its end; None for the rest."""
        return {
            name: Recalibrated(
                self._sites.get(name, ()),
                slope.value,
                slope.standard_error if slope.value is not None else None,
                level.value,
                level.standard_error if level.value is not None else None,
            )
            for name, (slope, level) in self._fits.items()
        }


def recalibrate(
    run: Run, vocabulary: Vocabulary, tuned: Finetuned, detail: Detail, reports: Mapping[str, ScoreReport]
) -> dict[str, Recalibrated]:
    """The fits over the held-out stays that `reports` are of.

    Where too few sites answer, the study ends without slopes rather than without a report. Where sites'
    reports are summed, or noised, there is none: a site's sums would tell of it alone, and exactly.
    """
    if not run.study.tells_sums_of_rows:
        return {}
    saved = run.checkpoints.latest("recalibrate")
    if saved is not None:
        return {
            name: Recalibrated(**{**facts, "sites": tuple(facts["sites"])})
            for name, facts in saved.facts.items()
        }
    fitting = Recalibration(reports, run.study.evaluation.min_group)
    for _ in range(EXCHANGES):
        points = fitting.points
        if not points:
            break
        request = RecalibrateRequest(
            **scoring(run, vocabulary, "held_out", tuned.best_round, detail), points=points
        )
        try:
            replies = run.federation.ask(Action.RECALIBRATE, request, RecalibrateReply, tuned.weights)
        except StudyFailure as failure:
            run.journal.metric("evaluate", "note", text=f"no calibration slope: {failure}")
            break
        fitting.step([reply.record for reply in replies])
    found = fitting.found
    run.complete("recalibrate", 0, {name: asdict(fit) for name, fit in found.items()})
    return found


_NOTHING = Sums(0.0, (0.0, 0.0), (0.0, 0.0, 0.0))


def _fewest(reports: Sequence[ScoreReport | GroupReport]) -> int:
    """Stays of the smaller class."""
    positives = sum(report.positives or 0 for report in reports)
    return min(positives, sum(report.n or 0 for report in reports) - positives)


def _start(reports: Sequence[ScoreReport | GroupReport], kind: Kind) -> Fit:
    """Where the fit of these stays begins: at the mean of the sites' own, by how sure they are; from the
    cells where no site has one."""
    fit = start_from_cells([report.cells.arrays() for report in reports if report.cells is not None], kind)
    weighted = [
        (point, 1 / error**2)
        for report in reports
        if (own := report.own_fit) is not None
        and (error := own.slope_error if kind == "slope" else own.intercept_error)
        and (point := _point(own, kind)) is not None
    ]
    total = sum(weight for _, weight in weighted)
    if fit.state == "none" or not total:
        return fit
    a, b = (sum(point[i] * weight for point, weight in weighted) / total for i in (0, 1))
    return Fit(kind, (a, b))


def _point(own: OwnFit, kind: Kind) -> tuple[float, float] | None:
    if kind == "intercept":
        return None if own.intercept is None else (own.intercept, 1.0)
    return None if own.slope is None or own.level is None else (own.level, own.slope)


def _sums(of: tuple[float, float, float, float, float, float]) -> Sums:
    return Sums(of[0], (of[1], of[2]), (of[3], of[4], of[5]))
