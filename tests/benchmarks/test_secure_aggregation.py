"""The benchmark of secure aggregation runs the product's own sum and counts what it says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.secure_aggregation import main, one_round


@pytest.mark.parametrize("dropped", [0, 1])
def test_a_round_is_counted_and_its_mean_is_right(dropped: int, tmp_path: Path) -> None:
    shared = {"a": np.zeros(1000, np.float32)}
    found = one_round(4, dropped, shared, tmp_path)
    assert found["largest_error"] < 1e-8
    figures = 8 * (4 * 512 + 5 + 5)
    survivors = (4 - dropped) / 4
    assert found["bytes_up_of_a_site"] > survivors * (4 * 1000 + figures)
    assert found["bytes_down_of_a_site"] > survivors * 4 * 1000
    assert 4000 < found["bytes_of_the_plain_weights"] < 8000
    assert found["site_seconds"] > 0.0
    assert found["coordinator_seconds"] > 0.0


def test_it_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--sites", "2", "--dropped", "0", "--json"])
    (round_,) = json.loads(capsys.readouterr().out)["rounds"]
    assert (round_["sites"], round_["dropped"]) == (2, 0)
    assert round_["largest_error"] < 1e-6
