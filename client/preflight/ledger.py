"""The privacy ledger: readable, believable, and how much of the budget is left."""

from __future__ import annotations

from collections.abc import Iterator

from client.preflight.lines import Line, ok, plural, warn
from client.site import SiteConfig

NEARLY = 0.9
"""From this share of the budget on a person should look."""


def check_ledger(site: SiteConfig) -> Iterator[Line]:
    """What was spent; a ledger or a secret that cannot be used is a fault (`guarded`)."""
    from client.ledger_report import summary_of
    from client.site_secret import secret_path, site_secret

    summary = summary_of(site)
    if secret_path(site).exists():
        site_secret(site)
    rounds = plural(summary.rounds, "round") + " with noise"
    if summary.budget is None:
        spent = "no bound" if summary.spent is None else f"epsilon {summary.spent:.3g}"
        yield ok("ledger", f"{rounds}, {spent} at delta {summary.delta:g}; the policy sets no budget")
        return
    spent = "no bound" if summary.spent is None else f"{summary.spent:.3g}"
    what = f"epsilon {spent} of {summary.budget:g} spent (delta {summary.delta:g}) by {rounds}"
    if summary.spent is None or summary.spent >= NEARLY * summary.budget:
        yield warn("ledger", what, "further rounds are refused soon; 'hymate-client ledger' tells by study")
    else:
        yield ok("ledger", what)
