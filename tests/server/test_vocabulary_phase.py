"""The vocabulary phase through the real ClientApp: what leaves a hospital, and what is agreed on."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from flwr.serverapp import Grid

from client.agreed import agreed_store
from client.site import load_site
from hymate.config import TaskConfig
from hymate.data.meds import MedsDataset
from hymate.data.statistics import SiteStatistics
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.joining_protocol import DescribeRequest
from server.checkpoint import Checkpoints
from server.journal import Journal
from server.phase_clock import PhaseClock
from server.phases import Agreement, agree_vocabulary, describe
from server.report.vocabulary import vocabulary_section
from server.rounds import Federation
from server.run import Run
from server.study import StudyConfig, dump_study, load_study
from tests.in_process import InProcessGrid, lay_out, small_study

MIN_CELL = 5


def phase(folder: Path, sites: list[str], study: StudyConfig) -> tuple[Agreement, InProcessGrid]:
    """Describe and vocabulary, as a whole study runs them."""
    grid = InProcessGrid(folder, sites)
    journal = Journal(folder)
    federation = Federation(
        cast(Grid, grid),
        study.participation,
        journal,
        len(sites),
        DescribeRequest(task=study.task),
        clock=grid.time,
    )
    checkpoints = Checkpoints(folder)
    run = Run(study, folder, federation, journal, checkpoints, PhaseClock(), "run")
    try:
        describe(run)
        return agree_vocabulary(run), grid
    finally:
        journal.close()


def change_events(folder: Path, change: Callable[[pl.DataFrame], pl.DataFrame], split: str = "train") -> None:
    """Rewrite the events of one split of a MEDS data set."""
    for shard in sorted((folder / "data" / split).glob("*.parquet")):
        table = pq.read_table(shard)
        events = pl.from_arrow(table)
        assert isinstance(events, pl.DataFrame)
        changed = change(events).select(events.columns)
        changed = changed.sort("subject_id", "time", nulls_last=False, maintain_order=True)
        pq.write_table(changed.to_arrow().cast(table.schema), shard)


def plant(events: pl.DataFrame, code: str, values: list[float | None], static: bool = False) -> pl.DataFrame:
    """One more event for as many subjects as there are values."""
    timed = events.filter(pl.col("time").is_not_null())
    rows = timed.group_by("subject_id", maintain_order=True).last().head(len(values))
    assert len(rows) == len(values)
    rows = rows.with_columns(code=pl.lit(code), numeric_value=pl.Series(values, dtype=pl.Float32))
    if static:
        rows = rows.with_columns(time=pl.lit(None, events.schema["time"]))
    return pl.concat([events, rows.select(events.columns)])


RARE_VALUES = [999.125, 987.25, 963.5, 951.0625]  # of four people, far above every heart rate


def with_rarities(events: pl.DataFrame) -> pl.DataFrame:
    events = plant(events, "RARE", [123.457] * 4)
    events = plant(events, "HR", RARE_VALUES)  # type: ignore[arg-type]
    events = plant(events, "NOTED", [4567.891, 4321.987, 5432.101] + [None] * 20)
    events = plant(events, "ONCE_WITHOUT", [None] + [float(value) + 0.25 for value in range(30)])
    events = plant(events, "SEX//X", [None] * 2, static=True)
    return plant(events, "SHOE_SIZE", [41.5, 42.25, 43.125, 44.0625], static=True)


def numbers(content: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], float]]:
    """Every number of a record with the keys that lead to it; JSON inside strings is opened."""
    if isinstance(content, str) and content[:1] in ("{", "["):
        content = json.loads(content)
    if isinstance(content, dict):
        for key, value in content.items():
            yield from numbers(value, (*path, key))
    elif isinstance(content, list):
        for value in content:
            yield from numbers(value, (*path, str(value.get("code")) if isinstance(value, dict) else ""))
    elif isinstance(content, int | float) and not isinstance(content, bool):
        yield path, float(content)


def test_nothing_about_few_people_leaves_a_hospital(tmp_path: Path) -> None:
    (site,) = lay_out(tmp_path, 1, stays=120, min_cell=MIN_CELL)
    data = tmp_path / "data" / site
    change_events(data, with_rarities)
    agreement, grid = phase(tmp_path, [site], small_study(vocabulary={"min_count": 1}))
    records = [json.loads(str(reply.content.config_records["config"]["json"])) for reply in grid.replies]
    assert len(records) == 3  # describe, statistics, prepare
    text = json.dumps(records)
    for code in ("RARE", "SEX//X", "SHOE_SIZE"):
        assert code not in text
    for code in ("HR", "NOTED", "ONCE_WITHOUT"):
        assert f'\\"{code}\\"' in text

    windows = cut_windows(MedsDataset.open(data), TaskConfig())
    stays = windows.stays.select("stay", "subject_id", "split")
    timed = windows.triplets.select("stay", "code", "value")
    static = windows.static.select("stay", "code", pl.col("numeric_value").alias("value"))
    rows = pl.concat([timed, static]).join(stays, on="stay").filter(pl.col("value").is_finite())
    train = rows.filter(pl.col("split") == "train")  # statistics are of no other
    held_by = train.group_by("code", "value").agg(pl.col("subject_id").n_unique())
    rare = held_by.filter(pl.col("subject_id") < MIN_CELL)
    rare_of = {code: set(group["value"].to_list()) for (code,), group in rare.group_by("code")}
    assert sum(map(len, rare_of.values())) > 500

    checked = 0
    for path, number in numbers(records):
        if path[-1] in ("seconds",):
            continue
        assert number not in RARE_VALUES, path
        if {"edges", "mean", "m2"} & set(path):
            code = path[path.index("dynamic" if "dynamic" in path else "static") + 1]
            assert np.float32(number) not in rare_of.get(code, set()), (path, number)
            checked += 1
        elif path[-1] not in ("schema",):
            assert number == 0 or number >= MIN_CELL, (path, number)
        if path[-1] in ("subjects", "numeric_subjects"):
            assert number % MIN_CELL == 0
    assert checked > 300

    statistics = SiteStatistics.from_json(records[1]["statistics"])
    told = {entry.code: entry for entry in statistics.dynamic}
    for entry in statistics.dynamic:
        for sketch in entry.sketches:
            own = train.filter(pl.col("code") == entry.code)
            place = np.searchsorted(sketch.edges, own["value"].to_numpy().astype(float), side="right")
            for bin_, count in enumerate(sketch.counts):
                people = own["subject_id"].to_numpy()[place == bin_]
                assert count == len(people)
                assert count == 0 or len(np.unique(people)) >= MIN_CELL
    assert max(told["HR"].sketches[0].edges) < 300
    assert (told["NOTED"].count, told["NOTED"].numeric, told["NOTED"].sketches) == (23, 0, ())
    assert told["ONCE_WITHOUT"].count == told["ONCE_WITHOUT"].numeric == 30

    # The site counted what it left out and clipped; of too few people it says nothing.
    store = agreed_store(
        load_site(tmp_path / "sites" / site / "site.yaml"), TaskConfig(), agreement.vocabulary.hash
    )
    assert store.header.unknown_codes == {"RARE": 4}
    assert store.header.unknown_subjects == 4
    assert store.header.outside["HR"] == (4, 4)
    prepared = agreement.prepared[site]
    assert (prepared.unknown_triplets, prepared.unknown_codes) == (None, None)
    assert "HR" not in prepared.outside
    assert prepared.triplets == store.header.triplets


def test_what_enough_people_have_is_told(tmp_path: Path) -> None:
    """The counterpart: the same things of five people each do leave."""
    (site,) = lay_out(tmp_path, 1, stays=120, min_cell=MIN_CELL)
    data = tmp_path / "data" / site
    change_events(data, lambda events: plant(events, "HR", [900.0, 910.0, 920.0, 930.0, 940.0]))
    change_events(data, lambda events: plant(events, "NEW", [1.0] * 6), split="held_out")
    agreement, _ = phase(tmp_path, [site], small_study(vocabulary={"plausible": {"margin": 0.0}}))
    prepared = agreement.prepared[site]
    assert (prepared.unknown_triplets, prepared.unknown_codes) == (6, 1)
    assert prepared.outside["HR"] >= 5
    entry = next(code for code in agreement.statistics[site].dynamic if code.code == "HR")
    assert entry.sketches[0].counts[-1] >= 5


def two_hospitals(folder: Path) -> list[str]:
    """The second writes glucose in mmol/L and calls the heart rate `puls`; the first has too few people
    with a third unit to tell."""
    sites = lay_out(folder, 2, stays=100, min_cell=MIN_CELL)

    def other_words(events: pl.DataFrame) -> pl.DataFrame:
        glucose = pl.col("code") == "Glucose"
        return events.with_columns(
            numeric_value=pl.when(glucose)
            .then(pl.col("numeric_value") / 18)
            .otherwise(pl.col("numeric_value")),
            code=pl.col("code").replace("HR", "puls"),
        )

    second = folder / "data" / sites[1]
    for split in ("train", "tuning", "held_out"):
        change_events(second, other_words, split)
    codes = second / "metadata" / "codes.parquet"
    table = pl.read_parquet(codes)
    table = table.with_columns(
        code=pl.col("code").replace("HR", "puls"),
        unit=pl.when(pl.col("code") == "Glucose").then(pl.lit("MMOL/L")).otherwise(pl.col("unit")),
    )
    pq.write_table(table.to_arrow().cast(pq.read_table(codes).schema), codes)
    return sites


def test_units_that_disagree_end_the_phase_in_one_line(tmp_path: Path) -> None:
    sites = two_hospitals(tmp_path)
    with pytest.raises(InputFault) as fault:
        phase(tmp_path, sites, small_study())
    assert str(fault.value) == (
        "code 'Glucose': is measured in 'MMOL/L' at hospital_2 and 'mg/dL' at hospital_1; convert to one "
        "unit at the sites, or say how under vocabulary.units.Glucose in the study file"
    )
    assert not (tmp_path / "vocabulary.json").exists()


RULES: dict[str, Any] = {
    "units": {"Glucose": {"unit": "mg/dL", "from": {"mmol/L": {"factor": 18.0}}}},
    "mapping": [{"local": "puls", "shared": "HR", "site": "hospital_2"}],
}


def test_rules_and_mapping_make_two_hospitals_speak_alike(tmp_path: Path) -> None:
    plain = lay_out(tmp_path / "plain", 2, stays=100, min_cell=MIN_CELL)
    wanted, _ = phase(tmp_path / "plain", plain, small_study())
    sites = two_hospitals(tmp_path / "mixed")
    found, _ = phase(tmp_path / "mixed", sites, small_study(vocabulary=RULES))

    assert list(found.vocabulary.index) == list(wanted.vocabulary.index)
    for ours, theirs in zip(found.vocabulary.codes, wanted.vocabulary.codes, strict=True):
        assert (ours.code, ours.unit, ours.numeric) == (theirs.code, theirs.unit, theirs.numeric)
        assert ours.mean == pytest.approx(theirs.mean, rel=1e-6)  # values went through float32 twice
        assert ours.std == pytest.approx(theirs.std, rel=1e-6)
    for site, task in ((sites[0], TaskConfig()), (sites[1], TaskConfig())):
        stores = [
            agreed_store(load_site(folder / "sites" / site / "site.yaml"), task, result.vocabulary.hash)
            for folder, result in ((tmp_path / "mixed", found), (tmp_path / "plain", wanted))
        ]
        assert stores[0].code.tolist() == stores[1].code.tolist()
        glucose = stores[0].code == found.vocabulary.index["Glucose"]
        # The two hospitals' sketches cut glucose at other round numbers: ranges differ by a little.
        assert np.allclose(stores[0].value[~glucose], stores[1].value[~glucose], atol=1e-4)
        assert np.quantile(np.abs(stores[0].value[glucose] - stores[1].value[glucose]), 0.9) < 1e-4

    section = vocabulary_section(found.vocabulary, found.statistics, found.prepared)
    assert section["units"]["Glucose"] == {
        "unit": "mg/dL",
        "converted": {"hospital_2": "MMOL/L"},
        "undeclared": [],
    }
    assert section["coverage"]["dynamic"]["HR"].keys() == set(sites)
    assert Vocabulary.load(tmp_path / "mixed" / "vocabulary.json") == found.vocabulary


def test_the_mapping_file_becomes_part_of_the_study(tmp_path: Path) -> None:
    (tmp_path / "codes.csv").write_text("local,shared,site\npuls,HR,hospital_2\n")
    path = tmp_path / "study.yaml"
    path.write_text("name: mapped\nvocabulary: {mapping: codes.csv, scaling: robust}\n")
    study = load_study(path)
    assert study == load_study_text(tmp_path, dump_study(study))
    assert small_study(vocabulary=RULES).vocabulary.mapping == study.vocabulary.mapping
    path.write_text("name: mapped\nvocabulary: {mapping: gone.csv}\n")
    with pytest.raises(InputFault, match=r"gone\.csv: no such file"):
        load_study(path)


def load_study_text(folder: Path, text: str) -> StudyConfig:
    path = folder / "as_run" / "study.yaml"
    path.parent.mkdir()
    path.write_text(text)
    return load_study(path)


def test_the_report_says_who_has_what(tmp_path: Path) -> None:
    sites = lay_out(tmp_path, 3, stays=100, min_cell=MIN_CELL)
    for site in sites[:2]:
        for split in ("train", "tuning", "held_out"):
            change_events(tmp_path / "data" / site, lambda e: e.filter(pl.col("code") != "Lactate"), split)
    change_events(tmp_path / "data" / sites[0], lambda e: plant(e, "HR", [3000.0] * 8))
    factor = pl.when(pl.col("code") == "Na").then(10.0).otherwise(1.0)
    change_events(
        tmp_path / "data" / sites[1], lambda e: e.with_columns(numeric_value=pl.col("numeric_value") * factor)
    )
    # Eight slips among a thousand heart rates lie within the default quantiles of 0.1 %.
    settings = {"min_sites": 2, "plausible": {"low": 0.02, "high": 0.98}}
    groups = {"groups": ["GENDER", "GENDR", {"code": "AGE", "cuts": [65]}]}
    agreement, _ = phase(tmp_path, sites, small_study(vocabulary=settings, evaluation=groups))
    told = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["text"] for line in told if line["event"] == "note"] == [
        "evaluation.groups: no hospital told of 'GENDR', nobody will be in it; did you mean 'GENDER'?"
    ]
    section = json.loads(
        json.dumps(vocabulary_section(agreement.vocabulary, agreement.statistics, agreement.prepared))
    )
    assert {"code": "Lactate", "reason": "seen at 1 sites, min_sites is 2"} in section["dropped"]
    shares = section["coverage"]["dynamic"]["Lactate"]
    assert (shares[sites[0]], shares[sites[1]]) == (None, None)
    assert 0.1 < shares[sites[2]] <= 1.0
    assert section["encoding"][sites[2]]["unknown_codes"] >= 1
    assert 0.0 < section["encoding"][sites[2]]["unknown_share"] < 0.2
    assert section["encoding"][sites[0]]["outside"]["HR"] >= 8
    assert {(found["code"], found["site"]) for found in section["unusual"]} >= {("Na", sites[1])}
    features = {feature["code"]: feature for feature in section["features"]}
    assert features["HR"]["high"] < 3000
    assert features["GENDER//F"]["mean"] is None
    assert len(section["features"]) == agreement.vocabulary.size + len(agreement.vocabulary.static)
