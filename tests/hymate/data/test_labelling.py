"""Labels by ACES equal those worked out by hand, for every shipped task; faults; the rest runs on them."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml
from meds.schema import LabelSchema

from hymate.cli import app
from hymate.command import run_command
from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.labelling import label_dataset
from hymate.data.meds import MedsDataset
from hymate.data.statistics import code_statistics
from hymate.data.store import prepare_store
from hymate.data.tasks import cut_windows
from hymate.data.vocabulary import build_vocabulary
from hymate.errors import InputFault
from tests.hymate.data.mimic_style import (
    ADMITTED,
    DEATH,
    DIED,
    HOME,
    HOSPICE,
    ICU_END,
    ICU_IN,
    ICU_NEXT,
    ICU_OUT,
    TRANSFERRED,
    Event,
    moment,
    write_meds,
)

TASKS = Path(__file__).parents[3] / "deploy" / "tasks"
SECOND = 1 / 3600
DAY = 24.0

Labels = dict[tuple[int, datetime], bool]

# 2152 is a leap year, 2150 (START) is none.
LEAP = datetime(2152, 2, 28, 10)

# subject: (events, hours of prediction -> died, for 24 h and for 48 h)
MORTALITY: dict[int, tuple[list[Event], dict[Any, bool], dict[Any, bool]]] = {
    1: ([(0, ADMITTED), (240, HOME)], {24: False}, {48: False}),
    2: ([(0, ADMITTED), (60, DEATH), (62, DIED)], {24: True}, {48: True}),
    3: ([(0, ADMITTED), (30, DEATH), (30, DIED)], {24: True}, {}),
    4: ([(0, ADMITTED), (20, DEATH), (20.5, DIED)], {}, {}),
    # Discharged before, at, and after 24 h.
    5: ([(0, ADMITTED), (24 - SECOND, HOME)], {}, {}),
    6: ([(0, ADMITTED), (24, HOME)], {}, {}),
    7: ([(0, ADMITTED), (24 + SECOND, HOME)], {24: False}, {}),
    # Dead at, and just after, 48 h.
    8: ([(0, ADMITTED), (48, DEATH), (50, DIED)], {24: True}, {}),
    9: ([(0, ADMITTED), (48 + SECOND, DEATH), (50, DIED)], {24: True}, {48: True}),
    # The discharge is written before the death.
    10: ([(0, ADMITTED), (70, DIED), (73, DEATH)], {24: True}, {48: True}),
    # Dies outside, the same night.
    11: ([(0, ADMITTED), (72, HOSPICE), (80, DEATH)], {24: False}, {48: False}),
    # Still there when the records end.
    12: ([(0, ADMITTED), (100, "LAB//220045//bpm")], {}, {}),
    # Admitted a second time without a discharge: the first one starts no stay.
    13: ([(0, ADMITTED), (12, TRANSFERRED), (100, HOME)], {36: False}, {60: False}),
    # Discharged and admitted at the same instant.
    14: (
        [(0, ADMITTED), (72, HOME), (72, TRANSFERRED), (200, DIED), (200, DEATH)],
        {24: False, 96: True},
        {48: False, 120: True},
    ),
    # Over a leap day: 24 h after the 28th of February, 10:00, is the 29th.
    15: (
        [(LEAP, ADMITTED), (datetime(2152, 2, 29, 12), DEATH), (datetime(2152, 2, 29, 12), DIED)],
        {datetime(2152, 2, 29, 10): True},
        {},
    ),
    16: ([(0, "ED_REGISTRATION"), (5, "ED_OUT")], {}, {}),
    # Never more than one death counts, and one code only: a deceased donor's record goes on.
    17: ([(0, ADMITTED), (90, DEATH), (90, DEATH), (91, DIED), (92, "LAB//1//UNK")], {24: True}, {48: True}),
}

LENGTH_OF_STAY: dict[int, tuple[list[Event], dict[Any, bool], dict[Any, bool]]] = {
    20: ([(0, ICU_IN), (72, ICU_OUT)], {24: False}, {24: False}),
    21: ([(0, ICU_IN), (72 + SECOND, ICU_OUT)], {24: True}, {24: False}),
    22: ([(0, ICU_IN), (168, ICU_OUT)], {24: True}, {24: False}),
    23: ([(0, ICU_IN), (168 + SECOND, ICU_OUT)], {24: True}, {24: True}),
    24: ([(0, ICU_IN), (24, ICU_OUT)], {}, {}),
    25: ([(0, ICU_IN), (24 + SECOND, ICU_OUT)], {24: False}, {24: False}),
    26: ([(0, ICU_IN), (50, DEATH)], {24: False}, {24: False}),
    27: ([(0, ICU_IN), (100, DEATH), (101, ICU_OUT)], {24: True}, {24: False}),
    # Nobody knows how long: no label, rather than a long stay.
    28: ([(0, ICU_IN), (300, "LAB//220045//bpm")], {}, {}),
    # From one unit into the other at the same instant: two stays.
    29: (
        [(0, ICU_IN), (30, ICU_OUT), (30, ICU_NEXT), (130, ICU_END)],
        {24: False, 54: True},
        {24: False, 54: False},
    ),
    # The 27th of February to the 1st of March is 72 h in a leap year, and 48 h in another.
    30: (
        [(datetime(2152, 2, 27), ICU_IN), (datetime(2152, 3, 1), ICU_OUT)],
        {datetime(2152, 2, 28): False},
        {datetime(2152, 2, 28): False},
    ),
    31: (
        [(datetime(2152, 2, 27), ICU_IN), (datetime(2152, 3, 1, 0, 0, 1), ICU_OUT)],
        {datetime(2152, 2, 28): True},
        {datetime(2152, 2, 28): False},
    ),
    32: ([(0, ICU_IN), (10, DEATH)], {}, {}),
}

READMISSION: dict[int, tuple[list[Event], dict[Any, bool]]] = {
    40: ([(-50, ADMITTED), (0, HOME), (29 * DAY, ADMITTED), (800, HOME)], {0: True, 800: False}),
    41: ([(-50, ADMITTED), (0, HOME), (31 * DAY, ADMITTED), (800, HOME)], {0: False, 800: False}),
    42: ([(-50, ADMITTED), (0, HOME), (30 * DAY, ADMITTED), (800, HOME)], {0: True, 800: False}),
    43: ([(-50, ADMITTED), (0, HOME), (30 * DAY + SECOND, ADMITTED)], {0: False}),
    # Dies outside within the 30 days; dies in hospital after coming back.
    44: ([(-50, ADMITTED), (0, HOSPICE), (240, DEATH)], {0: False}),
    45: ([(-50, ADMITTED), (0, HOME), (120, ADMITTED), (220, DEATH), (221, DIED)], {0: True}),
    # Left the hospital dead, however the two clocks stand.
    46: ([(-50, ADMITTED), (-2, DEATH), (0, DIED)], {}),
    47: ([(-50, ADMITTED), (0, DIED)], {}),
    48: ([(-50, ADMITTED), (0, "HOSPITAL_DISCHARGE//UNK"), (0.5, DEATH)], {}),
    # A transfer at the same instant is no readmission.
    49: ([(-50, ADMITTED), (0, HOME), (0, TRANSFERRED), (120, HOME)], {0: False, 120: False}),
    # Thirty days over a leap day end on the 11th of March, not on the 12th.
    50: (
        [
            (datetime(2152, 2, 1), ADMITTED),
            (datetime(2152, 2, 10, 12), HOME),
            (datetime(2152, 3, 11, 12), ADMITTED),
        ],
        {datetime(2152, 2, 10, 12): True},
    ),
    51: (
        [
            (datetime(2150, 2, 1), ADMITTED),
            (datetime(2150, 2, 10, 12), HOME),
            (datetime(2150, 3, 12, 12, 0, 1), ADMITTED),
        ],
        {datetime(2150, 2, 10, 12): False},
    ),
    # A discharge without an admission on record, and two readmissions within the window.
    52: ([(0, HOME)], {}),
    53: (
        [(-50, ADMITTED), (0, HOME), (48, ADMITTED), (60, HOME), (96, ADMITTED), (200, HOME)],
        {0: True, 60: True, 200: False},
    ),
}

CASES = [
    ("in_hospital_mortality_24h", MORTALITY, 1),
    ("in_hospital_mortality_48h", MORTALITY, 2),
    ("icu_length_of_stay_over_3d", LENGTH_OF_STAY, 1),
    ("icu_length_of_stay_over_7d", LENGTH_OF_STAY, 2),
    ("readmission_30d", READMISSION, 1),
]


def hospital(root: Path, cases: dict[int, Any]) -> Path:
    return write_meds(root, {subject: case[0] for subject, case in cases.items()}, labs=12)


def by_hand(cases: dict[int, Any], column: int) -> Labels:
    return {
        (subject, moment(when)): value
        for subject, case in cases.items()
        for when, value in case[column].items()
    }


def written(meds: Path, task: str) -> Labels:
    table = MedsDataset.open(meds).labels(task)
    return {(subject, time): bool(label) for subject, time, label in table.iter_rows()}


@pytest.mark.parametrize(("task", "cases", "column"), CASES)
def test_labels_equal_those_worked_out_by_hand(
    tmp_path: Path, task: str, cases: dict[int, Any], column: int
) -> None:
    meds = hospital(tmp_path / "meds", cases)
    figures = label_dataset(meds, TASKS / f"{task}.yaml")
    expected = by_hand(cases, column)
    assert written(meds, task) == expected
    assert figures["task"] == task
    assert figures["labels"] == len(expected)
    assert figures["positive"] == sum(expected.values())


def test_a_death_known_by_day_only_and_the_stricter_variant(tmp_path: Path) -> None:
    """Home at noon, dead in the evening, written at 00:00: the trap of the files' header, and its way out."""
    at_home = [(0, ADMITTED), (76, HOME), (64, DEATH)]  # 64 h after 08:00 is a midnight
    in_hospital = [(0, ADMITTED), (60, DEATH), (62, DIED)]
    late = [(0, ADMITTED), (60, DIED), (62, DEATH)]
    meds = write_meds(tmp_path / "meds", {1: at_home, 2: in_hospital, 3: late})
    label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert list(written(meds, "in_hospital_mortality_24h").values()) == [True, True, True]
    windows = yaml.safe_load((TASKS / "in_hospital_mortality_24h.yaml").read_text())["windows"]
    windows["target"] |= {"label": "discharged_dead", "end": "start -> discharge"}
    label_dataset(meds, task_file(tmp_path, windows=windows), name="stricter")
    assert list(written(meds, "stricter").values()) == [False, True, True]


