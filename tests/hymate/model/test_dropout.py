"""The rate, the scale, the gradient and the generator of dropout."""

from __future__ import annotations

import pytest
import torch

from hymate.model.dropout import Dropout


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_share_and_scale(rate: float) -> None:
    torch.manual_seed(0)
    y = Dropout(rate)(torch.ones(3, 41, 1013))
    kept = y != 0
    # 124,599 draws: five standard deviations are at most 0.0071.
    assert 1 - float(kept.double().mean()) == pytest.approx(rate, abs=0.0072)
    torch.testing.assert_close(y[kept].max(), torch.tensor(1 / (1 - rate)), rtol=1e-3, atol=0)
    assert y[kept].min() == y[kept].max()
    # No pattern along the last dimension, where four elements share a word of random bits.
    lagged = [float((kept[..., :-lag] == kept[..., lag:]).double().mean()) for lag in (1, 2, 3, 4)]
    assert lagged == pytest.approx([rate**2 + (1 - rate) ** 2] * 4, abs=0.0072)


def test_gradient_goes_where_the_value_went() -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 7, requires_grad=True)
    y = Dropout(0.4)(x)
    torch.autograd.backward(y.sum())
    assert x.grad is not None
    torch.testing.assert_close(x.grad * x, y)


def test_nothing_is_dropped_in_evaluation_or_at_rate_zero() -> None:
    x = torch.randn(4, 4)
    assert Dropout(0.5).eval()(x) is x
    assert Dropout(0.0)(x) is x


def test_the_global_generator_decides() -> None:
    def drawn(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        y: torch.Tensor = Dropout(0.5)(torch.ones(100))
        return y

    assert torch.equal(drawn(1), drawn(1))
    assert not torch.equal(drawn(1), drawn(2))
    torch.manual_seed(1)
    twice = Dropout(0.5)(torch.ones(100)), Dropout(0.5)(torch.ones(100))
    assert not torch.equal(*twice)


@pytest.mark.parametrize("shape", [(0,), (1,), (3, 0, 2), (5,)])
def test_any_shape(shape: tuple[int, ...]) -> None:
    assert Dropout(0.3)(torch.ones(shape)).shape == shape
