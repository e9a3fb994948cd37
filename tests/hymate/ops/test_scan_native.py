"""The C++ scan against the reference in float64: outputs and every gradient, on every instruction set."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hymate.ops import backend
from hymate.ops.scan_torch import selective_scan_torch
from hymate.ops.selective_scan import per_sample_gradients, selective_scan
from tests.hymate.ops.conftest import NAMES, in_double, relative_error, scan_inputs

FORWARD, GRADIENT = 1e-5, 1e-4

# (batch, length, channels, state): lengths around a stretch of 16, channels around every vector width.
SHAPES = [
    (2, 1, 3, 1),
    (2, 2, 17, 4),
    (2, 3, 5, 16),
    (3, 16, 16, 16),
    (2, 17, 37, 16),
    (1, 17, 130, 64),
    (2, 33, 7, 21),
    (9, 18, 131, 3),
    (2, 880, 5, 16),
    (1, 4096, 3, 4),
    (0, 5, 4, 4),
    (2, 0, 4, 4),
]


def gradients(
    inputs: dict[str, Tensor], dy: Tensor, softplus: bool = True
) -> tuple[Tensor, dict[str, Tensor]]:
    """Output and gradient of every input, by the kernel for float32 and by the reference for float64."""
    scan = selective_scan if dy.dtype == torch.float32 else selective_scan_torch
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in inputs.items()}
    y = scan(**leaves, delta_softplus=softplus)
    found = torch.autograd.grad(y, list(leaves.values()), dy, allow_unused=True)
    return y.detach(), {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }


def compare(inputs: dict[str, Tensor], softplus: bool = True) -> None:
    dy = torch.randn(inputs["u"].shape, generator=torch.Generator().manual_seed(1))
    y, found = gradients(inputs, dy, softplus)
    y_expected, expected = gradients(in_double(inputs), dy.double(), softplus)
    assert relative_error(y, y_expected) <= FORWARD
    for name in inputs:
        assert relative_error(found[name], expected[name]) <= GRADIENT, name


def test_kernel_is_built() -> None:
    assert backend.native is not None, backend.missing


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_reference(isa: str, shape: tuple[int, int, int, int]) -> None:
    compare(scan_inputs(*shape))


@pytest.mark.parametrize("absent", ["D", "z", "delta_bias"])
def test_equals_reference_without_an_optional_input(isa: str, absent: str) -> None:
    inputs = scan_inputs(2, 19, 18, 5)
    del inputs[absent]
    compare(inputs)


def test_equals_reference_without_softplus(isa: str) -> None:
    inputs = scan_inputs(2, 19, 18, 5)
    inputs["delta"] = inputs["delta"].abs() * 0.1
    inputs["delta_bias"] = inputs["delta_bias"].abs() * 0.1
    compare(inputs, softplus=False)


def test_extreme_steps_and_decays(isa: str) -> None:
    """Softplus far from 0, decays that underflow and decays so slow that 1 - exp is what counts."""
    inputs = scan_inputs(2, 64, 16, 4)
    inputs["delta"] = torch.linspace(-80.0, 60.0, 2 * 64 * 16).reshape(2, 64, 16)
    inputs["delta_bias"].zero_()
    compare(inputs)
    slow = scan_inputs(1, 2000, 4, 4)
    slow["A"] *= 1e-3
    compare(slow)


@given(
    batch=st.integers(0, 3),
    length=st.integers(0, 70),
    channels=st.integers(1, 40),
    states=st.integers(1, 20),
    absent=st.sets(st.sampled_from(["D", "z", "delta_bias"])),
)
@settings(max_examples=40, deadline=None, derandomize=True)
def test_equals_reference_for_any_shape(
    batch: int, length: int, channels: int, states: int, absent: set[str]
) -> None:
    inputs = scan_inputs(batch, length, channels, states)
    compare({name: tensor for name, tensor in inputs.items() if name not in absent})


def test_reads_strided_inputs() -> None:
    """Halves and slices of a projection, as a Mamba block passes them, and a broadcast gradient."""
    inputs = scan_inputs(2, 21, 12, 4)
    xz = torch.cat([inputs["u"], inputs["z"]], dim=-1)
    bc = torch.cat([inputs["B"], inputs["C"], inputs["B"]], dim=-1)
    inputs["u"], inputs["z"] = xz.chunk(2, dim=-1)
    inputs["B"], inputs["C"] = bc[..., :4], bc[..., 4:8]
    inputs["delta"] = inputs["delta"].transpose(1, 2).contiguous().transpose(1, 2)
    compare(inputs)
    dy = torch.ones(()).expand(2, 21, 12)
    _, found = gradients(inputs, dy)
    _, expected = gradients(in_double(inputs), dy.double())
    assert all(relative_error(found[name], expected[name]) <= GRADIENT for name in NAMES)


@pytest.mark.parametrize("shape", [(5, 100, 70, 7), (1, 65, 200, 16), (16, 40, 130, 4)], ids=str)
def test_threads_do_not_change_a_bit(isa: str, shape: tuple[int, int, int, int], threads: None) -> None:
    inputs = scan_inputs(*shape)
    dy = torch.randn_like(inputs["u"])
    results = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        y, found = gradients(inputs, dy)
        results.append([y, *found.values()])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize("names", [("A", "D", "delta_bias"), ("A",), ("D",), ("delta_bias",)])
def test_parameters_that_differ_between_samples(isa: str, names: tuple[str, ...]) -> None:
    inputs = scan_inputs(3, 19, 18, 5)
    factors = torch.tensor([1.0, 0.5, 2.0])
    for name in names:
        inputs[name] = inputs[name] * factors.reshape(3, *[1] * inputs[name].dim())
    compare(inputs)


def test_per_sample_gradients() -> None:
    inputs = scan_inputs(4, 40, 19, 5)
    dy = torch.randn_like(inputs["u"])
    _, batch_gradients = gradients(inputs, dy)
    rows = per_sample_gradients(dy, **inputs, delta_softplus=True)
    for name, found in zip(("A", "D", "delta_bias"), rows, strict=True):
        assert found is not None
        assert found.shape == (4, *inputs[name].shape)
        assert relative_error(found.sum(0), batch_gradients[name].double()) < 1e-5
    for i in range(4):
        one = {name: tensor[i : i + 1] if tensor.dim() == 3 else tensor for name, tensor in inputs.items()}
        _, alone = gradients(one, dy[i : i + 1])
        for name, found in zip(("A", "D", "delta_bias"), rows, strict=True):
            assert found is not None
            assert relative_error(found[i], alone[name].double()) < 1e-5


def test_per_sample_gradients_of_absent_inputs_are_none() -> None:
    inputs = scan_inputs(2, 4, 3, 2)
    rows = per_sample_gradients(
        torch.ones_like(inputs["u"]), inputs["u"], inputs["delta"], inputs["A"], inputs["B"], inputs["C"]
    )
    assert rows.D is None
    assert rows.delta_bias is None
    assert rows.A.shape == (2, 3, 2)


@pytest.mark.parametrize("name", NAMES)
def test_nan_in_gives_nan_out(isa: str, name: str) -> None:
    inputs = scan_inputs(1, 40, 20, 4)
    inputs[name].flatten()[-1] = math.nan
    y, found = gradients(inputs, torch.ones_like(inputs["u"]))
    assert y[0, -1, -1].isnan()
    assert not y[0, 0, 0].isnan()
    assert any(gradient.isnan().any() for gradient in found.values())


@pytest.mark.parametrize("needs", [True, False])
def test_operator_registration(needs: bool) -> None:
    importlib.import_module("hymate.ops.scan_native")
    inputs = scan_inputs(2, 20, 16, 3)
    tensors = tuple(tensor.requires_grad_(needs) for tensor in inputs.values())
    torch.library.opcheck(torch.ops.hymate.selective_scan.default, (*tensors, True, needs))


def test_backward_recomputes_what_the_forward_did_not_save() -> None:
    importlib.import_module("hymate.ops.scan_native")
    inputs = {name: tensor.requires_grad_() for name, tensor in scan_inputs(2, 40, 5, 3).items()}
    dy = torch.randn_like(inputs["u"])
    results = []
    for save in (True, False):
        y, checkpoints = torch.ops.hymate.selective_scan(*inputs.values(), True, save)
        assert (checkpoints.numel() > 0) == save
        results.append(torch.autograd.grad(y, list(inputs.values()), dy))
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_exponential(isa: str) -> None:
    assert backend.native is not None
    x = torch.linspace(-1.0, 1.0, 100_001)
    y = torch.empty_like(x)
    backend.native.exponential(x, y)
    assert ((y - x.double().exp()).abs() / x.double().exp()).max() < 2.5e-7
    x = torch.tensor([math.nan, -math.inf, math.inf, -1e30, 0.0, -0.0, 88.0, -88.0])
    y = torch.empty_like(x)
    backend.native.exponential(x, y)
    assert y[0].isnan()
    assert y[1:6].tolist() == [0.0, math.inf, 0.0, 1.0, 1.0]
    assert y[6].item() == pytest.approx(math.exp(88.0), rel=1e-5)
    assert 0.0 <= y[7].item() < 1e-37


@pytest.mark.parametrize(
    ("name", "shape"),
    [("A", (5, 2)), ("B", (2, 5, 3)), ("C", (1, 5, 2)), ("D", (3,)), ("z", (2, 4, 4)), ("delta", (2, 5))],
)
def test_shapes_that_do_not_fit_are_refused(name: str, shape: tuple[int, ...]) -> None:
    inputs = scan_inputs(2, 5, 4, 2)
    inputs[name] = torch.zeros(shape)
    with pytest.raises(ValueError, match=f"{name} has shape"):
        selective_scan(**inputs, delta_softplus=True)
