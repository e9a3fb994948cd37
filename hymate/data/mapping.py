"""From a site's own codes to the study's: names, conversions, and the mapping file that says so."""

from __future__ import annotations

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import yaml

from hymate.config import MappedCode, VocabularyConfig, parse
from hymate.data.units import conversion
from hymate.errors import InputFault

if TYPE_CHECKING:
    import polars as pl

    from hymate.data.tasks import Windows
    from hymate.data.vocabulary import Vocabulary

_COLUMNS = ("local", "shared", "site", "factor", "offset", "unit")


class SharedCode(NamedTuple):
    """What a local code is called in the study; value * factor + offset is in `unit` ("": undeclared)."""

    code: str
    unit: str
    factor: float = 1.0
    offset: float = 0.0


def shared_code(local: str, unit: str, mapping: Sequence[MappedCode], site: str) -> SharedCode:
    """The study's name of a local code measured in `unit`; the code itself where no line is about it."""
    lines = [line for line in mapping if line.local == local and line.site in (None, site)]
    if not lines:
        return SharedCode(local, unit)
    line = next((line for line in lines if line.site), lines[0])
    after = line.unit if line.unit is not None else "" if line.converts else unit
    return SharedCode(line.shared, after, line.factor, line.offset)


def in_shared_codes(
    frame: pl.DataFrame, values: str, rename: Callable[[str], SharedCode], name: Callable[[SharedCode], str]
) -> pl.DataFrame:
    """`frame` with column `code` renamed and column `values` (Float32) converted; row order stays."""
    import polars as pl

    local = frame["code"].unique().sort()
    found = [rename(code) for code in local]
    names = [name(shared) for shared in found]
    if names == local.to_list() and all(shared[2:] == (1.0, 0.0) for shared in found):
        return frame
    which = frame["code"].cast(pl.Enum(local)).to_physical()
    converted = frame.with_columns(pl.Series("code", names, dtype=pl.String)[which])
    if all(shared[2:] == (1.0, 0.0) for shared in found):
        return converted
    position = which.to_numpy()
    factor = np.array([shared.factor for shared in found])[position]
    offset = np.array([shared.offset for shared in found])[position]
    value = pl.col(values).cast(pl.Float64) * pl.Series(factor) + pl.Series(offset)
    return converted.with_columns(value.cast(pl.Float32).alias(values))


def translated(windows: Windows, units: Mapping[str, str], vocabulary: Vocabulary, site: str) -> Windows:
    """A site's windows in the codes and units of `vocabulary`; the same object where nothing changes.

    `units` are the site's own, by local code. A code whose unit nobody can convert keeps its values
    and takes a name that no vocabulary has ("Glucose [mmol/L]"), so it is counted with the unknown.
    """
    agreed = {entry.code: entry.unit for entry in (*vocabulary.codes, *vocabulary.static)}
    lines: dict[str, list[MappedCode]] = {}
    for line in vocabulary.mapping:
        lines.setdefault(line.local, []).append(line)

    def rename(local: str) -> SharedCode:
        shared = shared_code(local, units.get(local) or "", lines.get(local, ()), site)
        how = conversion(shared.unit, agreed.get(shared.code, ""), vocabulary.units.get(shared.code))
        if how is None:
            return SharedCode(f"{shared.code} [{shared.unit}]", shared.unit)
        return SharedCode(
            shared.code, "", shared.factor * how.factor, shared.offset * how.factor + how.offset
        )

    triplets = in_shared_codes(windows.triplets, "value", rename, lambda shared: shared.code)
    static = in_shared_codes(windows.static, "numeric_value", rename, lambda shared: shared.code)
    if triplets is windows.triplets and static is windows.static:
        return windows
    return replace(windows, triplets=triplets, static=static)


def with_mapping_lines(config: VocabularyConfig, folder: Path) -> VocabularyConfig:
    """`config` with the lines of its mapping file, found from `folder`, in place of the file's name."""
    if not isinstance(config.mapping, Path):
        return config
    return config.model_copy(update={"mapping": load_mapping(folder / config.mapping)})


def load_mapping(path: Path) -> tuple[MappedCode, ...]:
    """Read a mapping file.

    CSV: a header with `local`, `shared` and any of `site`, `factor`, `offset`, `unit`. YAML: a list of
    such entries, or a plain mapping of local to shared codes.

    Raises:
        InputFault: it cannot be read, a line is not as it should be, or two lines contradict.
    """
    if not path.is_file():
        raise InputFault(path, "no such file", "check vocabulary.mapping in the study file")
    try:
        rows = _csv_rows(path) if path.suffix.lower() == ".csv" else _yaml_rows(path)
    except (UnicodeDecodeError, yaml.YAMLError, csv.Error) as fault:
        raise InputFault(path, f"cannot be read: {str(fault).splitlines()[0]}", "correct it there") from None
    lines = tuple(parse(MappedCode, row, f"{path} {where}") for where, row in rows)
    seen: dict[tuple[str, str | None], MappedCode] = {}
    for line in lines:
        other = seen.setdefault((line.local, line.site), line)
        if other != line:
            raise InputFault(
                path,
                f"'{line.local}' is mapped to '{other.shared}' and to '{line.shared}', or in two ways",
                "keep one line a local code, or one a local code and site",
            )
    return lines


def _csv_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, restkey="more columns than the header")
        missing = {"local", "shared"} - set(reader.fieldnames or ())
        if missing:
            raise InputFault(
                path, f"has no column {' and '.join(sorted(missing))}", f"columns: {', '.join(_COLUMNS)}"
            )
        return [
            (f"line {reader.line_num}", {key: value for key, value in row.items() if value not in ("", None)})
            for row in reader
        ]


def _yaml_rows(path: Path) -> list[tuple[str, dict[str, Any]]]:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    if isinstance(content, dict):
        return [(f"key '{local}'", {"local": local, "shared": shared}) for local, shared in content.items()]
    if isinstance(content, list) and all(isinstance(row, dict) for row in content):
        return [(f"entry {number}", row) for number, row in enumerate(content, start=1)]
    raise InputFault(
        path, "is neither a list of entries nor 'local: shared' lines", f"keys: {', '.join(_COLUMNS)}"
    )
