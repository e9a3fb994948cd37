"""The part `drift` of the report: how each site's patients differ from those of all other sites together.

All of it is of what the sites said when the study began: descriptions and code statistics. Numbers of people
are rounded down to multiples of a site's `min_cell`, shares with them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hymate.data.statistics import CodeStatistics, SiteStatistics, merge_statistics
from hymate.data.units import in_agreed_units
from hymate.data.vocabulary import Vocabulary
from hymate.evaluate.differences import difference
from hymate.evaluate.drift import LARGE, share_difference, standardised_difference
from hymate.evaluate.estimates import Estimate, share_between
from hymate.joining_protocol import SiteDescription

SHOWN = 5
"""Codes named in a site's summary."""


def drift_section(
    descriptions: Sequence[SiteDescription], statistics: Mapping[str, SiteStatistics], vocabulary: Vocabulary
) -> dict[str, Any]:
    """By site, JSON-ready; a code that a site keeps at home, or nobody else has, is compared with nothing."""
    agreed = in_agreed_units(statistics, vocabulary.units)
    labels = {description.site: _labels(description) for description in descriptions}
    return {
        site: {
            "label_rate": _label_rate(site, labels),
            **_codes(
                agreed[site],
                merge_statistics([told for name, told in agreed.items() if name != site]),
                vocabulary,
            ),
        }
        for site in agreed
        if site in labels
    }


def _labels(description: SiteDescription) -> tuple[int, int] | None:
    """Positives and stays of all splits; None where one of them may not be told."""
    counts = [
        (split.positives, split.stays) for split in description.splits.values() if split.positives is not None
    ]
    if len(counts) < len(description.splits):
        return None
    return sum(positives for positives, _ in counts), sum(stays or 0 for _, stays in counts)


def _label_rate(site: str, labels: Mapping[str, tuple[int, int] | None]) -> dict[str, Any]:
    own = labels[site]
    others = [each for name, each in labels.items() if name != site and each is not None]
    here = None if own is None else _rate(*own)
    there = _rate(sum(p for p, _ in others), sum(n for _, n in others))
    apart = None if here is None or there is None else difference(here, there)
    return {
        "n": None if own is None else own[1],
        "positives": None if own is None else own[0],
        "rate": None if here is None else here.to_json(),
        "difference": None if apart is None else apart.to_json(),
        "note": "a split with fewer positives than the site's minimum" if own is None else "",
    }


def _rate(positives: int, stays: int) -> Estimate | None:
    return share_between(positives, positives, positives, stays)


def _codes(here: SiteStatistics, others: SiteStatistics, vocabulary: Vocabulary) -> dict[str, Any]:
    found = []
    for entries, group in ((vocabulary.codes, "dynamic"), (vocabulary.static, "static")):
        own, theirs = ({code.code: code for code in getattr(each, group)} for each in (here, others))
        for entry in entries:
            compared = _code(
                own.get(entry.code), theirs.get(entry.code), here, others, static=group == "static"
            )
            found.append({"code": entry.code, "static": group == "static", "unit": entry.unit, **compared})
    found.sort(key=lambda code: -abs(code["smd"]["value"]) if code["smd"] else 0.0)
    compared_codes = [code for code in found if code["smd"] is not None]
    large = [code for code in compared_codes if abs(code["smd"]["value"]) >= LARGE]
    missing = [code["code"] for code in found if code["share"] is None]
    return {
        "coverage": {
            "codes": len(found) - len(missing),
            "of": len(found),
            "share": (len(found) - len(missing)) / len(found),
            "missing": sorted(missing),
        },
        "codes": found,
        "summary": {
            "compared": len(compared_codes),
            "large": len(large),
            "largest": [code["code"] for code in large[:SHOWN]],
        },
    }


def _code(
    here: CodeStatistics | None,
    others: CodeStatistics | None,
    site: SiteStatistics,
    rest: SiteStatistics,
    *,
    static: bool,
) -> dict[str, Any]:
    """One code here and at all others; of values where there are enough, else of shares of people."""
    apart, of = None, None
    if here is not None and others is not None:
        apart, of = standardised_difference(here, others), "values"
        if apart is None:
            apart = share_difference(here.subjects, site.subjects, others.subjects, rest.subjects)
            of = "share of people"
    own, theirs = _described(here, site, static=static), _described(others, rest, static=static)
    often, rarely = own["per_stay"], theirs["per_stay"]
    return {
        **own,
        **{f"others_{name}": value for name, value in theirs.items()},
        "smd": None if apart is None else apart.to_json(),
        "smd_of": None if apart is None else of,
        "rate_ratio": often / rarely if often and rarely else None,
    }


def _described(code: CodeStatistics | None, of: SiteStatistics, *, static: bool) -> dict[str, float | None]:
    if code is None:
        return {"mean": None, "per_stay": None, "share": None}
    return {
        "mean": code.mean if code.numeric else None,
        "per_stay": code.count / of.stays if of.stays and not static else None,
        "share": code.subjects / of.subjects if of.subjects else None,
    }
