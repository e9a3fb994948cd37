"""The study's `simulation:` section: where hospitals come from, and what each may use of the machine."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from hymate.config import Count, Frozen, Positive
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.partition import PartitionConfig

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class PhysioNet2012Source(Frozen):
    """The PhysioNet/CinC Challenge 2012 files, split into hospitals."""

    raw: str
    """Folder with `set-*.tar.gz` (or folders) and `Outcomes-*.txt`; ${VARIABLES} are filled in, and a
    relative path starts where the command is run."""
    site_by: Literal["icu_type", "set", "none"] = "icu_type"
    seed: int = 0

    @field_validator("raw")
    @classmethod
    def _fill_in(cls, raw: str) -> str:
        filled = os.path.expandvars(raw)
        unset = re.search(r"\$\{?(\w+)\}?", filled)
        if unset:
            raise ValueError(
                f"the environment variable {unset[1]} is not set: let it name the folder that holds "
                "set-b.tar.gz and Outcomes-b.txt"
            )
        return filled


class SiteResources(Frozen):
    """What one simulated hospital holds while it works; as many work at a time as fit."""

    cpus: Positive = 1.0
    """CPU cores; a share of one where several hospitals are to take turns on it."""
    gpus: Annotated[float, Field(ge=0.0)] = 0.0
    """GPUs, or a share of one."""
    memory_gib: Annotated[float, Field(ge=1.0)] | None = None
    """Memory its process may take, itself (some 0.6 GiB) included: beyond it the hospital's attempt fails.
    A process that is refused memory as it begins may hang, hence at least 1. null: no limit, and 1 GiB each
    is planned with."""


SOURCES = ("synthetic", "physionet2012", "sites", "partition")


class SimulationConfig(Frozen):
    """Only `hymate-simulate` reads this: where its hospitals come from. Exactly one source."""

    synthetic: SyntheticConfig | None = None
    """Made-up hospitals with a known truth: see docs/synthetic.md."""
    physionet2012: PhysioNet2012Source | None = None
    sites: dict[Name, Path] | None = None
    """Hospitals by name, each the folder of its MEDS data set, or a site file (`*.yaml`) whose data, policy
    and threads count; relative paths start at the study file."""
    partition: PartitionConfig | None = None
    """One MEDS data set, its subjects dealt out to hospitals by a rule."""
    min_cell: Annotated[int, Field(ge=1)] = 5
    """Every simulated hospital's `policy.min_cell`, but for those that have a site file."""
    workers: Count | None = None
    """Hospitals that train at the same time; default: as many as CPU cores and free memory are for."""
    resources: SiteResources = SiteResources()
    address: str | None = None
    """A Ray cluster that runs already: `auto`, or HOST:PORT. Every machine of it must have this release
    installed, and find data and run directory under the same paths. null: Ray is started here."""

    @model_validator(mode="after")
    def _one_source(self) -> SimulationConfig:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"name exactly one source of hospitals: {', '.join(SOURCES[:-1])} or {SOURCES[-1]} "
                f"(given: {', '.join(given) or 'none'})"
            )
        return self

    def with_paths(self, place: Callable[[Path], Path]) -> SimulationConfig:
        """A copy with every path of a data set or site file replaced by `place(path)`."""
        changed: dict[str, object] = {}
        if self.sites is not None:
            changed["sites"] = {name: place(path) for name, path in self.sites.items()}
        if self.partition is not None:
            changed["partition"] = self.partition.model_copy(update={"data": place(self.partition.data)})
        return self.model_copy(update=changed)

    def as_if_elsewhere(self) -> SimulationConfig:
        """The same hospitals, whatever machine they are simulated on."""
        return self.model_copy(update={"workers": None, "resources": SiteResources(), "address": None})
