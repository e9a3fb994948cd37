"""The figures a data command ends with: how many stays, deaths, observations, and who is in which split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import polars as pl

from hymate.data.meds import SPLITS


def summarise_sites(sites: Mapping[str, tuple[pl.DataFrame, pl.DataFrame, pl.DataFrame]]) -> dict[str, Any]:
    """Count per site and in total (JSON-ready).

    Args:
        sites: name -> (events, splits, labels with a `boolean_value`), one stay a subject.

    Returns:
        `sites.<name>` and `total`, each with `stays`, `deaths`, `observations` (events with a time),
        `median_observations` a stay, and stays per split.
    """
    per_site = {name: _figures(*tables) for name, tables in sites.items()}
    pooled = [pl.concat(tables) for tables in zip(*sites.values(), strict=True)]
    return {"sites": per_site, "total": _figures(*pooled)}


def _figures(events: pl.DataFrame, splits: pl.DataFrame, labels: pl.DataFrame) -> dict[str, Any]:
    dynamic = events.filter(pl.col("time").is_not_null())
    per_stay = (
        splits.select("subject_id")
        .join(dynamic.group_by("subject_id").len(), on="subject_id", how="left")["len"]
        .fill_null(0)
    )
    return {
        "stays": len(splits),
        "deaths": int(labels["boolean_value"].sum()),
        "observations": len(dynamic),
        "median_observations": per_stay.median(),
        "splits": {split: int((splits["split"] == split).sum()) for split in SPLITS},
    }
