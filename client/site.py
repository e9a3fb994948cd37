"""The site file: where a hospital's data lies, and what the hospital allows."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from hymate.config import Count, Frozen, load_yaml, parse

SiteName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]


class Policy(Frozen):
    """What the hospital allows, whatever the coordinator asks."""

    min_cell: Annotated[int, Field(ge=1)] = 5
    """Counts below this never leave the site: they are joined with others, or not sent."""
    tasks: tuple[str, ...] | None = None
    """Tasks the site takes part in; none listed means every task it has labels for."""


class SiteConfig(Frozen):
    """One hospital. Relative paths are seen from the site file's folder."""

    name: SiteName
    data: Path
    """MEDS data set: `data/`, `metadata/`, `labels/`. Only read."""
    cache: Path = Path("cache")
    """Windows and triplet stores made from the data; rows of patients, safe to delete."""
    state: Path = Path("state")
    """What the site must remember between rounds; not safe to delete while a study runs."""
    policy: Policy = Policy()
    threads: Count = 1
    """CPU threads of one training step. Fixed, so that a repeated run gives the same bits."""


def load_site(path: Path) -> SiteConfig:
    """Read a site file; `InputFault` names file, key and remedy."""
    site = parse(SiteConfig, load_yaml(path), path)
    folder = path.resolve().parent
    return site.model_copy(
        update={field: folder / getattr(site, field) for field in ("data", "cache", "state")}
    )
