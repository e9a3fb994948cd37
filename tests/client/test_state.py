"""What a site remembers of a strategy: by round, as far as its replies counted, and no more than needed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from client.site import SiteConfig
from client.state import KEPT_ROUNDS, StrategyMemory
from hymate.errors import InputFault


def memory(tmp_path: Path, study: str = "s", phase: str = "finetune", run: str = "r") -> StrategyMemory:
    """As of a fresh process: nothing is known but the disk."""
    return StrategyMemory(SiteConfig(name="a", data=tmp_path, state=tmp_path / "state"), study, phase, run)


def kept(number: int) -> dict[str, Tensor]:
    return {
        "control/w": torch.tensor([float(number)]),
        "layers/head": torch.full((2, 3), number, dtype=torch.int64),
    }


def remember(tmp_path: Path, number: int, folded: int, best: int = 0) -> None:
    memory(tmp_path).remember(number, kept(number), folded=folded, best_round=best)


def rounds(tmp_path: Path) -> list[int]:
    return sorted(int(path.stem.split("-")[1]) for path in tmp_path.rglob("strategy-*"))


def recalled(tmp_path: Path, number: int) -> int | None:
    arrays = memory(tmp_path).recall(number)
    return int(arrays["control/w"].item()) if arrays else None


def test_what_was_kept_comes_back_with_every_bit(tmp_path: Path) -> None:
    arrays = {
        "a": torch.tensor([-0.0, 1e-42, torch.pi]),
        "b": torch.tensor(2.0, dtype=torch.float64),
        "c": torch.zeros(0, 3),
    }
    memory(tmp_path).remember(1, arrays, folded=0, best_round=0)
    back = memory(tmp_path).recall(1)
    assert {name: (x.dtype, x.shape, x.numpy().tobytes()) for name, x in back.items()} == {
        name: (x.dtype, x.shape, x.numpy().tobytes()) for name, x in arrays.items()
    }


def test_a_site_goes_on_from_the_round_named_or_the_last_before_it(tmp_path: Path) -> None:
    remember(tmp_path, 2, folded=0)
    remember(tmp_path, 3, folded=2)
    assert [recalled(tmp_path, number) for number in (0, 1, 2, 3, 9)] == [None, None, 2, 3, 3]


def test_what_did_not_count_is_never_found_again(tmp_path: Path) -> None:
    """Round 3 came too late, round 4 went on from 2: the state after round 3 is that after 2."""
    remember(tmp_path, 2, folded=0)
    remember(tmp_path, 3, folded=2)
    remember(tmp_path, 4, folded=2)
    assert rounds(tmp_path) == [2, 4]
    assert recalled(tmp_path, 3) == 2


def test_a_round_asked_again_takes_the_place_of_the_first_time(tmp_path: Path) -> None:
    remember(tmp_path, 1, folded=0)
    memory(tmp_path).remember(1, kept(7), folded=0, best_round=0)
    assert recalled(tmp_path, 1) == 7


def test_only_the_last_rounds_and_the_best_stay_on_the_disk(tmp_path: Path) -> None:
    for number in range(1, 12):
        remember(tmp_path, number, folded=number - 1, best=min(3, number - 1))
    assert rounds(tmp_path) == [3, *range(12 - KEPT_ROUNDS, 12)]
    remember(tmp_path, 12, folded=11, best=11)  # a better one was found
    assert rounds(tmp_path) == list(range(13 - KEPT_ROUNDS, 13))


def test_the_best_round_s_place_is_taken_by_the_one_before_where_the_site_was_not_in_it(
    tmp_path: Path,
) -> None:
    counted = [1, 2, 5, 6, 7, 8, 9, 10]
    for before, number in zip([0, *counted], counted, strict=False):
        remember(tmp_path, number, folded=before, best=min(4, number - 1))
    assert rounds(tmp_path) == [2, 7, 8, 9, 10]
    assert recalled(tmp_path, 4) == 2


def test_the_last_that_counted_stays_however_long_ago_it_was(tmp_path: Path) -> None:
    """A site whose replies always come too late can still go on from where it was."""
    remember(tmp_path, 1, folded=0)
    for number in range(2, 10):
        remember(tmp_path, number, folded=1, best=number - 1)
    assert rounds(tmp_path) == [1, 9]


def test_nothing_makes_no_file_unless_there_was_something(tmp_path: Path) -> None:
    memory(tmp_path).remember(1, {}, folded=0, best_round=0)
    assert rounds(tmp_path) == []
    remember(tmp_path, 2, folded=1)
    memory(tmp_path).remember(3, {}, folded=2, best_round=0)
    assert memory(tmp_path).recall(3) == {}


def test_studies_runs_and_phases_know_nothing_of_each_other(tmp_path: Path) -> None:
    remember(tmp_path, 1, folded=0)
    for other in ({"study": "t"}, {"run": "q"}, {"phase": "pretrain"}):
        assert memory(tmp_path, **other).recall(9) == {}


def test_a_damaged_file_is_a_fault_not_a_beginning(tmp_path: Path) -> None:
    remember(tmp_path, 1, folded=0)
    (path,) = tmp_path.rglob("strategy-00001.*")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(InputFault, match="damaged"):
        memory(tmp_path).recall(1)