def test_every_shipped_task_is_tested() -> None:
    assert {path.stem for path in TASKS.glob("*.yaml")} == {task for task, _, _ in CASES}
    for path in TASKS.glob("*.yaml"):
        assert yaml.safe_load(path.read_text())["metadata"]["hymate"]["name"] == path.stem


def test_files_are_labels_as_meds_wants_them(tmp_path: Path) -> None:
    """One file a shard, valid, without the empty value columns that ACES writes."""
    meds = hospital(tmp_path / "meds", MORTALITY)
    label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    folder = meds / "labels" / "in_hospital_mortality_24h"
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == ["held_out/0.parquet", "train/0.parquet", "train/1.parquet"]
    for name in files:
        table = pq.read_table(folder / name)
        LabelSchema.validate(table)
        assert table.column_names == ["subject_id", "prediction_time", "boolean_value"]
        assert table.num_rows


def test_figures_say_what_was_left_out_and_why(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    # Admissions: subjects 1 to 15 and 17, two of subject 13 and of subject 14.
    assert figures["triggers"] == 18
    assert figures["labels"] == 13
    assert figures["left_out"] == {
        "window gap wants no admission": 1,  # 13
        "window gap wants no discharge": 3,  # 4, 5, 6
        "window gap wants no death": 1,  # 4
        # 12 has no end; what is said of the others adds up, as 4 fails twice.
    }
    held_out = [key for key in by_hand(MORTALITY, 1) if key[0] % 3 == 1]
    assert figures["splits"]["held_out"] == {
        "labels": len(held_out),
        "positive": sum(by_hand(MORTALITY, 1)[key] for key in held_out),
    }
    assert list(figures["splits"]) == ["train", "held_out"]


def test_an_end_that_never_comes_is_said(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", {number: MORTALITY[number] for number in (1, 2, 12)})
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert figures["left_out"] == {"a window runs to an event that is not on record": 1}


@pytest.mark.parametrize(("task", "cases", "column"), CASES)
def test_a_store_is_prepared_from_the_labels(
    tmp_path: Path, task: str, cases: dict[int, Any], column: int
) -> None:
    """The whole way: labels, windows, vocabulary, store."""
    meds = hospital(tmp_path / "meds", cases)
    label_dataset(meds, TASKS / f"{task}.yaml")
    dataset = MedsDataset.open(meds)
    config = TaskConfig(name=task, lookback_hours=48)
    windows = cut_windows(dataset, config)
    vocabulary = build_vocabulary(
        {"site": code_statistics(windows, dataset.units())}, VocabularyConfig(min_count=2)
    )
    store = prepare_store(tmp_path / "store", windows, vocabulary, config)
    expected = by_hand(cases, column)
    assert len(store) == len(expected)
    assert sorted(store.label.tolist()) == sorted(float(value) for value in expected.values())
    # Subjects 13 and 14 come back with a rare code and nothing else.
    assert (store.lengths > 0).sum() >= len(store) - 2
    # No input is later than its prediction, and none is the outcome.
    assert store.time.max() <= 48.0
    assert not [
        code for code in vocabulary.index if code.startswith(("HOSPITAL_DISCHARGE//DIED", "MEDS_DEATH"))
    ]
    assert "GENDER" in "".join(store.header.static_names)


def test_codes_stored_as_a_dictionary_and_a_shard_without_triggers(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    for path in (meds / "data").rglob("*.parquet"):
        table = pq.read_table(path)
        codes = table.column("code").combine_chunks().dictionary_encode()
        pq.write_table(table.set_column(table.column_names.index("code"), "code", codes), path)
    quiet = write_meds(tmp_path / "quiet", {90: [(0, "ED_REGISTRATION")], 91: [(0, "ED_OUT")]})
    (quiet / "data" / "train" / "0.parquet").rename(meds / "data" / "train" / "2.parquet")
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert written(meds, "in_hospital_mortality_24h") == by_hand(MORTALITY, 1)
    assert figures["labels"] == 13
    assert not (meds / "labels" / "in_hospital_mortality_24h" / "train" / "2.parquet").exists()


def test_another_place_another_name_and_no_splits(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    (meds / "metadata" / "subject_splits.parquet").unlink()
    figures = label_dataset(
        meds, TASKS / "in_hospital_mortality_24h.yaml", out=tmp_path / "elsewhere", name="death-24"
    )
    assert "splits" not in figures
    assert not (meds / "labels").exists()
    files = list((tmp_path / "elsewhere" / "labels" / "death-24").rglob("*.parquet"))
    assert sum(pq.read_metadata(path).num_rows for path in files) == 13


def test_a_subject_in_no_split_is_counted(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    path = meds / "metadata" / "subject_splits.parquet"
    pq.write_table(pq.read_table(path).filter(pc.field("subject_id") != 2), path)
    figures = label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert figures["splits"]["no split"] == {"labels": 1, "positive": 1}


def task_file(tmp_path: Path, **changes: Any) -> Path:
    content = yaml.safe_load((TASKS / "in_hospital_mortality_24h.yaml").read_text())
    for key, value in changes.items():
        if value is None:
            del content[key]
        else:
            content[key] = value
    path = tmp_path / "task.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trigger": None}, "task.yaml: is no task that ACES can read (KeyError: 'trigger')"),
        ({"windows": {}}, "task.yaml: no window has the key 'label'"),
        ({"metadata": {"hymate": ["x"]}}, "metadata.hymate is no mapping"),
        ({"metadata": {"hymate": {"positive_wen": "label"}}}, "did you mean 'positive_when'?"),
        ({"metadata": {"hymate": {"name": "../up"}}}, "'../up' cannot name a label set"),
        (
            {"predicates": {"admission": {"code": "ADMIT"}, "discharge_or_death": {"code": "END"}}},
            "is no task that ACES can read",
        ),
        ({"trigger": "nothing"}, "is no task that ACES can read"),
    ],
)
def test_a_wrong_task_file(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    with pytest.raises(InputFault) as fault:
        label_dataset(meds, task_file(tmp_path, **changes))
    assert message in str(fault.value)
    assert "\n" not in str(fault.value)
    assert not (meds / "labels").exists()


def test_nothing_triggers_the_task(tmp_path: Path) -> None:
    meds = write_meds(tmp_path / "meds", {1: [(0, "ADMIT")], 2: [(0, "ADMIT")]})
    with pytest.raises(InputFault, match=r"no event is the trigger 'admission' .*HOSPITAL_ADMISSION"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")
    assert not (meds / "labels").exists()


def test_no_label_comes_out(tmp_path: Path) -> None:
    meds = write_meds(tmp_path / "meds", {1: [(0, ADMITTED), (5, HOME)], 2: [(0, ADMITTED), (6, HOME)]})
    with pytest.raises(InputFault, match=r"no label came out of 2 events .*window gap wants no discharge: 2"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")


def test_a_subject_in_two_files_would_have_its_windows_cut(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    (meds / "data" / "train" / "9.parquet").write_bytes((meds / "data" / "train" / "0.parquet").read_bytes())
    with pytest.raises(InputFault, match=r"is also in data/train/0\.parquet"):
        label_dataset(meds, TASKS / "in_hospital_mortality_24h.yaml")


def test_an_older_label_set_is_replaced_only_when_told(tmp_path: Path) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    task = TASKS / "in_hospital_mortality_24h.yaml"
    label_dataset(meds, task)
    with pytest.raises(InputFault, match="exists already; give another --name, or --force"):
        label_dataset(meds, task)
    label_dataset(meds, task, force=True)
    folder = meds / "labels" / "in_hospital_mortality_24h"
    assert written(meds, "in_hospital_mortality_24h") == by_hand(MORTALITY, 1)
    assert [entry.name for entry in folder.parent.iterdir()] == [folder.name]
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(InputFault, match="holds other things than labels"):
        label_dataset(meds, task, force=True)


def test_the_command(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    arguments = [
        "data",
        "label",
        "--task",
        str(TASKS / "in_hospital_mortality_24h.yaml"),
        "--meds",
        str(meds),
    ]
    assert run_command(app, "hymate", arguments) == 0
    printed = capfd.readouterr()
    assert printed.err == ""
    assert ["all", "13", "8", "(62%)"] in [line.split() for line in printed.out.splitlines()]
    assert "triggers: 18, of which without a label: 5" in printed.out
    assert "left out: 3 window gap wants no discharge" in printed.out
    assert run_command(app, "hymate", arguments) == 2
    assert "exists already" in capfd.readouterr().err
    assert run_command(app, "hymate", [*arguments, "--force", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["positive"] == 8


def test_one_class_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    meds = hospital(tmp_path / "meds", {number: MORTALITY[number] for number in (1, 7, 11)})
    arguments = [
        "data",
        "label",
        "--task",
        str(TASKS / "in_hospital_mortality_24h.yaml"),
        "--meds",
        str(meds),
    ]
    assert run_command(app, "hymate", arguments) == 0
    assert "all labels are the same" in capsys.readouterr().out


def test_without_aces_one_line_says_what_to_install(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['aces'] = None; from hymate.cli import app; "
        "from hymate.command import run_command; sys.exit(run_command(app, 'hymate', sys.argv[1:]))"
    )
    arguments = ["data", "label", "--task", str(TASKS / "readmission_30d.yaml"), "--meds", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "pip install '.[tasks]' in the project's folder" in done.stderr


@pytest.mark.parametrize("task", ["in_hospital_mortality_24h", "in_hospital_mortality_48h"])
def test_no_label_is_predicted_after_the_fact(tmp_path: Path, task: str) -> None:
    meds = hospital(tmp_path / "meds", MORTALITY)
    label_dataset(meds, TASKS / f"{task}.yaml")
    for (subject, time), died in written(meds, task).items():
        deaths = [moment(when) for when, code in MORTALITY[subject][0] if code in (DEATH, DIED)]
        assert all(death > time for death in deaths)
        assert deaths or not died
