"""The section `fairness` of report.json: figures by group, gaps, and what of them lies within sites."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from hymate.evaluate.differences import mean_difference
from hymate.evaluate.fairness import TESTED, AttributeFairness, Gap, adjusted, attribute_fairness, enough
from hymate.evaluate.federated import Part, undefined
from hymate.evaluate.group_members import BETWEEN
from hymate.score_reports import Detail, GroupReport, ScoreReport
from server.recalibration import Recalibrated
from server.report.performance import across_sites, fitted_of, grid_of, part_of, told

MULTIPLICITY = (
    "p_adjusted is Holm's over all tests of this section ({tests}: each group against the others, "
    "{figures}); intervals of gaps hold for all pairs of an attribute's groups together, other "
    "intervals one at a time"
)


def fairness_section(
    reports: Mapping[str, ScoreReport],
    detail: Detail,
    recalibrated: Mapping[str, Recalibrated],
    min_group: int,
    seed: int,
) -> dict[str, Any] | None:
    """JSON-ready; None where the study names no groups."""
    if not detail.groups:
        return None
    grid = grid_of(detail, seed)
    labels = [attribute.label for attribute in detail.groups]
    labels += [BETWEEN.join(pair) for pair in detail.pairs]
    by_site = {label: _of_attribute(reports, label) for label in labels}
    parts = {label: _parts(of) for label, of in by_site.items()}
    fitted = {name: fitted_of(found) for name, found in recalibrated.items()}
    found, tests = adjusted(
        {label: attribute_fairness(of, grid, fitted, min_group) for label, of in parts.items()}
    )
    return {
        "min_group": min_group,
        "attributes": {
            label: _attribute(
                found[label], parts[label], by_site[label], reports, recalibrated, label, min_group
            )
            for label in labels
        },
        "tests": tests,
        "multiplicity": MULTIPLICITY.format(tests=tests, figures=", ".join(TESTED)),
    }


def attribute_of(group: str) -> str:
    """The attribute's label, or the pair's, of a group's name."""
    return BETWEEN.join(part.split("//", 1)[0] for part in group.split(BETWEEN))


def _of_attribute(reports: Mapping[str, ScoreReport], label: str) -> dict[str, dict[str, GroupReport]]:
    """Group -> site -> report, groups in the order of names, bands of a number in that of the number."""
    found: dict[str, dict[str, GroupReport]] = {}
    for site, report in reports.items():
        for name, group in report.groups.items():
            if attribute_of(name) == label:
                found.setdefault(name, {})[site] = group
    return dict(sorted(found.items(), key=lambda named: [_rank(part) for part in named[0].split(BETWEEN)]))


def _rank(group: str) -> tuple[float, str]:
    """Where a group stands among those of its attribute.

    >>> sorted(["AGE//65+", "AGE//9-<65", "AGE//<9"], key=_rank)
    ['AGE//<9', 'AGE//9-<65', 'AGE//65+']
    """
    value = group.split("//", 1)[-1]
    begins = re.match(r"-?\d+(\.\d+)?(e[+-]?\d+)?", value)
    return (-math.inf if value.startswith("<") else float(begins[0]) if begins else 0.0), value


def _parts(groups: Mapping[str, Mapping[str, GroupReport]]) -> dict[str, list[Part]]:
    return {
        name: [part for report in of.values() if (part := part_of(report)) is not None]
        for name, of in groups.items()
    }


def _attribute(
    fairness: AttributeFairness,
    parts: Mapping[str, list[Part]],
    by_site: Mapping[str, Mapping[str, GroupReport]],
    reports: Mapping[str, ScoreReport],
    recalibrated: Mapping[str, Recalibrated],
    label: str,
    min_group: int,
) -> dict[str, Any]:
    held_back = {
        site: kept
        for site, report in reports.items()
        if (kept := [name for name in report.held_back if attribute_of(name) == label])
    }
    return {
        "groups": {
            name: {
                "n": sum(part.n for part in parts[name]),
                "positives": sum(part.positives for part in parts[name]),
                "sites": sorted(by_site[name]),
                "recalibration_sites": len(recalibrated.get(name, Recalibrated()).sites),
                "figures": told(of),
                "note": undefined(parts[name]) or _small(parts[name], min_group),
                "across_sites": across_sites(parts[name]),
            }
            for name, of in fairness.groups.items()
        },
        "gaps": {figure: _gap(gap) for figure, gap in fairness.gaps.items()},
        "against_others": {
            name: {figure: comparison.to_json() for figure, comparison in of.items()}
            for name, of in fairness.against_others.items()
        },
        "within_sites": {name: _within(of) for name, of in by_site.items()},
        "held_back": held_back,
    }


def _small(parts: list[Part], min_group: int) -> str:
    if enough(parts, min_group):
        return ""
    return f"fewer than {min_group} positives or negatives over all sites"


def _gap(gap: Gap) -> dict[str, Any]:
    return {
        "highest": gap.highest,
        "lowest": gap.lowest,
        "difference": gap.difference.to_json(),
        "ratio": None if gap.ratio is None else gap.ratio.to_json(),
    }


def _within(sites: Mapping[str, GroupReport]) -> dict[str, Any]:
    """The group's exact AUROC less that of all others of the same hospital, by site and over sites.

    Patients are compared with patients of their own hospital only: a gap that is one between hospitals does
    not show here.
    """
    differences = {
        site: (report.auroc - report.others_auroc, report.auroc_variance + report.others_variance)
        for site, report in sites.items()
        if report.auroc is not None
        and report.auroc_variance is not None
        and report.others_auroc is not None
        and report.others_variance is not None
    }
    mean = mean_difference(list(differences.values()))
    return {
        "auroc": {
            "sites": {
                site: (one.to_json() if (one := mean_difference([each])) is not None else None)
                for site, each in differences.items()
            },
            "mean": None if mean is None else mean.to_json(),
        }
    }
