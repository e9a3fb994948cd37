"""Units of codes: spelling variants, conflicts between sites, conversion by the study's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from hymate.config import Conversion, UnitRule
from hymate.data.statistics import CodeStatistics, SiteStatistics, merge_entries
from hymate.errors import InputFault

# Greek mu and the micro sign look the same and are two characters.
_LOOKALIKES = str.maketrans({"\u03bc": "\u00b5"})


def plain_unit(unit: str) -> str:
    """The unit without what spelling varies in: case, white space, which mu.

    >>> plain_unit(" MG / dl") == plain_unit("mg/dL")
    True
    """
    return "".join(unit.translate(_LOOKALIKES).split()).casefold()


def conversion(declared: str, unit: str, rule: UnitRule | None) -> Conversion | None:
    """What turns a value in the `declared` unit into `unit`; None where nobody said.

    An undeclared unit, on either side, is taken for the other.
    """
    plain = plain_unit(declared)
    if not plain or not unit or plain == plain_unit(unit):
        return Conversion()
    known = {plain_unit(source): how for source, how in rule.sources.items()} if rule else {}
    return known.get(plain)


def agreed_units(
    sites: Mapping[str, Iterable[CodeStatistics]], rules: Mapping[str, UnitRule]
) -> dict[str, str]:
    """Code -> unit: the rule's, else as the first site (by name) that declares one spells it.

    Raises:
        InputFault: two sites declare different units for a code and no rule converts.
    """
    declared: dict[str, dict[str, list[str]]] = {}
    for site in sorted(sites):
        for entry in sites[site]:
            places = declared.setdefault(entry.code, {})
            if entry.unit:
                places.setdefault(entry.unit, []).append(site)
    units = {
        code: rules[code].unit if code in rules else next(iter(places), "")
        for code, places in declared.items()
    }
    conflicts = [
        code
        for code, places in sorted(declared.items())
        if any(conversion(unit, units[code], rules.get(code)) is None for unit in places)
    ]
    if conflicts:
        _refuse(conflicts, declared, rules)
    return units


def _refuse(
    conflicts: list[str], declared: Mapping[str, Mapping[str, list[str]]], rules: Mapping[str, UnitRule]
) -> None:
    code = conflicts[0]
    told = " and ".join(f"'{unit}' at {', '.join(where)}" for unit, where in sorted(declared[code].items()))
    wanted = f", the study's rule knows {_known(rules[code])}" if code in rules else ""
    more = f"; so are {len(conflicts) - 1} more: {', '.join(conflicts[1:6])}" if len(conflicts) > 1 else ""
    raise InputFault(
        f"code '{code}'",
        f"is measured in {told}{wanted}{more}",
        f"convert to one unit at the sites, or say how under vocabulary.units.{code} in the study file",
    )


def _known(rule: UnitRule) -> str:
    return " and ".join(f"'{unit}'" for unit in (rule.unit, *rule.sources))


def in_agreed_units(
    sites: Mapping[str, SiteStatistics], rules: Mapping[str, UnitRule]
) -> dict[str, SiteStatistics]:
    """Every site's statistics in the units of `agreed_units`: one entry a code, sorted, by site name."""
    dynamic = agreed_units({name: site.dynamic for name, site in sites.items()}, rules)
    static = agreed_units({name: site.static for name, site in sites.items()}, rules)

    def converted(
        entries: Iterable[CodeStatistics], units: Mapping[str, str], people: int
    ) -> tuple[CodeStatistics, ...]:
        once = merge_entries(_converted(entry, units[entry.code], rules) for entry in entries)
        # A site whose local codes differ in unit sent a code twice; its people may be the same.
        return tuple(
            replace(
                entry,
                subjects=min(entry.subjects, people),
                numeric_subjects=min(entry.numeric_subjects, people),
            )
            for entry in once
        )

    return {
        name: replace(
            sites[name],
            dynamic=converted(sites[name].dynamic, dynamic, sites[name].subjects),
            static=converted(sites[name].static, static, sites[name].subjects),
        )
        for name in sorted(sites)
    }


def _converted(entry: CodeStatistics, unit: str, rules: Mapping[str, UnitRule]) -> CodeStatistics:
    how = conversion(entry.unit, unit, rules.get(entry.code))
    assert how is not None  # agreed_units has refused the others
    return entry.converted(how.factor, how.offset, unit)
