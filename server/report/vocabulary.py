"""What the sites agreed on, for the report: codes, units, ranges, and who has what.

Shares are of a site's people in training and as the site sent them: rounded down to multiples of its
`min_cell`, and null for a code that fewer have (or nobody).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from hymate.data.quantiles import mixture
from hymate.data.statistics import CodeStatistics, SiteStatistics, merge_statistics
from hymate.data.units import in_agreed_units, plain_unit
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.joining_protocol import PrepareReply

Shares = dict[str, float | None]


def vocabulary_section(
    vocabulary: Vocabulary, statistics: Mapping[str, SiteStatistics], prepared: Mapping[str, PrepareReply]
) -> dict[str, Any]:
    """The part `vocabulary` of `report.json`."""
    agreed = in_agreed_units(statistics, vocabulary.units)
    merged = merge_statistics(list(agreed.values()))
    return {
        "hash": vocabulary.hash,
        "codes": vocabulary.size,
        "static": list(vocabulary.static_names),
        "dropped": [{"code": code.code, "reason": code.reason} for code in vocabulary.dropped],
        "scaling": vocabulary.scaling,
        "outside": vocabulary.outside,
        "clip_z": vocabulary.clip_z,
        "features": [
            *_features(vocabulary.codes, merged.dynamic, static=False),
            *_features(vocabulary.static, merged.static, static=True),
        ],
        "coverage": {
            "dynamic": _coverage({name: (site.dynamic, site.subjects) for name, site in agreed.items()}),
            "static": _coverage({name: (site.static, site.subjects) for name, site in agreed.items()}),
        },
        "units": _units(vocabulary, statistics),
        "unusual": _unusual(agreed),
        "encoding": {name: _encoding(reply) for name, reply in sorted(prepared.items())},
    }


def _features(
    entries: Sequence[VocabularyEntry], merged: Sequence[CodeStatistics], *, static: bool
) -> list[dict[str, Any]]:
    counted = {code.code: code for code in merged}
    return [
        {
            "code": entry.code,
            "static": static,
            "unit": entry.unit,
            "count": counted[entry.code].count,
            "subjects": counted[entry.code].subjects,
            "mean": entry.mean if entry.numeric else None,
            "std": entry.std if entry.numeric else None,
            "low": entry.low,
            "high": entry.high,
        }
        for entry in entries
    ]


def _coverage(sites: Mapping[str, tuple[Sequence[CodeStatistics], int]]) -> dict[str, Shares]:
    """Code -> site -> share of the site's people with the code."""
    codes = sorted({entry.code for entries, _ in sites.values() for entry in entries})
    had = {name: {entry.code: entry.subjects for entry in entries} for name, (entries, _) in sites.items()}
    return {
        code: {
            name: had[name][code] / people if code in had[name] and people else None
            for name, (_, people) in sites.items()
        }
        for code in codes
    }


def _units(vocabulary: Vocabulary, statistics: Mapping[str, SiteStatistics]) -> dict[str, dict[str, Any]]:
    """Code -> agreed unit, sites whose unit was converted, sites that declare none; where there are any."""
    found: dict[str, dict[str, Any]] = {}
    for entry in (*vocabulary.codes, *vocabulary.static):
        if not entry.unit:
            continue
        declared = {
            name: [code.unit for code in (*site.dynamic, *site.static) if code.code == entry.code]
            for name, site in sorted(statistics.items())
        }
        converted = {
            name: unit
            for name, units in declared.items()
            for unit in units
            if plain_unit(unit) not in ("", plain_unit(entry.unit))
        }
        undeclared = [name for name, units in declared.items() if "" in units]
        if converted or undeclared:
            found[entry.code] = {"unit": entry.unit, "converted": converted, "undeclared": undeclared}
    return found


def _unusual(agreed: Mapping[str, SiteStatistics]) -> list[dict[str, Any]]:
    """Sites whose median of a code lies outside the middle 98 % of all other sites' values.

    A unit nobody declared, or one code for two measurements, looks like this.
    """
    by_code: dict[str, dict[str, CodeStatistics]] = {}
    for name, site in agreed.items():
        for entry in (*site.dynamic, *site.static):
            by_code.setdefault(entry.code, {})[name] = entry
    found = []
    for code, entries in sorted(by_code.items()):
        for name, entry in entries.items():
            own = mixture(entry.sketches)
            others = mixture(
                [sketch for other, its in entries.items() if other != name for sketch in its.sketches]
            )
            if own is None or others is None:
                continue
            median = own.quantile(0.5)
            if not others.quantile(0.01) <= median <= others.quantile(0.99):
                found.append({"code": code, "site": name, "median": median, "others": others.quantile(0.5)})
    return found


def _encoding(reply: PrepareReply) -> dict[str, Any]:
    """What became of a site's observations, all splits together."""
    unknown = reply.unknown_triplets
    share = None
    if reply.triplets is not None and unknown is not None:
        share = unknown / (reply.triplets + unknown) if reply.triplets + unknown else 0.0
    return {
        "triplets": reply.triplets,
        "unknown_codes": reply.unknown_codes,
        "unknown_triplets": unknown,
        "unknown_share": share,
        "outside": dict(sorted(reply.outside.items())),
    }
