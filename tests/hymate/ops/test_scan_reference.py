"""The torch reference against the recurrence written out, and against finite differences."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.ops.scan_torch import selective_scan_torch
from tests.hymate.ops.conftest import in_double, relative_error, scan_inputs


def recurrence(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
) -> Tensor:
    """Algorithm 2 of the Mamba paper, one position after the other."""
    step = F.softplus(delta + delta_bias)
    state = torch.zeros(u.shape[0], u.shape[2], A.shape[1], dtype=u.dtype)
    y = torch.empty_like(u)
    for t in range(u.shape[1]):
        state = torch.exp(step[:, t, :, None] * A) * state + (step * u)[:, t, :, None] * B[:, t, None, :]
        y[:, t] = (state * C[:, t, None, :]).sum(-1) + D * u[:, t]
    return y * F.silu(z)


@pytest.mark.parametrize("length", [0, 1, 2, 3, 8, 9, 17, 100])
def test_chunks_equal_the_recurrence(length: int) -> None:
    inputs = scan_inputs(2, length, 3, 5, torch.float64)
    found = selective_scan_torch(**inputs, delta_softplus=True)
    assert relative_error(found, recurrence(**inputs)) < 1e-13


def test_optional_inputs_default_to_no_effect() -> None:
    inputs = scan_inputs(2, 11, 3, 4, torch.float64)
    required = {name: inputs[name] for name in ("u", "delta", "A", "B", "C")}
    zeros = torch.zeros(3, dtype=torch.float64)
    # silu(z) = 1 there.
    one = torch.full_like(inputs["u"], 1.2784645427610738)
    neutral = selective_scan_torch(**required, D=zeros, z=one, delta_bias=zeros, delta_softplus=False)
    assert relative_error(selective_scan_torch(**required, delta_softplus=False), neutral) < 1e-13


@pytest.mark.parametrize("shape", [(2, 5, 3, 2), (1, 1, 2, 3), (2, 10, 1, 1)])
@pytest.mark.parametrize("softplus", [True, False])
def test_gradients_by_finite_differences(shape: tuple[int, int, int, int], softplus: bool) -> None:
    inputs = scan_inputs(*shape, torch.float64)
    if not softplus:  # steps are positive
        inputs["delta"], inputs["delta_bias"] = inputs["delta"].abs() / 4, inputs["delta_bias"].abs() / 4
    tensors = [tensor.requires_grad_() for tensor in inputs.values()]

    def scan(*given: Tensor) -> Tensor:
        named = dict(zip(inputs, given, strict=True))
        return selective_scan_torch(**named, delta_softplus=softplus)

    assert torch.autograd.gradcheck(scan, tensors)


def test_parameters_per_sample_equal_runs_of_one_sample() -> None:
    inputs = scan_inputs(3, 12, 4, 2, torch.float64)
    shared = ("A", "D", "delta_bias")
    rows = {name: torch.stack([inputs[name] * k for k in (1.0, 0.5, 2.0)]) for name in shared}
    given = inputs | rows
    together = selective_scan_torch(**given, delta_softplus=True)
    for i in range(3):
        one = {name: rows[name][i] if name in rows else tensor[i : i + 1] for name, tensor in inputs.items()}
        assert relative_error(together[i : i + 1], selective_scan_torch(**one, delta_softplus=True)) < 1e-13


def test_equals_mamba_ssm_reference() -> None:
    interface = pytest.importorskip("mamba_ssm.ops.selective_scan_interface")
    inputs = scan_inputs(2, 50, 6, 4)
    first = {name: tensor.transpose(1, 2) if tensor.dim() == 3 else tensor for name, tensor in inputs.items()}
    expected = interface.selective_scan_ref(**first, delta_softplus=True).transpose(1, 2)
    found = selective_scan_torch(**in_double(inputs), delta_softplus=True)
    assert relative_error(expected, found) < 1e-5
