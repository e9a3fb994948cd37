"""The parts of the strategies' table: files, attacks, hospitals, expectations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from flwr.app import Message, RecordDict
from flwr.supercore.task_identity import TaskIdentity

from benchmarks.strategies import expectations as expectations_module
from benchmarks.strategies.attacks import Attack, tampered
from benchmarks.strategies.expectations import best_on_tuning, expectations
from benchmarks.strategies.figures import Figures, Scores, SiteFigures
from benchmarks.strategies.files import FOLDER, RowConfig, load_tables
from benchmarks.strategies.places import Place
from benchmarks.strategies.report import section, write_section
from benchmarks.strategies.runs import Table, table_of
from hymate.config import FinetuneConfig, ModelConfig, TaskConfig
from hymate.data.cohort.config import SyntheticConfig
from hymate.data.meds import MedsDataset
from hymate.errors import InputFault
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import Action, FinetuneRequest, TrainReply
from hymate.strategy_config import StrategyConfig
from server.study import load_study
from strategies.registry import ALGORITHMS
from strategies.wire import apart, pack, unpack, unpack_weights, with_beside

POPULATIONS = ("uneven", "physionet2012", "poisoned")
NO_ROW = {"bulyan"}
"""Algorithms that five sites are too few for."""


@pytest.fixture(autouse=True)
def raw(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HYMATE_PHYSIONET2012", str(tmp_path))


# --- files


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("name", POPULATIONS)
def test_every_row_is_a_study_and_is_run_once(name: str, reduced: bool, tmp_path: Path) -> None:
    table = table_of(load_tables(), name, None, tmp_path, FOLDER, reduced=reduced)
    assert table.faults == ()
    attacks = len(table.attacks) or 1
    for row, config in table.rows.items():
        candidates = len(config.candidates) or 1
        assert len(table.of(row, table.attacks[0] if table.attacks else "none")) == candidates * len(
            {run.seed for run in table.runs}
        )
    shared = {run.id for run in table.runs if table.rows[run.row].trained == "alone"}
    assert len({run.id for run in table.runs}) == len(table.runs) - len(shared)
    # A pretraining for each seed, and one more where its labels are flipped (other hospitals).
    seeds = len({run.seed for run in table.runs})
    flips = 2 if "label flip" in table.attacks else 1
    assert len({run.id for run in table.pretrainings.values()}) == seeds * flips
    assert attacks == len({run.attack for run in table.runs})


def test_each_seed_has_its_own_hospitals_and_every_row_of_a_seed_the_same(tmp_path: Path) -> None:
    for name, seeds in (("uneven", {0: 0, 1: 5, 2: 6}), ("physionet2012", {0: 0, 1: 1, 2: 2})):
        table = table_of(load_tables(), name, None, tmp_path, FOLDER, reduced=False)
        assert {(run.seed, run.place.source.seed) for run in table.runs} == set(seeds.items())
    ahead = table_of(load_tables(), "uneven", (1, 9), tmp_path, FOLDER, reduced=False)
    assert {(run.seed, run.place.source.seed) for run in ahead.runs} == {(1, 5), (9, 9)}


def test_every_algorithm_has_a_row() -> None:
    tables = load_tables()
    assert set(tables.populations) == set(POPULATIONS)
    used = {
        tables.rows[row].strategy.get("name", "fedavg")
        for population in tables.populations.values()
        for row in population.rows
    }
    assert used == set(ALGORITHMS) - NO_ROW


def test_populations_are_studies_of_their_own() -> None:
    """`hymate-simulate --config` takes them as they stand."""
    for name in ("uneven", "physionet2012", "alike"):
        study = load_study(FOLDER / f"{name}.yaml")
        assert study.simulation is not None
        assert study.finetune.patience >= study.finetune.rounds  # all rows train for as long


def test_a_table_that_contradicts_itself_is_refused() -> None:
    with pytest.raises(ValueError, match="`trained: alone` and `beside` belong together"):
        RowConfig(trained="alone")
    tables = load_tables().model_dump()
    tables["populations"]["uneven"]["rows"] = ["each alone"]
    with pytest.raises(ValueError, match="row 'each alone' needs row 'FedAvg'"):
        type(load_tables()).model_validate(tables)


# --- attacks


def exchange(received: dict[str, Any], trained: dict[str, Any], action: Action) -> tuple[Message, Message]:
    """A round's request and reply as they travel."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    request = FinetuneRequest(
        study="s",
        run="r",
        task=TaskConfig(),
        model=ModelConfig(),
        vocabulary_hash="h",
        seed=0,
        round=3,
        finetune=FinetuneConfig(),
        positive_weight=1.0,
        strategy=StrategyConfig(),
        privacy=PrivacyConfig(),
        best_round=0,
    )
    asked = Message(pack(request, received), dst_node_id=1, message_type=action)
    record = TrainReply(site="a", stays=10, loss=0.5, steps=2, seconds=1.0)
    return asked, Message(pack(record, trained, examples=10), reply_to=asked)


