"""What the checks found: one finding per rule and file, with a few examples and a count."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from hymate.data.checks.rules import RULES, Rule, Severity

SHOWN = 3
"""Examples kept of each finding; further occurrences are counted."""


@dataclass(frozen=True)
class Example:
    """One occurrence. Whatever could point at a person stands here and nowhere else in a finding."""

    row: int | None = None
    """Row of the file, from 0."""
    row_group: int | None = None
    """Parquet row group that holds the row, from 0."""
    subject: int | None = None
    value: str | None = None
    """The offending value as text."""


@dataclass(frozen=True)
class Finding:
    """A rule that a file breaks."""

    rule: Rule
    file: str
    """Path below the data set's folder (or below the one given with --labels)."""
    what: str
    count: int | str
    """Occurrences in this file, those of `examples` included; "<10" where a shared report hides it."""
    examples: tuple[Example, ...] = ()


class Findings:
    """Gathers findings: occurrences of one rule in one file, with the same words, become one."""

    def __init__(self) -> None:
        self._gathered: dict[tuple[str, str, str], tuple[int, tuple[Example, ...]]] = {}

    def add(
        self, rule: Rule, file: str, *, count: int = 1, examples: Iterable[Example] = (), **names: object
    ) -> None:
        """Count `count` more occurrences; `names` fill the {named} parts of the rule's sentence."""
        if count == 0:
            return
        key = (rule.name, file, rule.what.format(**names))
        before, shown = self._gathered.get(key, (0, ()))
        self._gathered[key] = (before + count, (*shown, *examples)[:SHOWN])

    def drop(self, rule: Rule) -> None:
        """Forget every finding of `rule`: another one explains them all."""
        self._gathered = {key: kept for key, kept in self._gathered.items() if key[0] != rule.name}

    def sorted(self) -> tuple[Finding, ...]:
        """Errors first, then in the order of `RULES` and by file."""
        order = {name: position for position, name in enumerate(RULES)}
        keys = sorted(
            self._gathered,
            key=lambda key: (RULES[key[0]].severity is Severity.WARNING, order[key[0]], key[1], key[2]),
        )
        return tuple(
            Finding(RULES[name], file, what, *self._gathered[name, file, what]) for name, file, what in keys
        )
