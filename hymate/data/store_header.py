"""The header of a triplet store: what the store holds, and what it was made for."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hymate.config import TaskConfig
from hymate.errors import InputFault

SCHEMA = 3
HEADER = "store.json"


class StoreMismatch(InputFault):
    """A store made for another data set, vocabulary, task or schema version: never reused silently."""

    def __reduce__(self) -> tuple[type[InputFault], tuple[str, str, str]]:
        return (StoreMismatch, (self.where, self.what, self.remedy))


@dataclass(frozen=True)
class StoreHeader:
    """What a store holds and what it was made for. Fields are also read as `header["unknown_codes"]`."""

    vocabulary_hash: str
    task: TaskConfig
    codes: int
    """V: vocabulary indices run from 1 to V."""
    static_names: tuple[str, ...]
    splits: tuple[str, ...]
    """Names of the numbers in `TripletStore.split`."""
    stays: int
    triplets: int
    unknown_codes: dict[str, int]
    """Codes of the windows that the vocabulary lacks: occurrences dropped."""
    unknown_static: dict[str, int]
    """Static codes that the vocabulary lacks: stays that have them."""
    left_out: dict[str, int]
    """Label rows that became no stay, by reason."""
    folder: str
    """Name of the arrays' folder."""
    dataset: str = ""
    """Fingerprint of the data set it was made from (`hymate.data.fingerprint`); "": of none on disk."""
    unknown_subjects: int = 0
    """People whose triplets were dropped for want of a code."""
    outside: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Code -> values out of its plausible range, and people they are of."""
    static_codes: tuple[str, ...] = ()
    """Every static code of the stays, in the vocabulary or not; names the numbers in `static_code`."""
    static_rows: int = 0
    schema: int = SCHEMA

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def to_json(self) -> str:
        """JSON as it stands in `store.json`."""
        return json.dumps({**asdict(self), "task": self.task.model_dump()}, indent=1)


def read_header(path: Path) -> StoreHeader:
    """The header of the store at `path`.

    Raises:
        StoreMismatch: it is of another schema version.
        InputFault: there is no store, or its header is damaged.
    """
    try:
        content = json.loads((path / HEADER).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise InputFault(path, "holds no triplet store", "prepare it from the MEDS data set") from None
    except (ValueError, OSError) as fault:
        raise damaged(path, f"{HEADER}: {fault}") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise StoreMismatch(
            path, f"has schema version {schema}, this program reads {SCHEMA}", "prepare the store again"
        )
    try:
        return StoreHeader(
            **{
                **content,
                "task": TaskConfig.model_validate(content["task"]),
                "static_names": tuple(content["static_names"]),
                "splits": tuple(content["splits"]),
                "static_codes": tuple(content["static_codes"]),
                "outside": {code: tuple(counts) for code, counts in content.get("outside", {}).items()},
            }
        )
    except (KeyError, TypeError, ValueError) as fault:
        raise damaged(path, f"{HEADER}: {type(fault).__name__} {fault}".splitlines()[0]) from None


def refuse_mismatch(
    path: Path, header: StoreHeader, dataset: str, vocabulary_hash: str, task: TaskConfig
) -> None:
    """Raise `StoreMismatch` where the store at `path` was not made for these."""
    differences = []
    if header.dataset != dataset:
        states = f"{header.dataset[:12] or 'unknown'}, now {dataset[:12] or 'unknown'}"
        differences.append(f"another state of the data set ({states})")
    if header.vocabulary_hash != vocabulary_hash:
        differences.append(f"vocabulary {header.vocabulary_hash[:12]}, not {vocabulary_hash[:12]}")
    for key in TaskConfig.model_fields:
        made, wanted = getattr(header.task, key), getattr(task, key)
        if made != wanted:
            differences.append(f"task {key} {made}, not {wanted}")
    if differences:
        raise StoreMismatch(path, f"was made for {'; '.join(differences)}", "prepare the store again")


def damaged(path: Path, what: str) -> InputFault:
    """The fault of a store whose files are not as they were written."""
    return InputFault(path, f"is a damaged store: {what}", "prepare the store again")
