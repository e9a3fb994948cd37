"""Stays with labels worked out by hand, for every shipped task."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from hymate.data.meds import MedsDataset
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
