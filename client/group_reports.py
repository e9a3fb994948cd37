"""What a site says of groups of its patients: of large ones, and of none that gives a small one away."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from client.site import Policy
from hymate.data.store import TripletStore
from hymate.evaluate.delong import auroc_and_variance
from hymate.evaluate.edges import TENTHS
from hymate.evaluate.group_cells import Scored, ToldGroups, one_attribute, two_attributes
from hymate.evaluate.group_members import members
from hymate.evaluate.merging import large_enough
from hymate.evaluate.metrics import sums_over
from hymate.evaluate.recalibration import fit_rows
from hymate.score_reports import Cells, Detail, GroupReport, OwnFit


@dataclass
class Groups:
    """Groups told, by name: their reports and who they are, (n,); names of those held back."""

    reports: dict[str, GroupReport] = field(default_factory=dict)
    members: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    held_back: list[str] = field(default_factory=list)


def barriers(detail: Detail) -> list[int]:
    """Bins at which a cell should begin, the operating point first, then the reliability table's tenths."""
    wanted = [*([] if detail.threshold is None else [detail.threshold]), *TENTHS]
    return [int(np.searchsorted(detail.edges, edge, side="right")) for edge in wanted if edge in detail.edges]


def told_groups(
    scored: Scored, store: TripletStore, rows: NDArray[np.int64], policy: Policy, detail: Detail
) -> Groups:
    """The groups of the study's attributes, and of the pairs it names."""
    apart, subjects = barriers(detail), store.subject_id[rows]
    found = Groups()
    single: dict[str, ToldGroups] = {}
    for attribute in detail.groups:
        told = one_attribute(scored, members(store, rows, attribute), policy.min_cell, apart)
        single[attribute.label] = told
        _add(found, scored, subjects, told, policy)
    for first, second in detail.pairs:
        told = two_attributes(scored, single[first], single[second], policy.min_cell, apart)
        _add(found, scored, subjects, told, policy)
    return found


def _add(
    found: Groups, scored: Scored, subjects: NDArray[np.int64], told: ToldGroups, policy: Policy
) -> None:
    for group in told.told:
        name, here = told.members.names[group], told.members.group == group
        found.members[name] = here
        found.reports[name] = _report(scored, subjects, here, told, group, policy)
    found.held_back += told.held_back


def _report(
    scored: Scored,
    subjects: NDArray[np.int64],
    here: NDArray[np.bool_],
    told: ToldGroups,
    group: int,
    policy: Policy,
) -> GroupReport:
    labels, scores = scored.labels[here], scored.scores[here]
    own = auroc_and_variance(labels, scores, subjects[here])
    positives = int(labels.sum())
    beside = scored.total - np.array([positives, len(labels) - positives])
    others = (
        auroc_and_variance(scored.labels[~here], scored.scores[~here], subjects[~here])
        if large_enough(beside, policy.min_cell)
        else None
    )
    return GroupReport(
        n=len(labels),
        positives=positives,
        auroc=None if own is None else own[0],
        auroc_variance=None if own is None else own[1],
        others_auroc=None if others is None else others[0],
        others_variance=None if others is None else others[1],
        own_fit=own_fit(labels, scores),
        cells=Cells.of(told.cells(scored, group), sums=True),
        **sums_over(labels, scores),
    )


def own_fit(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> OwnFit:
    """The recalibration of these stays by themselves."""
    sloped, level = fit_rows(labels, scores, "slope"), fit_rows(labels, scores, "intercept")
    return OwnFit(
        slope=sloped.value,
        level=None if sloped.value is None else sloped.point[0],
        slope_error=sloped.standard_error,
        intercept=level.value,
        intercept_error=level.standard_error,
    )
