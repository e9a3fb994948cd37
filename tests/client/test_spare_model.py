"""A worker's model goes from answer to answer, and nothing of one answer with it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from client import spare_model
from client.spare_model import some_model
from client.unchanged import look
from hymate.config import ModelConfig

SHAPE = ModelConfig(d_model=8, d_state=4, mamba_blocks=1, attention_heads=2), 3, 2, 48.0


@pytest.fixture(autouse=True)
def no_spare() -> Iterator[None]:
    spare_model._spare.clear()
    yield
    spare_model._spare.clear()


def test_the_next_answer_gets_the_same_modules_without_what_training_left() -> None:
    with some_model(*SHAPE) as first:
        parameter = next(first.parameters())
        parameter.grad = torch.ones_like(parameter)
        parameter.grad_sample = torch.ones(4, *parameter.shape)  # type: ignore[attr-defined]
        first.eval()
    with some_model(*SHAPE) as second:
        assert second is first
        assert second.training
        assert all(parameter.grad is None for parameter in second.parameters())
        assert not any(parameter.__dict__ for parameter in second.parameters())
        with some_model(*SHAPE) as beside:  # the one is in use
            assert beside is not second


def test_after_an_answer_that_failed_and_for_another_shape_it_is_built_anew() -> None:
    with pytest.raises(ZeroDivisionError), some_model(*SHAPE) as failed:
        1 / 0  # noqa: B018
    with some_model(*SHAPE) as first:
        assert first is not failed
    with some_model(SHAPE[0], 4, *SHAPE[2:]) as wider:
        assert wider.codes == 4
    with some_model(*SHAPE) as again:  # one model is kept, not one for every shape
        assert again is not first


def test_a_file_looks_otherwise_once_it_is_written_replaced_or_gone(tmp_path: Path) -> None:
    path, other = tmp_path / "file", tmp_path / "other"
    assert look(path) == ()
    path.write_text("one")
    other.write_text("two")
    first = look(path)
    assert look(path) == first
    other.replace(path)
    assert look(path) not in (first, ())
    path.unlink()
    assert look(path) == ()
