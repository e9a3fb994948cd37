"""How many training rounds a study has had from this site: counted on disk before a round begins.

A round is known by study, phase, number, vocabulary and the weights it starts from. Asked again with the
same ones (a lost reply, a coordinator that resumes), it gives the same result and counts once; others under
an old number are another round, so renumbering gains a coordinator nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from client.site import SiteConfig
from hymate.errors import InputFault
from strategies.wire import weights_digest

FILE = "rounds.sqlite"
TIMEOUT_S = 30.0


def count_round(
    site: SiteConfig,
    study: str,
    phase: str,
    number: int,
    weights: Mapping[str, NDArray[np.generic]],
    vocabulary_hash: str = "",
) -> int:
    """Enter this round unless it is there; returns the study's rounds so far, this one included.

    Raises:
        InputFault: the study has had as many as the policy allows, or the count cannot be kept (then no
            round is given: a limit that cannot be counted is no limit).
    """
    limit = site.policy.max_rounds_per_study
    path = rounds_path(site)
    digest = weights_digest(weights) + vocabulary_hash
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=TIMEOUT_S, isolation_level=None)) as database:
            database.execute("PRAGMA synchronous = FULL")
            database.execute("BEGIN IMMEDIATE")
            database.execute(
                "CREATE TABLE IF NOT EXISTS rounds (study TEXT, phase TEXT, number INTEGER, weights TEXT,"
                " PRIMARY KEY (study, phase, number, weights)) WITHOUT ROWID"
            )
            added = database.execute(
                "INSERT OR IGNORE INTO rounds VALUES (?, ?, ?, ?)", (study, phase, number, digest)
            ).rowcount
            (total,) = database.execute("SELECT COUNT(*) FROM rounds WHERE study = ?", (study,)).fetchone()
            allowed = not added or limit is None or total <= limit
            database.execute("COMMIT" if allowed else "ROLLBACK")
    except (sqlite3.Error, OSError) as fault:
        raise InputFault(
            f"site {site.name}",
            f"cannot keep count of the rounds it gives ({fault})",
            f"the site mends or frees {path.name} in its `state` folder",
        ) from None
    if not allowed:
        raise InputFault(
            f"site {site.name}",
            f"its policy allows study '{study}' {limit} training rounds, and it has had them",
            "ask for fewer rounds, or have the site raise `policy.max_rounds_per_study`",
        )
    return int(total)


def rounds_given(site: SiteConfig) -> dict[str, int]:
    """Rounds by study, as counted so far."""
    path = rounds_path(site)
    if not path.is_file():
        return {}
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            rows = database.execute("SELECT study, COUNT(*) FROM rounds GROUP BY study ORDER BY study")
            return {str(study): int(total) for study, total in rows}
    except sqlite3.Error as fault:
        raise InputFault(
            path, f"is no readable count of rounds ({fault})", "restore it from a backup"
        ) from None


def rounds_path(site: SiteConfig) -> Path:
    return site.state / FILE