def changed(attack: Attack, action: Action = Action.FINETUNE) -> dict[str, Any]:
    received = {"w": np.array([1.0, 2.0, 3.0], np.float32), "b": np.array([[4.0]], np.float32)}
    trained = {"w": np.array([1.5, 2.0, 2.0], np.float32), "b": np.array([[5.0]], np.float32)}
    beside = {"control": np.array([9.0], np.float32)}
    request, reply = exchange(with_beside(received, {}), with_beside(trained, beside), action)
    arrived = tampered(attack, request, reply, seed=0)
    assert unpack(arrived.content, TrainReply).stays == 10
    weights, also = apart(unpack_weights(arrived.content))
    assert also["control"].tolist() == [9.0]
    assert {name: (array.dtype.name, array.shape) for name, array in weights.items()} == {
        "w": ("float32", (3,)),
        "b": ("float32", (1, 1)),
    }
    return {name: array.ravel().tolist() for name, array in weights.items()}


def test_attacks_change_the_update_of_fine_tuning_and_nothing_else() -> None:
    honest = {"w": [1.5, 2.0, 2.0], "b": [5.0]}
    assert changed("none") == changed("label flip") == honest
    assert changed("sign flip") == {"w": [0.5, 2.0, 4.0], "b": [3.0]}
    assert changed("scaling by 100") == {"w": [51.0, 2.0, -97.0], "b": [104.0]}
    drawn = changed("random weights")
    assert drawn == changed("random weights")
    assert np.std(drawn["w"]) > 0
    assert drawn["w"] != honest["w"]
    assert drawn["b"] == [4.0]  # one number has no spread
    assert changed("sign flip", Action.PRETRAIN) == honest


def test_a_refusal_passes_as_it_is() -> None:
    request, _ = exchange({"w": np.zeros(1, np.float32)}, {"w": np.zeros(1, np.float32)}, Action.FINETUNE)
    refusal = Message(RecordDict({}), reply_to=request)
    assert tampered("sign flip", request, refusal, seed=0) is refusal


# --- hospitals


def test_hospitals_hold_out_as_many_as_the_table_says_and_labels_flip_at_one(tmp_path: Path) -> None:
    config = SyntheticConfig(hospitals=2, stays=50, seed=3)
    honest = Place(config, held_out=30)
    flipped = Place(config, held_out=30, flipped=("hospital_2", "in_hospital_mortality"))
    for place in (honest, flipped):
        place.lay_out(tmp_path)
        place.lay_out(tmp_path)  # is there already
    assert honest.key != flipped.key
    tables = {}
    for name, path in honest.sites(tmp_path).items():
        dataset = MedsDataset.open(path)
        counts = dict(dataset.splits()["split"].value_counts().iter_rows())
        assert counts == {"held_out": 30, "tuning": 10, "train": 40}
        other = MedsDataset.open(flipped.sites(tmp_path)[name])
        assert other.splits().equals(dataset.splits())
        tables[name] = (dataset.labels("in_hospital_mortality"), other.labels("in_hospital_mortality"))
    one, two = tables["hospital_1"], tables["hospital_2"]
    assert one[0].equals(one[1])
    opposite = two[0].with_columns(label=1 - pl.col("label"))
    assert two[1].equals(opposite)


# --- what a run came to, and what was expected


def test_rounds_to_the_best_are_counted_from_the_weights_before() -> None:
    assert Figures(criteria=(0.5, 1.0, 1.19, 1.2, 1.1)).rounds_to_best == 2
    assert Figures(criteria=(1.2, 1.0)).rounds_to_best == 0
    assert Figures(criteria=(None, 1.0)).rounds_to_best == 1
    assert Figures().rounds_to_best is None
    assert Figures(criteria=(0.5, 1.0, 1.1), sites=4, bytes_up=16_000_000).megabytes_a_site_and_round == 2.0


def scored(pooled: float, *sites: float) -> Scores:
    named = {f"h{number}": SiteFigures(stays=9, auroc=auroc) for number, auroc in enumerate(sites)}
    return Scores(sites=named, auroc=pooled, average_precision=0.5)


