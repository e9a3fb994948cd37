"""HyMaTE with local attention: the same as full where the window covers a stay, and long stays train."""

from __future__ import annotations

import pytest
import torch

from hymate.config import ModelConfig, OptimiserConfig
from hymate.model.hymate import HyMaTE, build_model
from hymate.train.loop import make_optimiser
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay


def built(window: int | None) -> HyMaTE:
    config = SMALL.model_copy(update={"attention_window": window})
    return build_model(config, CODES, STATIC, 48.0, seed=0).eval()


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_window_that_covers_the_stay_changes_nothing(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    batch = batch_of([random_stay(30, 0), random_stay(9, 1)])
    full = built(None).forecast(batch)
    torch.testing.assert_close(built(29).forecast(batch), full, atol=1e-6, rtol=0)
    narrow = built(8).forecast(batch)
    torch.testing.assert_close(narrow[1], full[1], atol=1e-6, rtol=0)  # 9 observations: 8 on either side
    assert (narrow[0] - full[0]).abs().max() > 1e-4


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_padding_never_matters(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    model, stays = built(5), [random_stay(length, length) for length in (23, 0, 1, 12)]
    together = model.forecast(batch_of(stays))
    torch.testing.assert_close(model.forecast(batch_of(stays, extra=30)), together, atol=1e-5, rtol=0)
    for row, stay in enumerate(stays):
        alone = model.forecast(batch_of([stay]))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-5, rtol=0)


def test_backends_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, found = batch_of([random_stay(70, 0), random_stay(41, 1)]), []
    for backend in ("native", "torch"):
        monkeypatch.setenv("HYMATE_SCAN", backend)
        model = built(7)
        y = model.forecast(batch)
        torch.autograd.backward(y.square().sum())
        found.append([y.detach(), *(p.grad for p in model.parameters() if p.grad is not None)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("length", [1024, 32768])
def test_long_stays_train(length: int) -> None:
    config = ModelConfig(
        d_model=16, mamba_blocks=1, d_state=4, attention_heads=2, attention_window=64, dropout=0.0
    )
    model = build_model(config, CODES, STATIC, 48.0, seed=0)
    optimiser = make_optimiser(model, OptimiserConfig(learning_rate=1e-2))
    batch, losses = batch_of([random_stay(length, 0)]), []
    for _ in range(3):
        optimiser.zero_grad()
        loss = (model.classify(batch) - 1.0).square().sum()
        torch.autograd.backward(loss)
        optimiser.step()
        losses.append(loss.item())
    assert losses[2] < losses[1] < losses[0]
