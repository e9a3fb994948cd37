"""The vocabulary all sites agree on: code -> index, mean and standard deviation, under one hash.

Built once by the coordinator from the sites' merged statistics. Every later message carries the hash;
two vocabularies with the same hash feed a model the same numbers.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hymate.config import VocabularyConfig
from hymate.data.statistics import CodeStatistics, SiteStatistics, merge_statistics
from hymate.durable import write_text
from hymate.errors import InputFault

SCHEMA = 1
# Values are float32 (7 digits): a spread this far below the mean is rounding left by a merge, not data.
NO_SPREAD = 1e-9


@dataclass(frozen=True)
class VocabularyEntry:
    """One code and its z-score: (value - mean) / std, in `unit`. Never numeric: mean 0, std 1."""

    code: str
    unit: str
    mean: float
    std: float
    numeric: bool


@dataclass(frozen=True)
class DroppedCode:
    """A code the sites sent that is in no model, and why: for the report."""

    code: str
    reason: str


@dataclass(frozen=True)
class Vocabulary:
    """Index i of `codes` has vocabulary index i + 1; 0 is padding. `static` orders the static vector."""

    codes: tuple[VocabularyEntry, ...]
    static: tuple[VocabularyEntry, ...]
    dropped: tuple[DroppedCode, ...] = ()

    @property
    def size(self) -> int:
        """V: the number of codes; vocabulary indices run from 1 to V."""
        return len(self.codes)

    @cached_property
    def index(self) -> dict[str, int]:
        """Code -> vocabulary index, 1..V."""
        return {entry.code: i for i, entry in enumerate(self.codes, start=1)}

    @property
    def static_names(self) -> tuple[str, ...]:
        """Columns of the static vector.

        A numeric code has two, `Age` (z-score, 0 when missing) and `Age?` (1 when missing); a code
        without a number (`GENDER//F`) has one, 1 when the subject has it.
        """
        return tuple(
            name
            for entry in self.static
            for name in ((entry.code, f"{entry.code}?") if entry.numeric else (entry.code,))
        )

    @property
    def static_width(self) -> int:
        """S: the number of columns of the static vector."""
        return len(self.static_names)

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of what matters to a model: codes and static features, in canonical JSON.

        Keys sorted, no spaces, ASCII, floats by their shortest exact form: the same on every platform.
        """
        content = {name: [asdict(entry) for entry in getattr(self, name)] for name in ("codes", "static")}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_json(self) -> str:
        """JSON with the hash in it; `from_json` gives an equal vocabulary."""
        return json.dumps({"schema": SCHEMA, "hash": self.hash, **asdict(self)}, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str, source: str | Path = "vocabulary") -> Vocabulary:
        """Read what `to_json` wrote; `source` is named in a fault.

        Raises:
            InputFault: not a vocabulary, another schema version, or the content does not fit its hash.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            if content["schema"] != SCHEMA:
                raise InputFault(
                    source,
                    f"has schema version {content['schema']}, this program reads {SCHEMA}",
                    "run the vocabulary phase again with this version",
                )
            vocabulary = cls(
                codes=tuple(VocabularyEntry(**entry) for entry in content["codes"]),
                static=tuple(VocabularyEntry(**entry) for entry in content["static"]),
                dropped=tuple(DroppedCode(**entry) for entry in content["dropped"]),
            )
            recorded = content["hash"]
        except (ValueError, KeyError, TypeError) as fault:
            raise InputFault(
                source,
                f"is not a vocabulary ({type(fault).__name__}: {fault})",
                "give a study's vocabulary.json",
            ) from None
        if vocabulary.hash != recorded:
            raise InputFault(
                source,
                f"holds hash {recorded[:12]} but its content has {vocabulary.hash[:12]}",
                "restore the file as the study wrote it",
            )
        return vocabulary

    def save(self, path: Path) -> None:
        """Write `path` in one step."""
        write_text(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Read a saved vocabulary; `InputFault` when it is missing or not whole."""
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as fault:
            reason = fault.strerror if isinstance(fault, OSError) else "not text"
            raise InputFault(path, f"cannot be read: {reason}", "check the path given") from None
        return cls.from_json(text, source=path)


def build_vocabulary(sites: Mapping[str, SiteStatistics], config: VocabularyConfig) -> Vocabulary:
    """Merge the sites (in the order of their names) and keep the codes frequent and common enough.

    Raises:
        InputFault: two sites declare different units for a code, or no code is left.
    """
    names = sorted(sites)
    for group in ("dynamic", "static"):
        _refuse_unit_conflicts({name: getattr(sites[name], group) for name in names})
    merged = merge_statistics([sites[name] for name in names])
    dropped: list[DroppedCode] = []

    def kept(entries: tuple[CodeStatistics, ...], group: str) -> tuple[VocabularyEntry, ...]:
        seen_at: dict[str, int] = {}
        for name in names:
            for entry in getattr(sites[name], group):
                seen_at[entry.code] = seen_at.get(entry.code, 0) + (entry.count > 0)
        chosen = []
        for entry in entries:
            reason = _too_rare(entry.count, seen_at[entry.code], config)
            if reason:
                dropped.append(DroppedCode(entry.code, reason))
            else:
                chosen.append(_entry(entry))
        return tuple(chosen)

    codes, static = kept(merged.dynamic, "dynamic"), kept(merged.static, "static")
    if not codes:
        raise InputFault(
            "vocabulary",
            f"no code is left of {len(merged.dynamic)} "
            f"(min_count {config.min_count}, min_sites {config.min_sites})",
            "lower min_count or min_sites, or check that the sites' training windows hold data",
        )
    return Vocabulary(codes=codes, static=static, dropped=tuple(dropped))


def _refuse_unit_conflicts(sites: Mapping[str, tuple[CodeStatistics, ...]]) -> None:
    units: dict[str, dict[str, list[str]]] = {}
    for name, entries in sites.items():
        for entry in entries:
            if entry.unit:
                units.setdefault(entry.code, {}).setdefault(entry.unit, []).append(name)
    conflicts = {code: found for code, found in sorted(units.items()) if len(found) > 1}
    if conflicts:
        code, found = next(iter(conflicts.items()))
        told = " and ".join(f"'{unit}' at {', '.join(where)}" for unit, where in sorted(found.items()))
        more = f" ({len(conflicts) - 1} more codes disagree)" if len(conflicts) > 1 else ""
        raise InputFault(f"code '{code}'", f"is measured in {told}{more}", "convert to one unit at the sites")


def _too_rare(count: int, sites: int, config: VocabularyConfig) -> str | None:
    if count < config.min_count:
        return f"seen {count} times, min_count is {config.min_count}"
    if sites < config.min_sites:
        return f"seen at {sites} sites, min_sites is {config.min_sites}"
    return None


def _entry(statistics: CodeStatistics) -> VocabularyEntry:
    """Mean and sample standard deviation (ddof 1); no spread, or too few numbers to tell: 1."""
    std = math.sqrt(statistics.m2 / (statistics.numeric - 1)) if statistics.numeric > 1 else 0.0
    if std <= NO_SPREAD * abs(statistics.mean):
        std = 1.0
    return VocabularyEntry(
        code=statistics.code,
        unit=statistics.unit,
        mean=statistics.mean,
        std=std,
        numeric=statistics.numeric > 0,
    )
