"""Where a table's data lie: laid out once by `hymate data`, below OUT/data."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.experiments.files import DataConfig
from hymate.data.challenge_files import find_sets
from hymate.errors import InputFault

RAW = "HYMATE_PHYSIONET2012"


@dataclass(frozen=True)
class Place:
    """One data set. `key` names its content: the same key, the same data."""

    key: str
    label: str
    """What tells it from the table's other data sets: "fold 2"; "" where there is one only."""
    told: str
    """For a reader of the table."""
    arguments: tuple[str, ...]
    """Of `hymate data`, without --out."""
    synthetic: str = ""
    """The file that --config names, for made-up data."""

    def folder(self, out: Path) -> Path:
        """The MEDS data set, once it is laid out."""
        return out / "data" / self.key / ("hospital_1" if self.synthetic else "all")

    def command(self, out: Path) -> str:
        """As a person would type it."""
        config = ["--config", f"{self.key}.yaml"] if self.synthetic else []
        target = str(out / "data" / self.key)
        return shlex.join(["hymate", "data", *self.arguments, *config, "--out", target])

    def lay_out(self, out: Path) -> None:
        """Make the data set unless it is there; `InputFault` where that fails."""
        target = out / "data" / self.key
        if self.folder(out).is_dir():
            return
        arguments = list(self.arguments)
        if self.synthetic:
            target.parent.mkdir(parents=True, exist_ok=True)
            config = target.with_name(f"{self.key}.yaml")
            config.write_text(self.synthetic, encoding="utf-8")
            arguments += ["--config", str(config)]
        done = subprocess.run(
            [sys.executable, "-m", "hymate.cli", "data", *arguments, "--out", str(target)],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["no message"]
            raise InputFault(target, f"could not be made ({said[-1]})", "mend that and run again")

    def held_out(self, out: Path) -> str:
        """How many stays are reported on."""
        content: dict[str, Any] = json.loads(
            (self.folder(out).parent / "summary.json").read_text(encoding="utf-8")
        )
        return f"{content['total']['splits']['held_out']:,}"


def places(config: DataConfig, raw: Path | None) -> tuple[Place, ...]:
    """The data sets that a table's rows are trained on; `InputFault` without the raw files they need."""
    if config.synthetic is not None:
        content = {**config.synthetic, "hospitals": 1}
        text = yaml.safe_dump(content, sort_keys=True)
        key = "synthetic-" + hashlib.sha256(text.encode()).hexdigest()[:8]
        told = f"made up: `{json.dumps(config.synthetic)}`"
        return (Place(key, "", told, ("synthetic",), text),)
    if raw is None:
        raise InputFault("--data", "is missing", f"give the folder of PhysioNet-2012, or set {RAW}")
    sets = "".join(each.letter for each in find_sets(raw))
    base = ("physionet2012", "--raw", str(raw), "--site-by", "none", "--splits")
    if config.physionet2012 == "protocol":
        where = "set a" if "a" in sets else "the lineage's 20 % of sets b and c"
        told = f"PhysioNet-2012; held out: {where}"
        return (Place(f"physionet2012-protocol-{sets}", "", told, (*base, "protocol")),)
    return tuple(
        Place(
            f"physionet2012-fold-{fold}-of-{config.folds}",
            f"fold {fold}",
            f"PhysioNet-2012, sets b and c, {config.folds}-fold cross-validation",
            (*base, "fold", "--fold", str(fold), "--folds", str(config.folds)),
        )
        for fold in range(1, config.folds + 1)
    )


def lay_out_all(found: Sequence[Place], out: Path) -> None:
    """Every place, told as it is made."""
    for place in found:
        if not place.folder(out).is_dir():
            print(f"data: {place.command(out)}", flush=True)
            place.lay_out(out)
