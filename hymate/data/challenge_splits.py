"""Which stays of PhysioNet 2012 train, tune and are held out: three plans.

| plan       | held_out                                    | tuning                       | train       |
|------------|---------------------------------------------|------------------------------|-------------|
| stratified | 20 % of each site                           | 10 % of each site            | the rest    |
| protocol   | set a, when it is there                     | the lineage's 20 % of b + c  | the other 80 % |
| protocol   | without set a: the lineage's 20 % of b + c  | 10 % of b + c, from the 80 % | the rest    |
| fold       | the K-th of N folds of b + c                | 10 % of b + c, from the rest | the rest    |

"The lineage" is STraTS, whose split HyMaTE and triplet_mamba share (`hymate.data.splits.lineage_order`).
Set a is that lineage's test set: it is no part of a cross-validation and is left out of `fold`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import polars as pl

from hymate.data.meds import SPLITS
from hymate.data.splits import fold_splits, lineage_order, stratified_splits, with_held_out
from hymate.errors import InputFault

SplitKind = Literal["stratified", "protocol", "fold"]

TEST_SET = "set_a"
_PROTOCOL_SETS = {"set_b", "set_c"}


@dataclass(frozen=True)
class SplitPlan:
    """A plan and its numbers; `fold` counts from 1 to `folds`. `ValueError` when it does not."""

    kind: SplitKind = "stratified"
    seed: int = 0
    fold: int = 1
    folds: int = 5

    def __post_init__(self) -> None:
        if not (self.folds >= 2 and 1 <= self.fold <= self.folds):
            raise ValueError(f"fold {self.fold} is none of {self.folds} folds")

    def figures(self) -> dict[str, int | str]:
        """What the summary says of the plan."""
        numbers = {"fold": self.fold, "folds": self.folds} if self.kind == "fold" else {}
        return {"split_by": self.kind, "seed": self.seed, **numbers}


def leave_out_test_set(stays: pl.DataFrame, plan: SplitPlan, raw: Path) -> pl.DataFrame:
    """The stays `plan` is made of.

    Args:
        stays: with the column `set`.

    Raises:
        InputFault: the sets in `raw` are not those that the plan needs.
    """
    sets = set(stays["set"].unique())
    if plan.kind == "protocol" and not sets >= _PROTOCOL_SETS:
        what = f"holds no stay of {' and '.join(sorted(_PROTOCOL_SETS - sets)).replace('_', '-')}"
        raise InputFault(raw, what, "the protocol splits set-b and set-c together: add them")
    if plan.kind != "fold":
        return stays
    if sets == {TEST_SET}:
        raise InputFault(raw, "holds set-a only", "folds are made of set-b and set-c: add them")
    return stays.filter(pl.col("set") != TEST_SET)


def split_stays(stays: pl.DataFrame, plan: SplitPlan) -> pl.DataFrame:
    """`subject_id`, `split` of every stay.

    Args:
        stays: `subject_id`, `site`, `set`, `rank` (place in the set's outcomes file), `died`.
    """
    strata = stays.select("subject_id", "site", "set", stratum="died")
    if plan.kind == "stratified":
        sites = (group for _, group in strata.group_by("site", maintain_order=True))
        return pl.concat(stratified_splits(group, plan.seed) for group in sites)
    if plan.kind == "fold":
        return fold_splits(strata, plan.fold, plan.folds, plan.seed)
    known = stays.filter(pl.col("set") != TEST_SET).sort("set", "rank")
    train, rest = lineage_order(known["subject_id"].to_list())
    test = stays.filter(pl.col("set") == TEST_SET)["subject_id"].to_list()
    if not test:
        return with_held_out(strata, set(rest), plan.seed)
    named = dict.fromkeys(train, SPLITS[0]) | dict.fromkeys(rest, SPLITS[1]) | dict.fromkeys(test, SPLITS[2])
    schema = {"subject_id": pl.Int64, "split": pl.String}
    return pl.DataFrame(list(named.items()), schema=schema, orient="row")