def of_run(held_out: Scores, alone: Scores | None = None, criterion: float = 1.0) -> Figures:
    return Figures(held_out=held_out, alone=alone, criteria=(0.5, criterion))


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., list[str]]:
    """The expectations of a population under figures that are given."""

    def say(name: str, given: dict[tuple[str, str], Figures]) -> list[str]:
        table = table_of(load_tables(), name, None, tmp_path, FOLDER, reduced=False)

        def known(table: Table, row: str, attack: str = "none") -> dict[int, Figures]:
            return {0: given[row, attack]} if (row, attack) in given else {}

        def scores(table: Table, row: str) -> dict[int, Scores]:
            found = known(table, row)
            alone = table.rows[row].trained == "alone"
            each = {seed: run.alone if alone else run.held_out for seed, run in found.items()}
            return {seed: one for seed, one in each.items() if one is not None}

        monkeypatch.setattr(expectations_module, "finished", known)
        monkeypatch.setattr(expectations_module, "scores", scores)
        return expectations(table)

    return say


def test_expectations_say_held_or_not_held_with_their_figures(said: Callable[..., list[str]]) -> None:
    own = scored(0.75, 0.70, 0.80)
    plain = of_run(scored(0.79, 0.72, 0.81), alone=own)
    runs = {
        ("pooled training", "none"): of_run(scored(0.80, 0.78, 0.82)),
        ("FedAvg", "none"): plain,
        ("each alone", "none"): plain,
        ("AFL, rate 1", "none"): of_run(scored(0.787, 0.731, 0.80)),
        ("median", "none"): of_run(scored(0.9, 0.69, 0.95), criterion=0.9),
    }
    ratio, alone, fair = said("uneven", runs)
    assert ratio.endswith(
        "**held** (FedAvg (best on tuning) 0.988)."
    )  # 0.79 / 0.80; the median is not looked at
    assert alone.endswith("**held** (FedAvg (best on tuning) 2 of 2 sites, least +0.010 (h1)).")
    assert fair.endswith("**held** (AFL, rate 1 worst +0.011, pooled -0.003).")

    runs["AFL, rate 1", "none"] = of_run(scored(0.784, 0.731, 0.80))  # costs too much
    runs["FedAvg", "none"] = runs["each alone", "none"] = of_run(scored(0.787, 0.72, 0.79), alone=own)
    ratio, alone, _ = said("uneven", runs)
    assert ratio.endswith("**not held** (FedAvg (best on tuning) 0.984).")
    assert alone.endswith("**not held** (FedAvg (best on tuning) 1 of 2 sites, least -0.010 (h1)).")
    runs["FedAvg", "none"] = of_run(scored(0.79, 0.72, 0.81), alone=own)
    assert said("uneven", runs)[2].endswith("**not held** (AFL, rate 1 worst +0.011, pooled -0.006).")
    assert all(line.endswith(": not measured yet.") for line in said("uneven", {}))


def test_the_row_looked_at_is_chosen_on_tuning(said: Callable[..., list[str]], tmp_path: Path) -> None:
    runs = {
        ("pooled training", "none"): of_run(scored(0.80, 0.8), criterion=2.0),  # no federated row
        ("FedAvg", "none"): of_run(scored(0.70, 0.7), criterion=1.0),
        ("SCAFFOLD", "none"): of_run(scored(0.60, 0.6), criterion=1.1),
        ("FedNova", "none"): of_run(scored(0.79, 0.7), criterion=1.05),
    }
    ratio, *_ = said("uneven", runs)
    assert ratio.endswith("**not held** (FedAvg 0.875; SCAFFOLD (best on tuning) 0.750).")
    table = table_of(load_tables(), "uneven", None, tmp_path, FOLDER, reduced=False)
    assert best_on_tuning(table) == "SCAFFOLD"


def test_robustness_is_against_fedavg_without_an_attack(said: Callable[..., list[str]]) -> None:
    runs = {
        ("FedAvg without screening", "none"): of_run(scored(0.80, 0.8)),
        ("FedAvg without screening", "sign flip"): of_run(scored(0.70, 0.7)),
        ("FedAvg with screening", "sign flip"): of_run(scored(0.80, 0.7)),
        ("median without screening", "none"): of_run(scored(0.75, 0.7)),
        ("median without screening", "sign flip"): of_run(scored(0.775, 0.7)),
        ("Krum without screening", "sign flip"): Figures(failed="no quorum"),
    }
    (line,) = said("poisoned", runs)
    assert line.endswith("**not held** (FedAvg without screening -0.100; median without screening -0.025).")
    runs["median without screening", "sign flip"] = of_run(scored(0.785, 0.7))
    assert said("poisoned", runs)[0].endswith(
        "**held** (FedAvg without screening -0.100; median without screening -0.015)."
    )
    runs["FedAvg without screening", "sign flip"] = of_run(scored(0.80, 0.8))
    del runs["median without screening", "sign flip"]
    assert said("poisoned", runs)[0].endswith(": not measured yet.")  # FedAvg is no robust strategy


