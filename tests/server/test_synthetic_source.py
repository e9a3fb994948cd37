"""A study file asks for synthetic hospitals with any switch, and they are laid out as sites."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from hymate.data.meds import MedsDataset
from hymate.errors import InputFault
from server.simulation_layout import lay_out_run, simulated_sites
from server.study import dump_study, load_study

STUDY = """
name: shifted
simulation:
  synthetic:
    hospitals: 2
    sizes: {distribution: list, each: [30, 20]}
    base: alike
    tasks: [readmission_30d]
    coverage_gaps: 0.4
    disparity: {group: GENDER//M, label_bias: 0.2}
"""


def test_a_study_file_reaches_every_switch(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY)
    study = load_study(file)
    assert study.simulation is not None
    lay_out_run(study, study.simulation, tmp_path / "run")
    assert [site.file.parent.name for site in simulated_sites(tmp_path / "run")] == [
        "hospital_1",
        "hospital_2",
    ]
    homes = [tmp_path / "run" / "data" / name for name in ("hospital_1", "hospital_2")]
    assert [len(MedsDataset.open(home).splits()) for home in homes] == [30, 20]
    assert MedsDataset.open(homes[0]).tasks() == ["readmission_30d"]
    # The truth lies beside the sites' data, where no site file points.
    for name in ("hospital_1", "hospital_2"):
        site = yaml.safe_load((tmp_path / "run/sites" / name / "site.yaml").read_text())
        assert Path(site["data"]).name == name
    assert (tmp_path / "run/data/truth.json").is_file()
    (tmp_path / "again.yaml").write_text(dump_study(study))
    assert load_study(tmp_path / "again.yaml") == study


def test_a_wrong_switch_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "study.yaml"
    file.write_text(STUDY.replace("coverage_gaps: 0.4", "disparities: {noise: 2}"))
    with pytest.raises(InputFault, match=r"key 'simulation.synthetic.disparities' does not exist; did"):
        load_study(file)
