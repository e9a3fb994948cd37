"""Other models beside the federated one, on the same stays; and a site left out of which nothing enters."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from pydantic import ValidationError

from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from server.checkpoint import Checkpoints
from server.named_sites import demand_named_sites
from server.participation import ParticipationConfig
from tests.in_process import lay_out, small_study
from tests.server.studies import Broken, Study, breaks_after

EVERYTHING = {
    "local_baseline": True,
    "leave_one_site_out": True,
    "cross_site_matrix": True,
    "pooled_baseline": True,
}
STRANGE = "hospital_3"
"""Has a code that nobody else has, and reports the heart rate in another unit without saying so."""
ROUNDS = (1, 1)
STAYS = 140
"""Some six positives of them are held out at each site."""


def planted(folder: Path) -> None:
    for path in folder.glob("**/data/**/*.parquet"):
        table = pq.read_table(path)
        code, value = table["code"], table["numeric_value"]
        renamed = pc.if_else(pc.equal(code, "Glucose"), "ONLY_HERE", code)
        shifted = pc.if_else(pc.equal(code, "HR"), pc.multiply(value, pa.scalar(10.0, pa.float32())), value)
        for name, column in (("code", renamed), ("numeric_value", shifted)):
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(name), column.cast(table.schema.field(name).type))
        pq.write_table(table, path)


def policy(hospitals: Path, site: str, **rules: Any) -> None:
    file = hospitals / "sites" / site / "site.yaml"
    content = yaml.safe_load(file.read_text())
    content["policy"].update(rules)
    file.write_text(yaml.safe_dump(content))


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals")
    lay_out(folder, 3, stays=STAYS)
    planted(folder / "data" / STRANGE)
    for site in ("hospital_1", "hospital_2"):
        policy(folder, site, share_own_model=True)
    return folder


@pytest.fixture(scope="module")
def whole(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(hospitals, tmp_path_factory.mktemp("whole"))
    study.run(rounds=ROUNDS, evaluation=EVERYTHING)
    return study


@pytest.fixture(scope="module")
def found(whole: Study) -> dict[str, Any]:
    return dict(whole.report()["generalisation"])


def test_a_site_left_out_changes_not_a_bit_of_the_model(
    whole: Study, hospitals: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The model without it is that of a study which never had it: vocabulary, weights, edges, all of it."""
    two = tmp_path_factory.mktemp("two")
    for site in ("hospital_1", "hospital_2"):
        shutil.copytree(hospitals / "sites" / site, two / "sites" / site)
    never = Study(two, tmp_path_factory.mktemp("never"))
    never.run(rounds=ROUNDS)
    without = whole.folder / "without" / STRANGE
    for name in ("vocabulary.json", "model/weights.safetensors"):
        assert (without / name).read_bytes() == (never.folder / name).read_bytes(), name
    here, there = (Checkpoints(folder).latest("finetune") for folder in (without, never.folder))
    assert here is not None
    assert there is not None
    assert here.facts == there.facts, "weight of positives, early stopping, cells the edges are made of"
    # And what was planted is where it can do harm: in the study that has the site.
    vocabulary, mine = (Vocabulary.load(at / "vocabulary.json") for at in (whole.folder, without))
    assert "ONLY_HERE" in vocabulary.index
    assert "ONLY_HERE" not in mine.index
    means = {of.hash: {entry.code: entry.mean for entry in of.codes} for of in (vocabulary, mine)}
    assert means[vocabulary.hash]["HR"] > 2 * means[mine.hash]["HR"]


def test_the_site_left_out_is_never_asked_to_train(whole: Study) -> None:
    for site in whole.sites:
        lines = [json.loads(line) for line in journal_of(whole, site).splitlines()]
        asked = [line["text"] for line in lines if line["event"] == "asked"]
        others = [other for other in whole.sites if other != site]
        assert [text for text in asked if "finetune" in text and "without" in text] == [
            f"finetune round 1 of study small without {other}: working on it" for other in others
        ]
        assert not any("train" in text and f"without {site}" in text for text in asked)


def journal_of(study: Study, site: str) -> str:
    return (study.folder / "sites" / site / "state" / "journal.jsonl").read_text()


