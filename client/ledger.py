"""The privacy ledger: what every round with noise has cost the site's patients, on disk before it runs.

Budgets follow patients, not files: all entries of the site count, of whatever study, phase and data set, for
a data set that grew or was mended holds the same patients. A round is entered, and the entry is on the disk,
before its first step; a crash after that leaves a round that was counted and never given, never the other way
round. A round asked again as it was (`Entry.identity`) gives the same bits and counts once.

A ledger that cannot be read, written or believed lets nothing private be trained. Two things are held against
one another: each entry carries a digest of itself and all before it, and a small file beside the database
knows how many entries there were and the last digest. So entries that were changed, lost in the middle or
taken off the end, and a database deleted or put back to an earlier state, are noticed. Not noticed: database
and small file put back or deleted together, as with the whole state folder; and whoever may write there may
write both.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from client.ledger_entry import Entry
from client.site import PrivacyPolicy, SiteConfig
from client.site_secret import key_of, name_of, site_secret
from hymate.durable import flush_folder, write_text
from hymate.errors import InputFault
from hymate.privacy.accounting import Accounted, account
from hymate.privacy.spend import Spend

FILE, COUNT = "ledger.sqlite", "ledger.count"
TIMEOUT_S = 60.0
DELTA = 1e-5
"""Where the site's policy sets none."""
COLUMNS = (
    "number, identity, study, run, phase, round, start, vocabulary, dataset, "
    "mechanism, sampling_rate, noise, steps, at, chain"
)
SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries (number INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, "
    "study TEXT NOT NULL, run TEXT NOT NULL, phase TEXT NOT NULL, round INTEGER NOT NULL, "
    "start TEXT NOT NULL, vocabulary TEXT NOT NULL, dataset TEXT NOT NULL, mechanism TEXT NOT NULL, "
    "sampling_rate REAL NOT NULL, noise REAL NOT NULL, steps INTEGER NOT NULL, at TEXT NOT NULL, "
    "chain TEXT NOT NULL)"
)
BEGINNING = hashlib.sha256(b"hymate ledger 1").hexdigest()
"""What the first entry's digest goes on from."""

Row = tuple[str | int | float, ...]


@dataclass(frozen=True)
class Recorded:
    """An entry as it stands in the ledger."""

    identity: str
    entry: Entry
    at: str
    """UTC, ISO 8601, to the second."""


