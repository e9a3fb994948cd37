"""A study file says what is wrong with it in one line: file, key, problem, remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from hymate.errors import InputFault
from server.study import StudyConfig, dump_study, load_study

NO_STUDIES = ("site", "train")  # a hospital's own file, and one for `hymate train`
CONFIGS = sorted(
    path
    for path in (Path(__file__).parents[2] / "deploy" / "configs").glob("*.yaml")
    if path.stem not in NO_STUDIES
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_studies_load_and_survive_a_round_trip(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYMATE_PHYSIONET2012", "/somewhere")
    study = load_study(path)
    (tmp_path / "study.yaml").write_text(dump_study(study))
    assert load_study(tmp_path / "study.yaml") == study
    assert study.name == path.stem


BAD = [
    ("nme: x", "key 'nme' does not exist; did you mean 'name'?"),
    ("seed: 1", "key 'name' is missing; add it"),
    ("name: 'a b'", "key 'name': String should match pattern"),
    ("name: x\nfinetune: {round: 3}", "key 'finetune.round' does not exist; did you mean 'rounds'?"),
    (
        "name: x\nstrategy: {compression: [{name: top_k, shar: 0.1}]}",
        "key 'strategy.compression.0.shar' does not exist; did you mean 'share'?",
    ),
    ("name: x\nstrategy: {local_layers: [hed]}", "the model has no part called 'hed'; did you mean 'head'?"),
    (
        "name: x\ntask: {lookback_hours: 6}",
        "pretrain.min_input_hours 12 leaves nothing to forecast of task.lookback_hours 6: lower it",
    ),
    ("name: x\nfinetune: {rounds: many}", "key 'finetune.rounds'"),
    ("name: x\nfinetune: {rounds: 0}", "key 'finetune.rounds': Input should be greater than or equal to 1"),
    (
        "name: x\nmodel: {d_model: 30, attention_heads: 4}",
        "attention_heads 4 does not divide d_model 30",
    ),
    ("name: x\nstrategy: {name: fedfoo}", "no algorithm is called 'fedfoo'"),
    ("name: x\nstrategy: {name: fedavg, mu: 1}", "key 'mu' does not exist; known here: none"),
    ("name: x\nsimulation: {}", "name exactly one source of hospitals"),
    (
        "name: x\nstrategy: {weighting: {north: -1}}",
        "key 'strategy.weighting.north': Input should be greater than 0 .given: -1.; correct the value$",
    ),
    ("name: x\nfinetune: {positive_weight: -1}", "'balanced' or 'none', or greater than 0 "),
    ("name: x\nsimulation: {sites: {a b: x}}", "key 'simulation.sites.a b': "),
    ("name: x\nstrategy: {compression: [{kind: fp16}]}", "key 'strategy.compression.0.name' is missing"),
    (
        "name: x\nsimulation: {synthetic: {}, sites: {a: /data}}",
        "exactly one source .*given: synthetic, sites",
    ),
    (
        "name: x\nsimulation: {synthetic: {hospital: 3}}",
        "key 'simulation.synthetic.hospital' does not exist; did you mean 'hospitals'?",
    ),
    (
        "name: x\nsimulation: {physionet2012: {raw: '${HYMATE_NOT_SET}'}}",
        "environment variable HYMATE_NOT_SET is not set",
    ),
    ("- a\n- b", "holds no 'key: value' mapping"),
    ("name: [", "line"),
    ("", "holds no 'key: value' mapping"),
]


@pytest.mark.parametrize(("text", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_studies_are_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(text)
    with pytest.raises(InputFault, match=words) as fault:
        load_study(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_missing_study_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no such file"):
        load_study(tmp_path / "none.yaml")
    with pytest.raises(InputFault, match="is a folder; name the file in it"):
        load_study(tmp_path)


def test_overrides_reach_nested_keys(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nfinetune: {rounds: 3}")
    study = load_study(path, ("finetune.rounds=5", "seed=2", "evaluation.local_baseline=true"))
    assert (study.finetune.rounds, study.seed, study.evaluation.local_baseline) == (5, 2, True)


@pytest.mark.parametrize("override", ["finetune", "=3", "name.sub=3", "seed=[", "finetune..rounds=2"])
def test_bad_overrides_are_named(override: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x")
    with pytest.raises(InputFault, match="--set"):
        load_study(path, (override,))


def test_a_study_cannot_be_changed_after_reading() -> None:
    study = StudyConfig(name="x")
    with pytest.raises(ValueError, match="frozen"):
        study.seed = 3  # type: ignore[misc]


def test_data_sets_are_seen_from_the_study_file(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text("name: x\nsimulation: {sites: {a: meds/a, b: /data/b}}")
    simulation = load_study(path).simulation
    assert simulation is not None
    assert simulation.sites == {"a": tmp_path / "meds" / "a", "b": Path("/data/b")}
