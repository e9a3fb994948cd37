"""Which implementation of the selective scan and the convolution runs, and why."""

from __future__ import annotations

import importlib.util
import os
import warnings
from enum import StrEnum
from functools import cache
from types import ModuleType
from typing import NamedTuple

import torch  # before the extension: both then share torch's OpenMP runtime

from hymate.errors import InputFault


def _load() -> tuple[ModuleType | None, str]:
    try:
        from hymate.ops import _native
    except ImportError as fault:
        return None, str(fault)
    return _native, ""


native, missing = _load()
VARIABLE = "HYMATE_SCAN"


class Backend(StrEnum):
    """`native`: our C++ on the CPU. `cuda`: mamba-ssm's kernels. `torch`: plain torch, on anything."""

    NATIVE = "native"
    TORCH = "torch"
    CUDA = "cuda"


class Choice(NamedTuple):
    """A backend and the reason for it, as part of a sentence."""

    backend: Backend
    reason: str


def choose_backend(device: torch.device, dtype: torch.dtype) -> Choice:
    """The backend for tensors of this device and dtype.

    By default `cuda` on CUDA and `native` on the CPU in float32, where they are available, else `torch`;
    the environment variable HYMATE_SCAN forces one. When `native` would run but is not built, that is
    said in one warning. Raises `InputFault` if HYMATE_SCAN names no backend or one that cannot run here.
    """
    return _choose(os.environ.get(VARIABLE), device.type, dtype)


def describe_backend(device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32) -> str:
    """One sentence: which backend runs for tensors of this device and dtype, and why."""
    backend, reason = choose_backend(torch.device(device), dtype)
    detail = ""
    if backend is Backend.NATIVE and native is not None:
        detail = f" ({native.isa()}, {torch.get_num_threads()} threads)"
    return f"The selective scan runs in '{backend}'{detail}: {reason}."


@cache
def _choose(forced: str | None, device: str, dtype: torch.dtype) -> Choice:
    if forced:
        return _forced(forced, device, dtype)
    if device == "cuda":
        if cuda_available():
            return Choice(Backend.CUDA, "the tensors are on a CUDA device and mamba-ssm is installed")
        return Choice(
            Backend.TORCH, "mamba-ssm is not installed (pip install '.[gpu]' in the project's folder)"
        )
    if device == "cpu":
        return _for_cpu(dtype)
    return Choice(Backend.TORCH, f"no kernel of ours or of mamba-ssm runs on '{device}'")


def _for_cpu(dtype: torch.dtype) -> Choice:
    if dtype != torch.float32:
        return Choice(Backend.TORCH, f"the native kernel computes in float32, not {_name(dtype)}")
    if native is not None:
        return Choice(Backend.NATIVE, "the tensors are on the CPU in float32 and the C++ kernel is built")
    warnings.warn(
        f"hymate's C++ kernel is not available ({missing}); the selective scan runs in plain torch, slower "
        "by far. Install a C++ compiler and reinstall the package.",
        RuntimeWarning,
        stacklevel=5,
    )
    return Choice(Backend.TORCH, f"the C++ kernel is not available ({missing})")


def _forced(name: str, device: str, dtype: torch.dtype) -> Choice:
    where, auto = f"{VARIABLE}={name}", f"unset {VARIABLE} to choose automatically"
    if name not in set(Backend):
        known = ", ".join(Backend)
        raise InputFault(where, "no such backend", f"use one of: {known}; or {auto}")
    if name == Backend.NATIVE:
        if native is None:
            raise InputFault(where, f"the C++ kernel is not available ({missing})", f"build it, or {auto}")
        if device != "cpu" or dtype != torch.float32:
            raise InputFault(where, f"it runs on cpu in float32, not on {device} in {_name(dtype)}", auto)
    if name == Backend.CUDA and (device != "cuda" or not cuda_available()):
        raise InputFault(where, f"needs mamba-ssm and tensors on cuda; these are on {device}", auto)
    return Choice(Backend(name), f"{where} is set")


@cache
def cuda_available() -> bool:
    """Whether mamba-ssm is there to be imported (it is, only when first used)."""
    return importlib.util.find_spec("mamba_ssm") is not None


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
