"""Inputs of a scan, and comparisons, shared by the tests of the operators."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from hymate.ops import backend

NAMES = ("u", "delta", "A", "B", "C", "D", "z", "delta_bias")


def scan_inputs(
    batch: int, length: int, channels: int, states: int, dtype: torch.dtype = torch.float32, seed: int = 0
) -> dict[str, Tensor]:
    """Random inputs as a Mamba block produces them: steps around 0.1, decays between 0.2 and `states`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    rates = torch.rand(channels, states, generator=generator, dtype=torch.float64)
    return {
        "u": normal(batch, length, channels),
        "delta": normal(batch, length, channels) - 2.0,
        "A": -(0.2 + states * rates).to(dtype),
        "B": normal(batch, length, states),
        "C": normal(batch, length, states),
        "D": normal(channels),
        "z": normal(batch, length, channels),
        "delta_bias": normal(channels),
    }


def in_double(inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().double() for name, tensor in inputs.items()}


def relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; 0 for empty tensors."""
    assert found.shape == expected.shape
    if found.numel() == 0:
        return 0.0
    scale = expected.abs().max().clamp_min(1e-30)
    return float(((found.double() - expected).abs().max() / scale).detach())


@pytest.fixture(params=backend.native.available_isas() if backend.native else ["none"])
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine runs, forced for the test."""
    assert backend.native is not None, f"the C++ kernel is not built: {backend.missing}"
    before = backend.native.isa()
    backend.native.force_isa(request.param)
    yield request.param
    backend.native.force_isa(before)


@pytest.fixture
def threads() -> Iterator[None]:
    """Restores the number of threads."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
