"""A Ray worker that is killed costs the hospital it worked for that attempt, and nobody anything else.

Nor does a machine of a Ray cluster that goes away: the workers on the others go on.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from ray.cluster_utils import Cluster

STUDY: dict[str, Any] = {
    "name": "killed-worker",
    "model": {"d_model": 16, "mamba_blocks": 1, "d_state": 4, "attention_heads": 2, "d_static": 4},
    "pretrain": {"rounds": 0},
    "finetune": {"rounds": 3, "batch_size": 8, "local_epochs": 3},
    "simulation": {"synthetic": {"hospitals": 3, "stays": 200}, "min_cell": 1, "workers": 2},
}
LIMIT_S = 300.0


def start(folder: Path, **simulation: object) -> subprocess.Popen[bytes]:
    folder.mkdir()
    study = {**STUDY, "simulation": {**STUDY["simulation"], **simulation}}
    (folder / "study.yaml").write_text(yaml.safe_dump(study))
    words = ["--config", str(folder / "study.yaml"), "--out", str(folder / "run")]
    return subprocess.Popen([sys.executable, "-m", "server.cli", *words], stdout=subprocess.DEVNULL)


def lines(folder: Path, name: str) -> list[dict[str, Any]]:
    path = folder / "run" / name
    whole = path.read_text().rpartition("\n")[0] if path.is_file() else ""
    return [json.loads(line) for line in whole.splitlines()]


def at_work(folder: Path) -> list[str]:
    """Sites that have begun on the second round of fine-tuning, and not answered."""
    found = []
    for journal in (folder / "run").glob("sites/*/state/journal.jsonl"):
        text = journal.read_text().rpartition("\n")[0].splitlines()
        last = json.loads(text[-1]) if text else {}
        if last.get("event") == "asked" and "round 2" in str(last.get("text")):
            found.append(journal.parent.parent.name)
    return found


def weights(folder: Path) -> bytes:
    """The study's model."""
    return (folder / "run" / "model" / "weights.safetensors").read_bytes()


def until_at_work(folder: Path, process: subprocess.Popen[bytes], sites: int) -> None:
    """Wait until so many hospitals are in the middle of that round."""
    deadline = time.monotonic() + LIMIT_S
    while len(at_work(folder)) < sites:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.faults
def test_killing_a_worker_costs_one_attempt_of_one_hospital(tmp_path: Path) -> None:
    undisturbed = start(tmp_path / "a")
    assert undisturbed.wait(LIMIT_S) == 0
    process = start(tmp_path / "b")
    until_at_work(tmp_path / "b", process, 2)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "ray::Worker" in " ".join(child.cmdline())
    ]
    assert len(workers) == 2
    workers[0].kill()
    assert process.wait(LIMIT_S) == 0
    troubles = [line for line in lines(tmp_path / "b", "participation.jsonl") if line["outcome"] == "retried"]
    assert [line["round"] for line in troubles] == [2]
    assert "its process ended" in troubles[0]["reason"]
    assert not [line for line in lines(tmp_path / "b", "participation.jsonl") if line["outcome"] == "failed"]
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.faults
def test_a_machine_of_a_cluster_that_goes_away_leaves_its_hospitals_to_the_others(tmp_path: Path) -> None:
    undisturbed = start(tmp_path / "a")
    assert undisturbed.wait(LIMIT_S) == 0
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    try:
        other = cluster.add_node(num_cpus=2)
        process = start(tmp_path / "b", address=cluster.address, workers=3)
        until_at_work(tmp_path / "b", process, 3)
        cluster.remove_node(other, allow_graceful=False)
        assert process.wait(LIMIT_S) == 0
    finally:
        cluster.shutdown()
    said = lines(tmp_path / "b", "participation.jsonl")
    lost = [line for line in said if "its process ended" in line.get("reason", "")]
    assert (
        min(line["round"] for line in lost) == 2
    )  # later ones: Ray had not noticed yet, and placed a worker there
    assert len({line["site"] for line in lost if line["round"] == 2}) == 2
    assert weights(tmp_path / "a") == weights(tmp_path / "b")