class Ledger:
    """The ledger of one site, in its state folder."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._path, self._count = ledger_path(site), site.state / COUNT

    @property
    def delta(self) -> float:
        """At which epsilon is told."""
        privacy = self._site.policy.privacy
        return DELTA if privacy is None else privacy.delta

    def charge(self, entry: Entry) -> bytes:
        """Enter this round, unless it is there; when this returns, it is on the disk.

        Returns the key (32 bytes) of all the round's random numbers: there is none without an entry.

        Raises:
            InputFault: the round would exceed the site's budget, or the ledger or the site's secret cannot
                be kept. Nothing was entered then, and nothing may be trained.
        """
        secret = site_secret(self._site)
        identity = entry.identity(name_of(secret))
        with self._database() as database:
            with _transaction(database):
                rows = self._believed(database)
                if identity not in {row[1] for row in rows}:
                    self._demand_budget(_recorded(rows), entry.spend)
                    row = _row(len(rows) + 1, identity, entry, rows)
                    marks = ", ".join("?" * len(row))
                    database.execute(f"INSERT INTO entries ({COLUMNS}) VALUES ({marks})", row)
            with _transaction(database):  # of two processes none counts back
                self._seal(self._believed(database))
        return key_of(secret, identity)

    def entries(self) -> list[Recorded]:
        """All entries, the oldest first.

        Raises:
            InputFault: the ledger cannot be read or believed.
        """
        if not self._path.exists():
            if self._counted()[0]:
                raise self._unbelievable("its ledger is gone")
            return []
        with self._database(read_only=True) as database:
            return _recorded(self._believed(database))

    def spent(self) -> Accounted:
        """Epsilon at `delta` of all entries together."""
        return account([recorded.entry.spend for recorded in self.entries()], self.delta)

    def _demand_budget(self, recorded: Sequence[Recorded], asked: Spend) -> None:
        privacy = self._site.policy.privacy
        if privacy is None:
            return
        spends = [known.entry.spend for known in recorded]
        would = account([*spends, asked], privacy.delta).epsilon
        if would > privacy.epsilon:
            raise exceeded(self._site.name, account(spends, privacy.delta).epsilon, would, privacy)

    def _believed(self, database: sqlite3.Connection) -> list[Row]:
        """All rows, once they agree with their digests and with the count."""
        known = database.execute("SELECT name FROM sqlite_master WHERE name = 'entries'").fetchone()
        rows = database.execute(f"SELECT {COLUMNS} FROM entries ORDER BY number").fetchall() if known else []
        chain = BEGINNING
        for number, row in enumerate(rows, start=1):
            chain = _link(chain, row[:-1])
            if row[0] != number or row[-1] != chain:
                raise self._unbelievable(f"entry {number} of its ledger is not as it was written")
        counted, last = self._counted()
        if counted > len(rows):
            raise self._unbelievable(f"its ledger lacks {counted - len(rows)} of {counted} entries")
        if last != (rows[counted - 1][-1] if counted else BEGINNING):
            raise self._unbelievable("its ledger is another than the one it last wrote")
        return rows

    def _counted(self) -> tuple[int, str]:
        """Number of entries and last digest as the small file has them."""
        if not self._count.exists() and not self._path.exists():
            return 0, BEGINNING
        try:
            content = json.loads(self._count.read_text(encoding="utf-8"))
            return int(content["entries"]), str(content["chain"])
        except (OSError, ValueError, KeyError, TypeError):
            raise self._unbelievable(
                f"{COUNT}, which counts the ledger's entries, is gone or damaged"
            ) from None

    def _seal(self, rows: Sequence[Row]) -> None:
        """Note how far the ledger goes, so that less of it is noticed."""
        last = rows[-1][-1] if rows else BEGINNING
        write_text(self._count, json.dumps({"entries": len(rows), "chain": last}) + "\n")

    @contextmanager
    def _database(self, read_only: bool = False) -> Iterator[sqlite3.Connection]:
        try:
            if not read_only:
                self._begin()
            mode = "ro" if read_only else "rw"
            address = f"{self._path.resolve().as_uri()}?mode={mode}"
            with closing(
                sqlite3.connect(address, uri=True, timeout=TIMEOUT_S, isolation_level=None)
            ) as database:
                if not read_only:
                    database.execute("PRAGMA journal_mode = WAL")
                    database.execute("PRAGMA synchronous = FULL")  # every commit waits for the disk
                    database.execute(SCHEMA)
                yield database
        except (sqlite3.Error, OSError) as fault:
            raise InputFault(
                f"site {self._site.name}",
                f"cannot keep its privacy ledger ({fault})",
                f"the site mends or frees {FILE} in `state`; until then nothing private is trained",
            ) from None

    def _begin(self) -> None:
        """The files, where there are none; the count first, so that a database without one is suspect."""
        if self._path.exists():
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._counted()[0]:
            raise self._unbelievable("its ledger is gone")
        if not self._count.exists():
            self._seal([])
        os.close(os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o600))
        flush_folder(self._path.parent)

    def _unbelievable(self, what: str) -> InputFault:
        return InputFault(
            f"site {self._site.name}",
            f"{what}: what its patients' privacy has cost is not known",
            "restore the `state` folder as it was after the last round; without a backup, take the budget as "
            "spent. Nothing private is trained meanwhile",
        )


def ledger_path(site: SiteConfig) -> Path:
    return site.state / FILE


def exceeded(site: str, spent: float, would: float, privacy: PrivacyPolicy) -> InputFault:
    """The refusal that names what is spent, what is asked and the budget."""
    return InputFault(
        f"site {site}",
        f"its privacy budget does not allow this round: epsilon {spent:.4g} is spent, with this round it "
        f"would be {would:.4g}, and the budget is {privacy.epsilon:g} (delta {privacy.delta:g}, all studies)",
        "ask for fewer steps or more noise, or have the site raise `policy.privacy.epsilon`",
    )


@contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    """The lock from the first look on: no other process enters anything between looking and entering."""
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        database.execute("ROLLBACK")
        raise
    database.execute("COMMIT")


def _row(number: int, identity: str, entry: Entry, before: Sequence[Row]) -> Row:
    spend = entry.spend
    row: Row = (
        *(number, identity, entry.study, entry.run, entry.phase, entry.round, entry.start),
        *(entry.vocabulary_hash, entry.dataset),
        *(spend.mechanism, float(spend.sampling_rate), float(spend.noise_multiplier), spend.steps),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return (*row, _link(str(before[-1][-1]) if before else BEGINNING, row))


def _link(chain: str, row: Row) -> str:
    return hashlib.sha256(f"{chain}\n{json.dumps(row)}".encode()).hexdigest()


def _recorded(rows: Sequence[Row]) -> list[Recorded]:
    found = []
    for _, identity, study, run, phase, number, start, vocabulary, dataset, *rest in rows:
        mechanism, rate, noise, steps, at, _ = rest
        spend = Spend(str(mechanism), float(rate), float(noise), int(steps))
        entry = Entry(
            *(str(study), str(run), str(phase), int(number)),
            *(str(start), str(vocabulary), str(dataset), spend),
        )
        found.append(Recorded(str(identity), entry, str(at)))
    return found