def test_every_model_on_the_same_stays(whole: Study, found: dict[str, Any]) -> None:
    report = whole.report()
    models = found["models"]
    assert list(models["kinds"]) == ["federated", "local", "left_out", "pooled"]
    for site in whole.sites:
        told = models["sites"][site]
        assert {(told[kind]["n"], told[kind]["positives"]) for kind in models["kinds"]} == {
            (report["sites"][site]["n"], report["sites"][site]["positives"])
        }
        assert told["federated"]["figures"]["auroc"]["value"] == report["sites"][site]["auroc"]
        assert told["local"]["figures"]["auroc"]["value"] == report["local"][site]["auroc"]
        left = found["leave_one_site_out"][site]
        assert left["held_out"] == told["left_out"]
        assert left["all_stays"]["n"] == STAYS
        assert left["trained_on"] == [other for other in whole.sites if other != site]
    strange = found["leave_one_site_out"][STRANGE]["vocabulary"]
    assert strange["unknown_codes"] == 1
    assert strange["unknown_share"] > 0.02


def test_a_model_that_stays_at_home_is_a_gap_in_the_matrix(whole: Study, found: dict[str, Any]) -> None:
    matrix = found["matrix"]
    assert matrix["gaps"] == {STRANGE: "its policy keeps its own model at home (policy.share_own_model)"}
    assert {model: list(row) for model, row in matrix["cells"].items()} == {
        "hospital_1": whole.sites,
        "hospital_2": whole.sites,
        STRANGE: [STRANGE],
    }
    for model, row in matrix["cells"].items():
        at_home = found["models"]["sites"][model]["local"]["figures"]
        assert row[model]["figures"]["auroc"] == at_home["auroc"]


def test_a_difference_is_that_of_the_two_figures(found: dict[str, Any]) -> None:
    pairs = {(pair["a"], pair["b"]): pair for pair in found["comparisons"]["pairs"]}
    assert set(pairs) == {
        ("federated", "local"),
        ("left_out", "local"),
        ("left_out", "federated"),
        ("pooled", "federated"),
    }
    compared = 0
    for (a, b), pair in pairs.items():
        for site, difference in pair["sites"].items():
            if difference is None:
                assert pair["notes"][site].startswith("fewer than five")
                continue
            compared += 1
            figures = found["models"]["sites"][site]
            apart = figures[a]["figures"]["auroc"]["value"] - figures[b]["figures"]["auroc"]["value"]
            assert difference["value"] == pytest.approx(apart, abs=1e-12)
            assert difference["p_adjusted"] >= difference["p"]
    assert compared
    means = [pair["mean"] for pair in pairs.values() if pair["mean"] is not None]
    assert found["comparisons"]["tests"] == compared + len(means)


def test_the_drift_of_the_strange_site_is_found(found: dict[str, Any]) -> None:
    drift = found["drift"][STRANGE]
    assert drift["codes"][0]["code"] == "HR"
    assert drift["codes"][0]["smd"]["interval"][0] > 5
    assert "Glucose" in drift["coverage"]["missing"]
    assert found["drift"]["hospital_1"]["coverage"]["missing"] == ["ONLY_HERE"]


@pytest.mark.parametrize("kind", ["train.finetune", "query.prepare"])
def test_broken_off_in_the_middle_it_ends_with_the_same_bits(
    kind: str, whole: Study, hospitals: Path, tmp_path: Path
) -> None:
    """While the second model that leaves a site out is trained, and while that site is about to be tested."""
    study = Study(hospitals, tmp_path)
    times = [message.metadata.message_type for message in whole.grid.sent]
    last = [place for place, each in enumerate(times) if each == kind]
    with pytest.raises(Broken):
        study.run(tamper=breaks_after(last[-4]), rounds=ROUNDS, evaluation=EVERYTHING)
    done = study.folder / "without" / "hospital_1" / "model" / "weights.safetensors"
    assert done.is_file()
    assert not (study.folder / "report.json").exists()
    study.run(rounds=ROUNDS, evaluation=EVERYTHING)
    for site in study.sites:
        name = f"without/{site}/model/weights.safetensors"
        assert (study.folder / name).read_bytes() == (whole.folder / name).read_bytes(), site
    assert [line["site"] for line in study.metrics("left_out", "site")] == study.sites
    again = study.report()["generalisation"]
    for told in (again["leave_one_site_out"], whole.report()["generalisation"]["leave_one_site_out"]):
        for site in study.sites:
            del told[site]["seconds"]
    expected = whole.report()["generalisation"]
    assert again["models"] == expected["models"]
    assert again["comparisons"] == expected["comparisons"]
    assert again["matrix"] == expected["matrix"]


