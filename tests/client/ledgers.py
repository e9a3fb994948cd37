"""A site's ledger and entries for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from client.ledger import Ledger
from client.ledger_entry import Entry
from client.site import Policy, PrivacyPolicy, SiteConfig
from hymate.privacy.accounting import epsilon_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend

SPEND = Spend(SAMPLED_GAUSSIAN, 0.05, 1.5, 20)
ROOT = Path(__file__).parent.parent.parent


def site_of(folder: Path, epsilon: float | None = None) -> SiteConfig:
    privacy = None if epsilon is None else PrivacyPolicy(epsilon=epsilon)
    return SiteConfig(name="north", data=folder, state=folder / "state", policy=Policy(privacy=privacy))


def entry_of(number: int = 1, **other: object) -> Entry:
    entry = Entry(
        study="mortality",
        run="r1",
        phase="pretrain",
        round=number,
        start=f"start {number}",
        vocabulary_hash="v",
        dataset="d",
        spend=SPEND,
    )
    return dataclasses.replace(entry, **other)  # type: ignore[arg-type]


def rounds_of(site: SiteConfig) -> list[int]:
    return [recorded.entry.round for recorded in Ledger(site).entries()]


def epsilon_after(rounds: int) -> float:
    return epsilon_of([SPEND] * rounds, 1e-5)
