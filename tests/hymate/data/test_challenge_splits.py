"""The three ways to split PhysioNet 2012, on hand-made sets and on the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hymate.data.challenge_splits import SplitPlan
from hymate.data.meds import MedsDataset
from hymate.data.physionet2012 import prepare_physionet2012
from hymate.data.splits import fold_splits, with_held_out
from hymate.errors import InputFault
from tests.hymate.data.challenge import OUTCOMES_HEADER, ordinary, write_set


def split_of(out: Path) -> dict[str, set[int]]:
    """Split -> its subjects over all sites; refuses a subject in two."""
    tables = [MedsDataset.open(site).splits() for site in sorted(out.iterdir()) if site.is_dir()]
    table = pl.concat(tables)
    assert not table["subject_id"].is_duplicated().any()
    return {split: set(group["subject_id"]) for (split,), group in table.group_by("split")}


def prepare(raw: Path, out: Path, **plan: Any) -> dict[str, set[int]]:
    prepare_physionet2012(raw, out, site_by="icu_type", plan=SplitPlan(**plan))
    return split_of(out)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """60 stays of set b, 40 of set c, every second one a death."""
    write_set(tmp_path / "raw", "b", ordinary(1000, 60))
    write_set(tmp_path / "raw", "c", ordinary(2000, 40))
    return tmp_path / "raw"


def lineage(raw: Path, usable: set[int]) -> tuple[list[int], list[int]]:
    """STraTS' preprocess_physionet_2012.py, step by step, on the outcomes files themselves."""
    order = []
    for letter in "bc":
        lines = (raw / f"Outcomes-{letter}.txt").read_text().splitlines()[1:]
        order += [int(line.split(",")[0]) for line in lines]
    order = [record for record in order if record in usable]
    np.random.seed(123)
    np.random.shuffle(order)
    return order[: int(0.8 * len(order))], order[int(0.8 * len(order)) :]


def test_protocol_without_set_a_holds_the_lineages_validation_out(raw: Path, tmp_path: Path) -> None:
    split = prepare(raw, tmp_path / "out", kind="protocol")
    train, validation = lineage(raw, {*range(1000, 1060), *range(2000, 2040)})
    assert split["held_out"] == set(validation)
    assert len(split["held_out"]) == 20
    assert split["tuning"] | split["train"] == set(train)
    assert len(split["tuning"]) == 10
    assert sum(subject % 2 for subject in split["tuning"]) == 5  # as many deaths as survivors, as in all


def test_the_order_of_the_outcomes_file_decides(raw: Path, tmp_path: Path) -> None:
    """Not the order of the records in the archive, nor their numbers."""
    before = prepare(raw, tmp_path / "1", kind="protocol")
    path = raw / "Outcomes-b.txt"
    lines = path.read_text().splitlines()[1:]
    path.write_text(OUTCOMES_HEADER + "".join(f"{line}\n" for line in reversed(lines)))
    after = prepare(raw, tmp_path / "2", kind="protocol")
    assert after["held_out"] != before["held_out"]
    assert after["held_out"] == set(lineage(raw, {*range(1000, 1060), *range(2000, 2040)})[1])


def test_protocol_with_set_a_keeps_it_for_the_test(raw: Path, tmp_path: Path) -> None:
    write_set(raw, "a", ordinary(1, 15))
    split = prepare(raw, tmp_path / "out", kind="protocol")
    train, validation = lineage(raw, {*range(1000, 1060), *range(2000, 2040)})
    assert split == {"train": set(train), "tuning": set(validation), "held_out": set(range(1, 16))}


def test_protocol_skips_stays_that_are_left_out(raw: Path, tmp_path: Path) -> None:
    """A stay with too few rows leaves the shuffle before it is shuffled, as in STraTS."""
    (raw / "set-b" / "1003.txt").write_text("Time,Parameter,Value\n00:00,RecordID,1003\n00:00,Age,54\n")
    split = prepare(raw, tmp_path / "out", kind="protocol")
    usable = {*range(1000, 1060), *range(2000, 2040)} - {1003}
    assert split["held_out"] == set(lineage(raw, usable)[1])
    assert 1003 not in set.union(*split.values())


def test_the_protocol_is_the_same_for_every_seed_but_tuning_is_not(raw: Path, tmp_path: Path) -> None:
    zero = prepare(raw, tmp_path / "0", kind="protocol", seed=0)
    one = prepare(raw, tmp_path / "1", kind="protocol", seed=1)
    assert zero["held_out"] == one["held_out"]
    assert zero["tuning"] != one["tuning"]