def test_a_site_that_does_not_train_for_such_models_is_a_gap_and_the_study_ends(
    hospitals: Path, tmp_path: Path
) -> None:
    """As deployed: node keys say who is who."""
    study = Study(hospitals, tmp_path)
    (tmp_path / "sites.json").write_text(json.dumps(dict(enumerate(study.sites, start=10))))
    policy(tmp_path, "hospital_1", leave_one_site_out=False)
    study.run(rounds=ROUNDS, evaluation={"leave_one_site_out": True}, participation={"retries": 0})
    found = study.report()["generalisation"]
    gaps = {site: told["gap"] for site, told in found["leave_one_site_out"].items()}
    assert gaps["hospital_1"] == ""
    for site in ("hospital_2", STRANGE):
        assert "its policy allows no training for models that leave another site out" in gaps[site]
        assert found["models"]["gaps"]["left_out"][site] == gaps[site]


def test_a_personal_strategy_is_set_beside_the_model_that_all_share(hospitals: Path, tmp_path: Path) -> None:
    study = Study(hospitals, tmp_path)
    study.run(rounds=ROUNDS, strategy={"name": "ditto"})
    found = study.report()["generalisation"]
    assert list(found["models"]["kinds"]) == ["federated", "shared"]
    assert [(pair["a"], pair["b"]) for pair in found["comparisons"]["pairs"]] == [("federated", "shared")]
    told = found["models"]["sites"].values()
    assert any(each["federated"]["figures"] != each["shared"]["figures"] for each in told)
    assert (found["leave_one_site_out"], found["matrix"]) == (None, None)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"evaluation": {"cross_site_matrix": True}}, "set local_baseline to true"),
        (
            {"evaluation": {"leave_one_site_out": True}, "strategy": {"local_layers": ["head"]}},
            "leaves no whole model for a site that took no part",
        ),
        (
            {
                "evaluation": {"leave_one_site_out": True},
                "privacy": {"mode": "dp-sgd", "noise_multiplier": 1.0},
            },
            "every training costs privacy again",
        ),
        ({"evaluation": {"pooled_baseline": True}, "simulation": None}, "only a simulation can have it"),
    ],
)
def test_what_cannot_be_asked_together(sections: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        small_study(**sections)


def test_too_few_sites_are_left() -> None:
    asked = {"evaluation": {"leave_one_site_out": True}}
    demand_named_sites(small_study(**asked), ["a", "b", "c"], "hospital")
    with pytest.raises(InputFault, match=r"add sites: three or more"):
        demand_named_sites(small_study(**asked), ["a", "b"], "hospital")
    krum: dict[str, Any] = {"name": "krum", "faulty": 1}
    demand_named_sites(small_study(strategy=krum), ["a", "b", "c", "d", "e"], "hospital")
    with pytest.raises(InputFault, match="needs 5 sites, and the study has 4"):
        demand_named_sites(small_study(strategy=krum, **asked), ["a", "b", "c", "d", "e"], "hospital")


@pytest.mark.parametrize(
    ("rules", "check"),
    [
        ({"required": ("a", "b")}, lambda few: few.required == ("b",)),
        ({"quorum": 4, "sample": 4}, lambda few: (few.quorum, few.sample) == (3, 3)),
        ({"quorum": 2, "sample": 0.5}, lambda few: few.quorum == 2),
        ({"quorum": 0.75}, lambda few: few.needed(3) == 3),
    ],
)
def test_rules_for_fewer_sites(rules: dict[str, Any], check: Callable[[ParticipationConfig], bool]) -> None:
    assert check(ParticipationConfig.model_validate(rules).among(["b", "c", "d"]))
