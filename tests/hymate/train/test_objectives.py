"""The losses by hand, and that one stay's loss is nobody else's business."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from hymate.data.forecasting import ForecastBatch
from hymate.train.objectives import class_weight, classification_loss, forecast_loss
from tests.hymate.model.batches import batch_of, random_stay


def forecast_batch(target: list[list[float]], measured: list[list[int]]) -> ForecastBatch:
    stays = [random_stay(3, seed) for seed in range(len(target))]
    return ForecastBatch(batch_of(stays), torch.tensor(target), torch.tensor(measured).bool())


def test_forecast_loss_by_hand() -> None:
    batch = forecast_batch(
        target=[[0.0, 1.0, -2.0], [0.0, 0.5, 7.0], [0.0, 3.0, 4.0]],
        measured=[[0, 1, 1], [0, 1, 0], [0, 0, 0]],
    )
    prediction = torch.tensor([[9.0, 0.0, 1.0], [9.0, 1.5, 0.0], [9.0, 9.0, 9.0]])
    # (1 + 9) / 2 over two values; 1 / 1; nothing measured.
    expected = torch.tensor([5.0, 1.0, 0.0])
    torch.testing.assert_close(forecast_loss(prediction, batch), expected)


def test_gradient_of_a_stay_does_not_depend_on_its_neighbours() -> None:
    """Divided by the batch's count, the first stay's gradient would shrink as the second grows."""
    prediction = torch.tensor([[0.0, 2.0, 2.0, 2.0]] * 2, requires_grad=True)
    gradients = []
    for neighbour in ([0, 1, 0, 0], [0, 1, 1, 1]):
        batch = forecast_batch(target=[[0.0] * 4] * 2, measured=[[0, 1, 0, 0], neighbour])
        (gradient,) = torch.autograd.grad(forecast_loss(prediction, batch).sum(), prediction)
        gradients.append(gradient[0])
    assert gradients[0][1] == 4.0
    assert torch.equal(gradients[0], gradients[1])


def test_classification_loss_by_hand() -> None:
    logits = torch.tensor([0.0, 2.0, -1.0])
    label = torch.tensor([1.0, 0.0, 1.0])
    expected = [3 * math.log(2), math.log1p(math.exp(2)), 3 * math.log1p(math.exp(1))]
    torch.testing.assert_close(classification_loss(logits, label, 3.0), torch.tensor(expected))


@pytest.mark.parametrize(
    ("labels", "weight"),
    [([1, 0, 0, 0], 3.0), ([1, 0, np.nan, 0], 2.0), ([0, 0], 1.0), ([1, 1], 1.0), ([], 1.0)],
)
def test_class_weight(labels: list[float], weight: float) -> None:
    assert class_weight(np.array(labels)) == weight


def test_targets_beyond_the_clip_count_as_the_clip() -> None:
    measured = torch.tensor([[False, True, True]])
    prediction = torch.tensor([[0.0, 1.0, 1.0]])
    target = torch.tensor([[0.0, 180.0, 0.5]])
    batch = ForecastBatch(input=None, target=target, target_mask=measured)  # type: ignore[arg-type]
    assert forecast_loss(prediction, batch, clip=5.0).tolist() == [(4.0**2 + 0.5**2) / 2]
    assert forecast_loss(prediction, batch).tolist() == [(179.0**2 + 0.5**2) / 2]
