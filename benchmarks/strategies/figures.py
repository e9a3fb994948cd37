"""What a finished run came to, out of its run directory: figures.json."""

from __future__ import annotations

import json
import statistics
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from benchmarks.strategies.processor_time import ProcessorTime
from hymate.config import Frozen
from hymate.protocol import Action, AloneReply
from hymate.score_reports import ScoreReport
from server.checkpoint import Checkpoints
from server.journal import METRICS, PARTICIPATION
from server.pooled import pooled_figures

SHARE_OF_BEST = 0.99


class SiteFigures(Frozen):
    """One site's held-out stays."""

    stays: int
    positives: int | None = None
    auroc: float | None = None


class Scores(Frozen):
    """Models on the held-out stays of some sites: each site's own, or one for all."""

    sites: dict[str, SiteFigures]
    auroc: float | None = None
    """Of all these stays together."""
    average_precision: float | None = None

    @property
    def known(self) -> dict[str, float]:
        """AUROC of the sites that have one."""
        return {name: site.auroc for name, site in self.sites.items() if site.auroc is not None}

    @property
    def worst(self) -> float | None:
        return min(self.known.values(), default=None)

    @property
    def spread(self) -> float | None:
        """Standard deviation over the sites, all of which there are."""
        return statistics.pstdev(self.known.values()) if self.known else None


class Figures(Frozen):
    """Of one run."""

    held_out: Scores | None = None
    """None where the study failed."""
    alone: Scores | None = None
    """Each site's own model, where the run trained them."""
    failed: str = ""
    """Why the study could not go on, under an attack; else that is no figure but a fault."""
    criteria: tuple[float | None, ...] = ()
    """AUROC + average precision on the tuning stays, before fine-tuning and after each round of it."""
    sites: int = 0
    bytes_up: int = 0
    """Of the arrays that came from all sites in fine-tuning."""
    quarantined: int = 0
    """Updates of fine-tuning that were not folded."""
    seconds: float = 0.0
    """Processor seconds of fine-tuning, all sites together, the tuning stays' scores among them."""

    @property
    def best_criterion(self) -> float | None:
        return max((each for each in self.criteria if each is not None), default=None)

    @property
    def rounds(self) -> int:
        return max(0, len(self.criteria) - 1)

    @property
    def megabytes_a_site_and_round(self) -> float | None:
        messages = self.sites * self.rounds
        return self.bytes_up / 1e6 / messages if messages else None

    @property
    def rounds_to_best(self) -> int | None:
        """The first round after which the criterion was within 1 % of the best there was."""
        best = self.best_criterion
        if best is None:
            return None
        enough = SHARE_OF_BEST * best
        return next(
            number for number, each in enumerate(self.criteria) if each is not None and each >= enough
        )


def scores_of(reports: Mapping[str, ScoreReport], without: Collection[str] = ()) -> Scores:
    """The figures of these reports, apart from those of the sites named."""
    kept = {name: report for name, report in sorted(reports.items()) if name not in without}
    pooled = pooled_figures(list(kept.values()))
    return Scores(
        sites={
            name: SiteFigures(stays=report.n or 0, positives=report.positives, auroc=report.auroc)
            for name, report in kept.items()
        },
        auroc=None if pooled.auroc is None else pooled.auroc.estimate,
        average_precision=None if pooled.auprc is None else pooled.auprc.estimate,
    )


def figures_of(run: Path, without: Collection[str] = (), failed: str = "") -> Figures:
    """Figures of a study that has finished in `run`, or has `failed`; `without`: sites that mean harm."""
    checkpoints = Checkpoints(run)
    evaluated, alone = checkpoints.latest("evaluate"), checkpoints.latest("alone")
    rounds = [line for line in _lines(run / METRICS) if line["phase"] == "finetune"]
    trained = [line for line in rounds if line["event"] == "round"]
    scored = [*trained, *(line for line in rounds if line["event"] == "last")]
    told = [line for line in _lines(run / PARTICIPATION) if line["phase"] == "finetune"]
    return Figures(
        held_out=None
        if failed or evaluated is None
        else scores_of(
            {site: ScoreReport.model_validate(report) for site, report in evaluated.facts.items()}, without
        ),
        alone=None
        if alone is None
        else scores_of(
            {site: AloneReply.model_validate(reply).held_out for site, reply in alone.facts.items()}, without
        ),
        failed=failed,
        criteria=tuple(_criterion(line) for line in scored),
        sites=len({line["site"] for line in told if line["outcome"] == "replied"}),
        bytes_up=sum(line["bytes_up"] for line in trained),
        quarantined=sum(line["outcome"] == "quarantined" for line in told),
        seconds=ProcessorTime(run).on(Action.FINETUNE),
    )


def _criterion(line: Mapping[str, Any]) -> float | None:
    auroc, precision = line["tuning_auroc"], line["tuning_auprc"]
    return None if auroc is None or precision is None else auroc + precision


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
