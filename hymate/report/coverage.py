"""Who has what: the codes on which hospitals differ most, for a table people can read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hymate.report.cohort_content import AgreedVocabulary

SHOWN_CODES = 12
SHOWN_SITES = 12
Shares = Mapping[str, float | None]


@dataclass(frozen=True)
class ShownCoverage:
    """rows: (code, share by site of `sites`); `all_codes` and `all_sites` there are."""

    sites: list[str]
    rows: list[tuple[str, list[float | None]]]
    all_sites: int
    all_codes: int


def shown_coverage(agreed: AgreedVocabulary) -> ShownCoverage:
    """At most `SHOWN_SITES` sites (those with the lowest mean share), and `SHOWN_CODES` codes."""
    table: dict[str, Shares] = {**agreed.coverage.static, **agreed.coverage.dynamic}
    names = list(next(iter(table.values()), {}))

    def of_site(name: str) -> float:
        return sum(shares[name] or 0.0 for shares in table.values())

    sites = sorted(sorted(names, key=of_site)[:SHOWN_SITES])
    differ = sorted(table, key=lambda code: (-_difference(table[code]), code))
    rows = [
        (code, [table[code][name] for name in sites])
        for code in differ[:SHOWN_CODES]
        if _difference(table[code]) > 0.0
    ]
    return ShownCoverage(sites, rows, len(names), len(table))


def _difference(shares: Shares) -> float:
    known = [share or 0.0 for share in shares.values()]
    return max(known) - min(known)
