"""Which backend runs, why, and what is said when a choice cannot be met."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator
from unittest.mock import patch

import pytest
import torch

from hymate.errors import InputFault
from hymate.ops import backend
from hymate.ops.backend import Backend, choose_backend, describe_backend
from hymate.ops.selective_scan import selective_scan
from tests.hymate.ops.conftest import scan_inputs

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv(backend.VARIABLE, raising=False)
    backend._choose.cache_clear()
    yield
    backend._choose.cache_clear()


def test_native_on_the_cpu_in_float32() -> None:
    assert choose_backend(CPU, torch.float32).backend is Backend.NATIVE
    assert choose_backend(CPU, torch.float64).backend is Backend.TORCH
    assert "float64" in describe_backend("cpu", torch.float64)


def test_cuda_needs_mamba_ssm() -> None:
    with patch.object(backend, "cuda_available", return_value=False):
        assert choose_backend(CUDA, torch.float32).backend is Backend.TORCH
    backend._choose.cache_clear()
    with patch.object(backend, "cuda_available", return_value=True):
        assert choose_backend(CUDA, torch.float32).backend is Backend.CUDA


@pytest.mark.parametrize("name", ["native", "torch"])
def test_the_variable_forces_a_backend(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(backend.VARIABLE, name)
    assert choose_backend(CPU, torch.float32).backend == name
    assert f"HYMATE_SCAN={name} is set" in describe_backend()
    called = []
    scan = f"hymate.ops.scan_native.selective_scan_{name}"
    if name == "torch":
        scan = "hymate.ops.selective_scan.selective_scan_torch"
    with patch(scan, side_effect=lambda *given: called.append(given)):
        selective_scan(**scan_inputs(1, 2, 3, 4), delta_softplus=True)
    assert len(called) == 1


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [("cuda", CPU, torch.float32), ("native", CPU, torch.float64), ("native", CUDA, torch.float32)],
)
def test_a_choice_that_cannot_run_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, device: torch.device, dtype: torch.dtype
) -> None:
    monkeypatch.setenv(backend.VARIABLE, name)
    with pytest.raises(InputFault, match=f"HYMATE_SCAN={name}: .*; unset HYMATE_SCAN"):
        choose_backend(device, dtype)


def test_an_unknown_backend_names_those_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "fast")
    with pytest.raises(InputFault, match="native, torch, cuda"):
        choose_backend(CPU, torch.float32)


def test_without_the_kernel_torch_runs_and_one_warning_is_given() -> None:
    inputs = scan_inputs(1, 5, 3, 2)
    expected = selective_scan(**inputs, delta_softplus=True)
    backend._choose.cache_clear()
    with patch.object(backend, "native", None), patch.object(backend, "missing", "not built"):
        with pytest.warns(RuntimeWarning, match="not built.*plain torch"):
            found = selective_scan(**inputs, delta_softplus=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            selective_scan(**inputs, delta_softplus=True)
        assert "the C++ kernel is not available" in describe_backend()
    assert torch.allclose(found, expected, atol=1e-6)


def test_forcing_the_missing_kernel_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(backend.VARIABLE, "native")
    with patch.object(backend, "native", None), pytest.raises(InputFault, match="build it"):
        choose_backend(CPU, torch.float32)


def test_description_names_instruction_set_and_threads() -> None:
    assert re.search(r"'native' \((avx512|avx2|baseline), \d+ threads\)", describe_backend())


def test_an_unknown_instruction_set_is_refused() -> None:
    assert backend.native is not None
    with pytest.raises(ValueError, match="choose from"):
        backend.native.force_isa("mmx")
