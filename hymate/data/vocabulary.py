"""The vocabulary all sites agree on: code -> index, unit, plausible range and scale, under one hash.

Built once by the coordinator from the sites' merged statistics. It travels with everything a site needs
to encode its records: what local codes are called, how units become the agreed ones, what happens to
values out of range. Every later message carries the hash; two vocabularies with the same hash feed a
model the same numbers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from hymate.config import MappedCode, UnitRule, VocabularyConfig
from hymate.data.mapping import load_mapping
from hymate.data.scaling import Scaling, VocabularyEntry, make_entry
from hymate.data.statistics import CodeStatistics, SiteStatistics, merge_statistics
from hymate.data.units import in_agreed_units
from hymate.durable import write_text
from hymate.errors import InputFault

__all__ = ["DroppedCode", "Vocabulary", "VocabularyEntry", "build_vocabulary", "mapping_lines"]

SCHEMA = 2


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
    mapping: tuple[MappedCode, ...] = ()
    units: dict[str, UnitRule] = field(default_factory=dict)
    """Rules of conversion, by shared code."""
    scaling: Scaling = "standard"
    outside: Literal["clip", "drop", "keep"] = "clip"
    """What becomes of a value out of its code's range."""
    clip_z: float | None = None
    """Scaled values lie within +-clip_z; None: anywhere."""

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
        """SHA-256 (hex) of all that changes what a model is fed, in canonical JSON.

        Keys sorted, no spaces, ASCII, floats by their shortest exact form: the same on every platform.
        """
        content = {key: value for key, value in self._content().items() if key != "dropped"}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def _content(self) -> dict[str, Any]:
        rules = {code: rule.model_dump(by_alias=True) for code, rule in self.units.items()}
        return {
            "schema": SCHEMA,
            "codes": [asdict(entry) for entry in self.codes],
            "static": [asdict(entry) for entry in self.static],
            "dropped": [asdict(code) for code in self.dropped],
            "mapping": [line.model_dump() for line in self.mapping],
            "units": rules,
            "scaling": self.scaling,
            "outside": self.outside,
            "clip_z": self.clip_z,
        }

    def to_json(self) -> str:
        """JSON with the hash in it; `from_json` gives an equal vocabulary."""
        return json.dumps({"hash": self.hash, **self._content()}, indent=1, allow_nan=False)

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
                codes=tuple(_read_entry(entry) for entry in content["codes"]),
                static=tuple(_read_entry(entry) for entry in content["static"]),
                dropped=tuple(DroppedCode(**entry) for entry in content["dropped"]),
                mapping=tuple(MappedCode.model_validate(line) for line in content["mapping"]),
                units={code: UnitRule.model_validate(rule) for code, rule in content["units"].items()},
                scaling=content["scaling"],
                outside=content["outside"],
                clip_z=content["clip_z"],
            )
            recorded = content["hash"]
        except (ValueError, KeyError, TypeError, AttributeError) as fault:
            problem = f"{type(fault).__name__}: {fault}".splitlines()[0]
            raise InputFault(
                source, f"is not a vocabulary ({problem})", "give a study's vocabulary.json"
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


def _read_entry(content: dict[str, Any]) -> VocabularyEntry:
    return VocabularyEntry(**{**content, "knots": tuple(content["knots"])})


def build_vocabulary(sites: Mapping[str, SiteStatistics], config: VocabularyConfig) -> Vocabulary:
    """Merge the sites (in the order of their names) and keep the codes frequent and common enough.

    Raises:
        InputFault: two sites declare different units for a code and no rule converts, or no code is
            left.
    """
    agreed = in_agreed_units(sites, config.units)
    merged = merge_statistics(list(agreed.values()))
    dropped: list[DroppedCode] = []

    def kept(entries: tuple[CodeStatistics, ...], group: str) -> tuple[VocabularyEntry, ...]:
        seen_at: dict[str, int] = {}
        for site in agreed.values():
            for entry in getattr(site, group):
                seen_at[entry.code] = seen_at.get(entry.code, 0) + (entry.count > 0)
        chosen = []
        for entry in entries:
            reason = _too_rare(entry.count, seen_at[entry.code], config)
            if reason:
                dropped.append(DroppedCode(entry.code, reason))
            else:
                chosen.append(make_entry(entry, config.scaling, config.plausible))
        return tuple(chosen)

    codes, static = kept(merged.dynamic, "dynamic"), kept(merged.static, "static")
    if not codes:
        raise InputFault(
            "vocabulary",
            f"no code is left of {len(merged.dynamic)} "
            f"(min_count {config.min_count}, min_sites {config.min_sites})",
            "lower min_count or min_sites, or check that the sites' training windows hold data",
        )
    return Vocabulary(
        codes=codes,
        static=static,
        dropped=tuple(dropped),
        mapping=mapping_lines(config),
        units=config.units,
        scaling=config.scaling,
        outside=config.plausible.outside,
        clip_z=config.clip_z,
    )


def mapping_lines(config: VocabularyConfig) -> tuple[MappedCode, ...]:
    """The study's mapping, read from its file where the study file names one."""
    return load_mapping(config.mapping) if isinstance(config.mapping, Path) else config.mapping


def _too_rare(count: int, sites: int, config: VocabularyConfig) -> str | None:
    if count < config.min_count:
        return f"seen {count} times, min_count is {config.min_count}"
    if sites < config.min_sites:
        return f"seen at {sites} sites, min_sites is {config.min_sites}"
    return None