# --- the text


def test_a_row_s_columns_are_taken_seed_by_seed(tmp_path: Path) -> None:
    table = table_of(load_tables(), "uneven", (0, 1), tmp_path, FOLDER, reduced=False)
    given = {
        ("pooled training", 0): of_run(scored(0.80, 0.8, 0.8)),
        ("pooled training", 1): of_run(scored(0.50, 0.5, 0.5)),
        ("FedAvg", 0): of_run(scored(0.76, 0.70, 0.80), alone=scored(0.7, 0.71, 0.75)),
        ("FedAvg", 1): of_run(scored(0.50, 0.50, 0.60), alone=scored(0.4, 0.50, 0.55)),
    }
    for (row, seed), figures in given.items():
        (run,) = [run for run in table.of(row) if run.seed == seed]
        run.folder.mkdir(parents=True)
        more = {"sites": 2, "bytes_up": 6_000_000, "criteria": (0.5, 0.9, 1.0, 1.0), "seconds": 10.0 + seed}
        (run.folder / "figures.json").write_text(figures.model_copy(update=more).model_dump_json())
    lines = section(table, "command").splitlines()
    cells = {line.split(" | ")[0].removeprefix("| "): line.split(" | ")[1:] for line in lines}
    assert cells["FedAvg"] == [
        "0.630 ± 0.184",
        "0.500 ± 0.000",
        "0.600 ± 0.141",
        "0.050 ± 0.000",
        "0.975 ± 0.035",  # 0.95 and 1
        "1.5",  # one of two, then both
        "2.0",
        "1.000",
        "6.0",
        "10",
        "2 |",
    ]
    assert cells["each alone"][:3] == ["0.550 ± 0.212", "0.500 ± 0.000", "0.605 ± 0.148"]
    assert cells["pooled training"][4] == ""
    assert cells["SCAFFOLD"][-1] == "0 of 2 |"


def test_a_section_stands_between_its_markers_and_leaves_the_prose(tmp_path: Path) -> None:
    docs = tmp_path / "strategies.md"
    docs.write_text("# Strategies\n\nprose\n\n## Measured\n\n## After\n")
    write_section("one", "first", docs)
    write_section("two", r"second \1", docs)
    write_section("two", r"second \1", docs)
    write_section("one", "third", docs)
    text = docs.read_text()
    assert text.startswith("# Strategies\n\nprose\n\n## Measured\n\n## After\n")
    assert "<!-- measured: one -->\nthird\n<!-- end of one -->" in text
    assert "<!-- measured: two -->\nsecond \\1\n<!-- end of two -->" in text
    assert "first" not in text


def test_a_study_that_an_attack_ended_is_in_the_table(tmp_path: Path) -> None:
    table = table_of(load_tables(), "poisoned", (0,), tmp_path, FOLDER, reduced=False)
    for attack, figures in (
        ("none", of_run(scored(0.8, 0.8)).model_copy(update={"criteria": (0.5,) * 11})),
        ("sign flip", Figures(failed="round 3: below quorum")),
        (
            "random weights",
            of_run(scored(0.7, 0.7)).model_copy(update={"quarantined": 4, "criteria": (0.5,) * 11}),
        ),
    ):
        (run,) = table.of("median without screening", attack)  # type: ignore[arg-type]
        run.folder.mkdir(parents=True)
        (run.folder / "figures.json").write_text(figures.model_dump_json())
    text = section(table, "command")
    (line,) = [line for line in text.splitlines() if line.startswith("| median")]
    cells = ["0.800", "1 of 1 studies failed", "-", "0.700 (4 of 10 quarantined)", "-", "0 of 1 |"]
    assert line.split(" | ")[1:] == cells


def test_no_population_and_no_source_are_faults(tmp_path: Path) -> None:
    (tmp_path / "tables.yaml").write_text("rows: {FedAvg: {}}\npopulations: {}\nmore: 1\n")
    with pytest.raises(InputFault, match="more"):
        load_tables(tmp_path)
