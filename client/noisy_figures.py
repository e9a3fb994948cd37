"""How well a model does, said with noise: charged to the site's ledger first, the same bits when asked again.

Nothing here depends on the exact counts but what noise was added to: not whether there is a report, not which
groups it names.
"""

from __future__ import annotations

import numpy as np

from client.agreed import fingerprint_of
from client.evaluation import arrays_of, rows_of
from client.ledger_entry import Entry, machine_of, start_of
from client.noisy_queries import charged
from client.policy import publishable
from client.site import Policy, SiteConfig
from hymate.data.store import TripletStore
from hymate.evaluate.edges import first_edges
from hymate.evaluate.group_members import Members, crossed, members, without_several
from hymate.evaluate.histograms import ScoreCells, auroc, average_precision, join_small_cells
from hymate.evaluate.noisy_cells import (
    Counts,
    agreed_begins,
    cells_of,
    first_begins,
    middles,
    noised,
    norm,
    people,
    sums_of,
)
from hymate.model.hymate import HyMaTE
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.protocol import FinetuneRequest
from hymate.score_reports import Cells, Detail, GroupReport, ScoreReport
from hymate.scoring_protocol import EvaluateRequest
from hymate.train.scoring import score


def noisy_report(
    site: SiteConfig,
    request: FinetuneRequest | EvaluateRequest,
    split: str,
    multiplier: float,
    model: HyMaTE,
    store: TripletStore,
) -> ScoreReport:
    """What noise of this multiplier lets say of a split under the model; a number of people below the site's
    minimum is not told, noise or not.

    Raises:
        InputFault: the site's budget or its ledger does not allow it.
    """
    draw = charged(
        site,
        Entry(
            study=request.study,
            run=request.run,
            phase=split,
            round=request.round,
            start=start_of(site, request, arrays_of(model), machine=machine_of()),
            vocabulary_hash=request.vocabulary_hash,
            dataset=fingerprint_of(site, request.task),
            spend=Spend(SAMPLED_GAUSSIAN, 1.0, multiplier, 1),
        ),
    )
    detail = request.detail if isinstance(request, EvaluateRequest) else None
    rows = rows_of(store, split)
    groups = [] if detail is None else _groups(store, rows, detail)
    labels = store.label[rows].astype(np.float64)
    scale = _Scale(detail)
    exact = people(
        scale.begins,
        np.searchsorted(scale.edges, score(model, store, rows), side="right"),
        labels,
        store.subject_id[rows],
        [(of.group, len(of.names)) for of in groups],
    )
    deviation = multiplier * norm(len(groups))
    whole, *tables = noised(exact, deviation, draw)
    names = [name for of in groups for name in of.names]
    told = {name: scale.told(table, site.policy) for name, table in zip(names, tables, strict=True)}
    large = {name: cells for name, cells in told.items() if cells is not None and len(cells.low)}
    return scale.report(whole, site.policy, deviation).model_copy(
        update={
            "groups": {name: _group(cells, deviation) for name, cells in large.items()},
            "held_back": tuple(name for name in names if name not in large),
        }
    )


class _Scale:
    """Where the cells of a report begin, on the first edges or on agreed ones."""

    def __init__(self, detail: Detail | None) -> None:
        self.edges = first_edges() if detail is None else np.array(detail.edges)
        threshold = None if detail is None else detail.threshold
        at = None if threshold is None else int(np.searchsorted(self.edges, threshold, side="right"))
        self.begins = first_begins() if detail is None else agreed_begins(len(self.edges) + 1, at)
        self._barriers = [] if at is None else [at]

    def told(self, table: Counts, policy: Policy) -> ScoreCells | None:
        """The table's cells, joined to the site's minimum; None where even one would be below it."""
        cells = cells_of(table, self.begins, len(self.edges) + 1, middles(self.begins, self.edges))
        return join_small_cells(cells, policy.min_cell, self._barriers)

    def report(self, table: Counts, policy: Policy, deviation: float) -> ScoreReport:
        """What follows from the whole's table."""
        cells = self.told(table, policy)
        if cells is None:
            n = publishable(int(table.sum()), policy)
            return ScoreReport(n=n, positives=None, deviation=deviation)
        ranked, precise = (
            figure(cells, len(self.edges) + 1) if cells.total_positives and cells.total_negatives else None
            for figure in (auroc, average_precision)
        )
        return ScoreReport(
            n=cells.total_positives + cells.total_negatives,
            positives=cells.total_positives,
            auroc=None if ranked is None else ranked.estimate,
            auprc=None if precise is None else precise.estimate,
            cells=Cells.of(cells, sums=True),
            deviation=deviation,
            **sums_of(cells),
        )


def _groups(store: TripletStore, rows: Counts, detail: Detail) -> list[Members]:
    """Those of each attribute, then of each pair."""
    single = {of.label: without_several(members(store, rows, of)) for of in detail.groups}
    return [*single.values(), *(crossed(single[first], single[second]) for first, second in detail.pairs)]


def _group(cells: ScoreCells, deviation: float) -> GroupReport:
    return GroupReport(
        n=cells.total_positives + cells.total_negatives,
        positives=cells.total_positives,
        cells=Cells.of(cells, sums=True),
        deviation=deviation,
        **sums_of(cells),
    )
