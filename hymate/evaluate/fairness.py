"""Whether a model serves some groups worse: figures by group, gaps between groups, each against the others.

A *gap* is the largest less the smallest figure among an attribute's groups, as in fairlearn's
`MetricFrame.difference()`; choosing the extremes makes it too large by chance, so its interval holds for
all pairs of groups together (Bonferroni). *Against the others* compares one group with everyone in the
attribute's other groups; these comparisons are the tests, adjusted for their number (Holm).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from hymate.evaluate.cell_bootstrap import DRAWS
from hymate.evaluate.differences import Comparison, difference, holm, ratio
from hymate.evaluate.estimates import Estimate
from hymate.evaluate.federated import AT_THRESHOLD, Fitted, Grid, Part, figures

GAPS = ("auroc", *AT_THRESHOLD, "base_rate", "brier", "observed_to_expected", "calibration_slope")
"""Figures that are compared between groups."""
TESTED = ("auroc", "tpr", "fpr", "ppv", "observed_to_expected")
"""Figures whose comparisons with the others are tests, counted for the adjustment."""

Figures = Mapping[str, Estimate | None]


@dataclass(frozen=True)
class Gap:
    """Highest less lowest figure among groups, and lowest over highest."""

    highest: str
    lowest: str
    difference: Comparison
    ratio: Comparison | None


@dataclass(frozen=True)
class AttributeFairness:
    """All of one attribute: figures by group, gaps by figure, comparisons by group and figure."""

    groups: Mapping[str, Figures]
    gaps: Mapping[str, Gap]
    against_others: Mapping[str, Mapping[str, Comparison]]


def attribute_fairness(
    parts: Mapping[str, Sequence[Part]],
    grid: Grid,
    fitted: Mapping[str, Fitted],
    least: int = 1,
    draws: int = DRAWS,
) -> AttributeFairness:
    """Figures, gaps and comparisons of an attribute's groups.

    Args:
        parts: of every site that told the group, by group.
        fitted: recalibration by group.
        least: fewest positives and negatives of a group with figures; a smaller one is among the others.
        draws: of the bootstrap (see `figures`).
    """
    told = {
        name: figures(of if enough(of, least) else [], grid, fitted.get(name, Fitted()), draws=draws)
        for name, of in parts.items()
    }
    against = {}
    for name in parts:
        others = [part for other, of in parts.items() if other != name for part in of]
        beside = figures(others if enough(others, least) else [], grid, Fitted(), draws=0)
        if len(parts) == 2 and enough(
            others, least
        ):  # then the other group is the others, and its fit theirs
            beside = told[next(other for other in parts if other != name)]
        against[name] = {
            figure: found
            for figure in GAPS
            if (found := _difference(told[name].get(figure), beside.get(figure))) is not None
        }
    return AttributeFairness(told, gaps(told), against)


def enough(parts: Sequence[Part], least: int) -> bool:
    """Whether there are `least` positives and as many negatives."""
    positives = sum(part.positives for part in parts)
    return min(positives, sum(part.n for part in parts) - positives) >= least


def gaps(groups: Mapping[str, Figures]) -> dict[str, Gap]:
    """The gap in each of `GAPS` that at least two groups have."""
    found = {}
    for figure in GAPS:
        known = {name: of[figure] for name, of in groups.items() if of.get(figure) is not None}
        having = {name: estimate for name, estimate in known.items() if estimate is not None}
        if len(having) < 2:
            continue
        highest = max(having, key=lambda name: having[name].value)
        lowest = min(having, key=lambda name: having[name].value)
        pairs = len(having) * (len(having) - 1) // 2
        apart = difference(having[highest], having[lowest], pairs)
        if apart is not None:
            found[figure] = Gap(
                highest,
                lowest,
                replace(apart, p=None),
                ratio(having[lowest], having[highest], pairs),
            )
    return found


def adjusted(attributes: Mapping[str, AttributeFairness]) -> tuple[dict[str, AttributeFairness], int]:
    """The same with adjusted p-values, and how many tests there were.

    With two groups the one's comparison is the other's with its sign turned: one test.
    """
    p_values: dict[tuple[str, str, str], float] = {}
    for label, attribute in attributes.items():
        names = list(attribute.against_others)
        for name in names[:1] if len(names) == 2 else names:
            for figure, comparison in attribute.against_others[name].items():
                if figure in TESTED and comparison.p is not None:
                    p_values[label, name, figure] = comparison.p
    corrected = holm(p_values)
    done = {}
    for label, attribute in attributes.items():
        first = next(iter(attribute.against_others), "")
        mirrored = len(attribute.against_others) == 2
        against = {
            name: {
                figure: replace(
                    comparison, p_adjusted=corrected.get((label, first if mirrored else name, figure))
                )
                for figure, comparison in comparisons.items()
            }
            for name, comparisons in attribute.against_others.items()
        }
        done[label] = replace(attribute, against_others=against)
    return done, len(p_values)


def _difference(a: Estimate | None, b: Estimate | None) -> Comparison | None:
    return None if a is None or b is None else difference(a, b)
