"""What the project's own commands write passes `hymate data check` without an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from hymate.cli import app
from hymate.command import run_command
from hymate.data.checks.run import check_dataset
from hymate.data.meds import SPLITS
from hymate.data.physionet2012 import prepare_physionet2012


def test_synthetic_hospitals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["data", "synthetic", "--out", str(tmp_path / "c"), "--hospitals", "2", "--stays", "100"]
    assert run_command(app, "hymate", arguments) == 0
    capsys.readouterr()
    for name in ("hospital_1", "hospital_2"):
        report = check_dataset(tmp_path / "c" / name)
        assert report.errors == ()
        assert sum(int(count) for count in report.summary.splits.values()) == 100


def test_the_real_challenge(physionet2012_raw: Path, tmp_path: Path) -> None:
    """Sets b and c: no error, no warning, and the figures of the challenge."""
    prepare_physionet2012(physionet2012_raw, tmp_path / "c", site_by="none")
    rows: list[tuple[int, int]] = []
    report = check_dataset(
        tmp_path / "c" / "all", shown_codes=0, progress=lambda done, total: rows.append((done, total))
    )
    assert report.findings == ()
    summary = report.summary
    assert rows[-1] == (summary.events, summary.events)
    assert summary.subjects == summary.stays == 7991
    deaths = summary.tasks["in_hospital_mortality"].splits
    assert sum(int(deaths[split].positives or 0) for split in SPLITS) == 1153
    codes = {code.code: code for code in summary.codes}
    assert summary.codes_in_events == len(codes) == 45
    assert codes["HR"].unit == "bpm"
    assert codes["HR"].values is not None
    assert 80 <= codes["HR"].values.median <= 90
    assert codes["AGE"].missing_subjects == codes["AGE"].missing_stays == 0.0
    # Every observation is made before the prediction at 48 hours.
    assert all(code.missing_stays == code.missing_subjects for code in summary.codes)
