"""The ledger by study and phase, for the people who answer for the patients."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from client.ledger import Ledger, Recorded
from client.site import PrivacyPolicy, SiteConfig
from hymate.privacy.accounting import account

HEADER = ("study", "phase", "rounds", "steps", "noise", "sampling rate", "epsilon")
WORTHLESS = 12.0


@dataclass(frozen=True)
class Part:
    """One phase of one study."""

    study: str
    phase: str
    rounds: int
    steps: int
    noise: tuple[float, float]
    """Smallest and largest noise multiplier."""
    sampling_rate: tuple[float, float]
    epsilon: float | None
    """Of this part alone; None: without bound."""


@dataclass(frozen=True)
class Summary:
    """What the ledger comes to. Parts do not add up: together they cost less than their sum."""

    site: str
    budget: float | None
    """None: the policy sets none."""
    delta: float
    spent: float | None
    """Epsilon of all entries together; None: without bound."""
    left: float | None
    accountant: str
    why: str
    """Where the bound is not the tight accountant's: the reason."""
    demand: bool
    rounds: int
    steps: int
    data_sets: int
    first: str
    last: str
    parts: tuple[Part, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def summary_of(site: SiteConfig) -> Summary:
    """Read and account the whole ledger; `InputFault` where it cannot be read or believed."""
    ledger = Ledger(site)
    entries = ledger.entries()
    groups: dict[tuple[str, str], list[Recorded]] = {}
    for recorded in entries:
        groups.setdefault((recorded.entry.study, recorded.entry.phase), []).append(recorded)
    total = account([recorded.entry.spend for recorded in entries], ledger.delta)
    privacy: PrivacyPolicy | None = site.policy.privacy
    return Summary(
        site=site.name,
        budget=None if privacy is None else privacy.epsilon,
        delta=ledger.delta,
        spent=_bounded(total.epsilon),
        left=None if privacy is None else max(0.0, privacy.epsilon - total.epsilon),
        accountant=total.accountant,
        why=total.why,
        demand=privacy is not None and privacy.demand,
        rounds=len(entries),
        steps=sum(recorded.entry.spend.steps for recorded in entries),
        data_sets=len({recorded.entry.dataset for recorded in entries}),
        first=entries[0].at if entries else "",
        last=entries[-1].at if entries else "",
        parts=tuple(_part(*names, group, ledger.delta) for names, group in groups.items()),
    )


def in_words(summary: Summary) -> Iterator[str]:
    """The summary, line by line."""
    if not summary.rounds:
        yield f"Site {summary.site}: no round with noise was ever given."
    else:
        yield (
            f"Site {summary.site}: {summary.rounds:,} rounds with noise, {summary.steps:,} steps, "
            f"from {summary.first[:10]} to {summary.last[:10]}."
        )
        yield ""
        yield from _table(summary)
        yield ""
        yield (
            "Each line is by itself; together they cost less than their sum. All studies and data sets of "
            "the site count, for the patients are the same."
        )
        yield ""
    yield from _budget(summary)
    if summary.rounds:
        yield _meaning(summary)
    if summary.why:
        yield f"Epsilon is the bound of a looser accountant here, and the truth is smaller: {summary.why}."


def _meaning(summary: Summary) -> str:
    """Epsilon as odds; beyond `WORTHLESS` nobody should take comfort in it."""
    if summary.spent is None or summary.spent > WORTHLESS:
        return "What it means: so large an epsilon promises a patient nothing worth the name."
    fold = math.exp(summary.spent)
    return (
        "What it means: whoever sees all that these rounds sent, and knows everything else there is to know, "
        "can by it change the odds that a given patient is among the site's training data at most "
        f"{f'{fold:,.0f}' if fold >= 100 else f'{fold:.3g}'}-fold (e to the power of epsilon); that may fail "
        f"with a probability of {summary.delta:g} (delta)."
    )


def _budget(summary: Summary) -> Iterator[str]:
    spent = "without bound" if summary.spent is None else f"{summary.spent:.4g}"
    at = f"at delta {summary.delta:g}"
    if summary.budget is None:
        yield f"Budget: none (`policy.privacy` of the site file). Epsilon {at} so far: {spent}."
    else:
        yield (
            f"Budget: epsilon {summary.budget:g} {at}. Spent: {spent}. Left: {summary.left:.4g}. "
            "A round that would go beyond it is refused before it runs."
        )
    if not summary.demand:
        yield (
            "Rounds without noise are given, too, and are not counted here: `policy.privacy.demand: true` "
            "ends that."
        )


def _table(summary: Summary) -> Iterator[str]:
    rows = [
        (
            *(part.study, part.phase, f"{part.rounds:,}", f"{part.steps:,}"),
            *(_range(part.noise), _range(part.sampling_rate)),
            "no bound" if part.epsilon is None else f"{part.epsilon:.4g}",
        )
        for part in summary.parts
    ]
    widths = [max(map(len, column)) for column in zip(HEADER, *rows, strict=True)]
    for row in (HEADER, *rows):
        cells = [
            cell.ljust(width) if index < 2 else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def _part(study: str, phase: str, group: list[Recorded], delta: float) -> Part:
    spends = [recorded.entry.spend for recorded in group]
    noises = [spend.noise_multiplier for spend in spends]
    rates = [spend.sampling_rate for spend in spends]
    return Part(
        study=study,
        phase=phase,
        rounds=len(group),
        steps=sum(spend.steps for spend in spends),
        noise=(min(noises), max(noises)),
        sampling_rate=(min(rates), max(rates)),
        epsilon=_bounded(account(spends, delta).epsilon),
    )


def _range(ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{low:.4g}" if low == high else f"{low:.4g}-{high:.4g}"


def _bounded(epsilon: float) -> float | None:
    return epsilon if math.isfinite(epsilon) else None
