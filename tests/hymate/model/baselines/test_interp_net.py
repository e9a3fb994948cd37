"""InterpNet's interpolation against its equations, worked in float64 for every pair of times."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hymate.model.baselines.interp_net import KAPPA, InterpNet, Mixing, Smoothed, Smoothing
from hymate.model.config import InterpNetConfig
from tests.hymate.model.batches import CODES, batch_of, random_stay

Floats = NDArray[np.float64]
POINTS = 7


def plain(time: Floats, value: Floats, at: float, alpha: float) -> tuple[float, float]:
    """Equations 1 and 2 as they stand: smooth value and intensity."""
    weight = np.exp(-alpha * (at - time) ** 2)
    return float((weight * value).sum() / weight.sum()), float(weight.sum())


def test_two_observations_by_hand() -> None:
    """At hours 1 and 3 with values 2 and -4; reference times 0, 2, 4; alpha = 0.5."""
    smoothing = Smoothing(codes=1, points=3, lookback_hours=4.0)
    torch.nn.init.constant_(smoothing.kernel, math.log(math.expm1(0.5)))
    stay = (torch.tensor([1.0, 3.0]), torch.tensor([1, 1]), torch.tensor([2.0, -4.0]), torch.zeros(3))
    found = smoothing(batch_of([stay]))
    near, far = math.exp(-0.5), math.exp(-4.5)
    share = near / (near + far)
    assert found.smooth[0, :, 0].tolist() == pytest.approx([2 * share - 4 * (1 - share), -1.0, 2 - 6 * share])
    assert found.log_intensity.exp()[0, :, 0].tolist() == pytest.approx([near + far, 2 * near, near + far])
    sharp = 1 / (1 + math.exp(-KAPPA * 4.0))
    assert found.transient[0, :, 0].tolist() == pytest.approx([6 * sharp - 4, -1.0, 2 - 6 * sharp])


def test_any_stay_against_the_equations() -> None:
    torch.manual_seed(0)
    smoothing = Smoothing(CODES, POINTS, lookback_hours=48.0)
    torch.nn.init.uniform_(smoothing.kernel, -6.0, -3.0)  # wide enough that plain sums do not vanish
    alpha = torch.nn.functional.softplus(smoothing.kernel).tolist()
    stays = [random_stay(60, seed=1), random_stay(9, seed=2)]
    with torch.no_grad():
        found = smoothing(batch_of(stays, extra=3))
    for row, (hours, code, value, _) in enumerate(stays):
        for variable in range(CODES):
            here = (code == variable + 1).numpy()
            for point, at in enumerate(np.linspace(0, 48, POINTS)):
                smooth, intensity, transient = 0.0, 0.0, 0.0
                if here.any():
                    times, values = hours.double().numpy()[here], value.double().numpy()[here]
                    smooth, intensity = plain(times, values, float(at), alpha[variable])
                    transient, _ = plain(times, values, float(at), KAPPA * alpha[variable])
                where = (row, point, variable)
                assert float(found.smooth[where]) == pytest.approx(smooth, abs=1e-4), where
                assert float(found.transient[where]) == pytest.approx(transient, abs=1e-4), where
                assert float(found.log_intensity[where].exp()) == pytest.approx(intensity, rel=1e-3), where


def test_far_from_every_observation_the_nearest_value_holds() -> None:
    """exp(-47^2) is 0 in float32; the quotient is not."""
    smoothing = Smoothing(codes=2, points=2, lookback_hours=48.0)
    torch.nn.init.constant_(smoothing.kernel, 5.0)
    stay = (torch.tensor([0.5, 1.0]), torch.tensor([1, 1]), torch.tensor([2.0, 3.0]), torch.zeros(3))
    found = smoothing(batch_of([stay]))
    assert found.smooth[0, 1].tolist() == [3.0, 0.0]  # the second variable was never observed
    assert found.log_intensity.exp()[0, 1].tolist() == [0.0, 0.0]


def test_the_nearest_observation_is_one_of_the_same_variable() -> None:
    smoothing = Smoothing(codes=3, points=3, lookback_hours=48.0)
    code, time = torch.tensor([[3, 1, 1, 0]]), torch.tensor([[23.0, 25.0, 40.0, 0.0]])
    found = smoothing._nearest(code, time, torch.tensor([0.0, 24.0, 48.0])).view(4, 3)
    assert found[1].tolist() == [625.0, 1.0, 64.0]
    assert found[2].tolist() == [torch.inf] * 3  # never observed, though others were close
    assert found[3].tolist() == [529.0, 1.0, 625.0]


def test_variables_are_mixed_by_intensity_and_correlation() -> None:
    """Equation 3 with two variables of intensity 3 and 1, smooth values 2 and -1."""
    mixing = Mixing(codes=2)
    with torch.no_grad():
        mixing.correlation.copy_(torch.tensor([[1.0, 0.5], [-0.25, 2.0]]))
    smoothed = Smoothed(
        smooth=torch.tensor([[[2.0, -1.0]]]),
        transient=torch.tensor([[[5.0, 6.0]]]),
        log_intensity=torch.tensor([[[3.0, 1.0]]]).log(),
    )
    chi = [(3 * 2.0 * 1.0 + 1 * -1.0 * 0.5) / 4, (3 * 2.0 * -0.25 + 1 * -1.0 * 2.0) / 4]
    expected = [*chi, 3.0, 1.0, 5.0 - chi[0], 6.0 - chi[1]]
    assert mixing(smoothed)[0, 0].tolist() == pytest.approx(expected)


def test_parameters_are_those_of_the_paper() -> None:
    codes, d = 5, 8
    model = InterpNet(InterpNetConfig(d_model=d), codes, static_width=0, time_scale_hours=48.0)
    gru = 3 * (3 * codes * d + d * d + 2 * d)
    assert model.parameter_count == codes + codes * codes + gru + (d + 1)