@pytest.mark.parametrize("folds", [2, 5, 7])
def test_folds_share_nobody_and_leave_nobody_out(raw: Path, tmp_path: Path, folds: int) -> None:
    held_out: list[set[int]] = []
    for fold in range(1, folds + 1):
        split = prepare(raw, tmp_path / str(fold), kind="fold", fold=fold, folds=folds)
        assert len(split["tuning"]) == 10
        assert sum(subject % 2 for subject in split["tuning"]) == 5
        assert sum(len(members) for members in split.values()) == 100
        held_out.append(split["held_out"])
    assert set.union(*held_out) == {*range(1000, 1060), *range(2000, 2040)}
    assert sum(len(each) for each in held_out) == 100
    for each in held_out:
        assert len(each) in (100 // folds, 100 // folds + 1)
        assert abs(sum(subject % 2 for subject in each) - 50 / folds) < 1
    again = prepare(raw, tmp_path / "again", kind="fold", fold=1, folds=folds, seed=1)
    assert again["held_out"] != held_out[0]


def test_set_a_is_no_part_of_a_cross_validation(raw: Path, tmp_path: Path) -> None:
    without = prepare(raw, tmp_path / "1", kind="fold")
    write_set(raw, "a", ordinary(1, 15))
    summary = prepare_physionet2012(raw, tmp_path / "2", site_by="set", plan=SplitPlan("fold"))
    assert split_of(tmp_path / "2") == without
    assert set(summary["sites"]) == {"set_b", "set_c"}
    assert summary["total"]["stays"] == 100
    named = "stays of set-a (the test set is no part of a cross-validation)"
    assert summary["left_out"][named] == 15
    # Its rows are not counted either: the medians and sums are those of b and c alone.
    assert summary["total"]["observations"] == 200
    assert {"split_by": "fold", "fold": 1, "folds": 5}.items() <= summary.items()


def test_what_a_plan_needs(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    write_set(raw, "a", ordinary(1, 15))
    with pytest.raises(InputFault, match="holds set-a only; folds are made of set-b and set-c"):
        prepare(raw, tmp_path / "out", kind="fold")
    write_set(raw, "b", ordinary(1000, 15))
    with pytest.raises(InputFault, match="holds no stay of set-c; the protocol splits set-b and set-c"):
        prepare(raw, tmp_path / "out", kind="protocol")
    assert not (tmp_path / "out").exists()
    for fold in (0, 6):
        with pytest.raises(ValueError, match=f"fold {fold} is none of 5"):
            SplitPlan("fold", fold=fold)


def test_a_stratum_of_one_and_a_held_out_subject_that_would_have_tuned() -> None:
    strata = pl.DataFrame({"subject_id": range(11), "stratum": [True] + [False] * 10})
    for held_out in ({0}, set(range(11)), set(range(1, 10))):
        split = with_held_out(strata, held_out, seed=0)
        assert set(split.filter(pl.col("split") == "held_out")["subject_id"]) == held_out
        assert split["subject_id"].to_list() == list(range(11))
    assert fold_splits(strata, 1, 11, seed=0)["split"].to_list().count("held_out") == 1


def test_the_real_protocol(physionet2012_raw: Path, tmp_path: Path) -> None:
    """7,991 usable stays: 6,392 / 1,599, of which the lineage's validation split is reported."""
    split = prepare(physionet2012_raw, tmp_path / "protocol", kind="protocol")
    usable = set.union(*split.values())
    assert len(usable) == 7991
    train, validation = lineage(physionet2012_raw, usable)
    assert (len(train), len(validation)) == (6392, 1599)
    assert split["held_out"] == set(validation)
    assert len(split["tuning"]) == 684 + 115  # of 6,838 survivors and 1,153 deaths
    assert len(split["train"]) == 6392 - 799


def test_real_folds(physionet2012_raw: Path, tmp_path: Path) -> None:
    prepare_physionet2012(physionet2012_raw, tmp_path / "one", site_by="none", plan=SplitPlan("fold"))
    dataset = MedsDataset.open(tmp_path / "one" / "all")
    labels = dataset.labels("in_hospital_mortality")
    strata = labels.select("subject_id", stratum="label")
    folds = [fold_splits(strata, fold, 5, seed=0) for fold in range(1, 6)]
    held_out = [set(fold.filter(pl.col("split") == "held_out")["subject_id"]) for fold in folds]
    assert sorted(len(each) for each in held_out) == [1598, 1598, 1598, 1598, 1599]
    assert len(set.union(*held_out)) == 7991
    assert split_of(tmp_path / "one")["held_out"] == held_out[0]
    for each in held_out:
        assert labels.filter(pl.col("subject_id").is_in(each))["label"].sum() in (230, 231)
