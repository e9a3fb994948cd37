"""The algorithm that docs/strategies.md writes down, and its test there: both run as they stand."""

from __future__ import annotations

import re
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from strategies.registry import ALGORITHMS
from tests.strategies.halves import Halves, Hospital

PAGE = Path(__file__).parents[2] / "docs" / "strategies.md"


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, Any]]:
    """The algorithm's text, and the names its test on the page may use."""
    algorithm, test = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    module = types.ModuleType("strategies.bounded")
    exec(compile(algorithm, str(PAGE), "exec", dont_inherit=True), module.__dict__)
    monkeypatch.setitem(ALGORITHMS, "bounded", module.__dict__["Bounded"])
    names: dict[str, Any] = {"np": np, "pytest": pytest, "Halves": Halves, "Hospital": Hospital}
    exec(compile(test, str(PAGE), "exec"), names)
    return algorithm, names


def test_the_page_s_algorithm_passes_the_page_s_test(page: tuple[str, dict[str, Any]]) -> None:
    page[1]["test_no_update_is_longer_than_the_limit"]()


def test_it_is_one_file_of_forty_lines(page: tuple[str, dict[str, Any]]) -> None:
    lines = [line for line in page[0].splitlines() if line.strip()]
    assert len(lines) <= 40


def test_it_survives_a_restart(page: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    def study() -> Halves:
        return Halves({"name": "bounded"}, [Hospital("a", [1.0, 2.0]), Hospital("b", [9.0, 0.0])])

    stopped = study()
    for _ in range(3):
        stopped.run(1).restart(tmp_path)
    assert stopped.point.tobytes() == study().run(3).point.tobytes()
