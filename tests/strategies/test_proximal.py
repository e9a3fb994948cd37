"""The proximal step is the minimum it claims to be, at each group's own rate."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from strategies.proximal import pull


class Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64))
        self.b = nn.Parameter(torch.tensor([4.0], dtype=torch.float64))


ANCHOR = {"a": torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64), "b": torch.tensor([0.0]).double()}


def pulled(strength: float, anchor: dict[str, torch.Tensor] | None = None) -> Two:
    model = Two()
    rates = [{"params": [model.a], "lr": 0.1}, {"params": [model.b], "lr": 0.5}]
    pull(model, ANCHOR if anchor is None else anchor, strength, torch.optim.SGD(rates))
    return model


def test_it_is_the_minimum_of_the_squared_distance_and_the_way_back() -> None:
    """The derivative of strength / 2 (w - a)^2 + (w - u)^2 / (2 rate) is 0 there."""
    start, model = Two(), pulled(3.0)
    for name, rate in (("a", 0.1), ("b", 0.5)):
        w, u = getattr(model, name).detach(), getattr(start, name).detach()
        torch.testing.assert_close(3.0 * (w - ANCHOR[name]) + (w - u) / rate, torch.zeros_like(w))


def test_each_group_has_its_own_rate() -> None:
    assert pulled(2.0).b.item() == pytest.approx(4.0 / (1 + 0.5 * 2))
    assert pulled(2.0).a[0].item() == pytest.approx((1.0 + 0.1 * 2 * 0.5) / (1 + 0.1 * 2))


def test_no_strength_changes_no_bit_and_much_of_it_ends_at_the_anchor() -> None:
    with_zeros = {"a": torch.tensor([-0.0, torch.inf, torch.nan]).double()}
    assert pulled(0.0, with_zeros).a.detach().numpy().tobytes() == Two().a.detach().numpy().tobytes()
    assert torch.equal(pulled(1e30).a, ANCHOR["a"])


def test_parameters_that_have_no_anchor_stay() -> None:
    model = pulled(2.0, {"a": ANCHOR["a"]})
    assert model.b.item() == 4.0
    assert model.a[0].item() != 1.0
