"""Registers a kernel as an operator of torch: `torch.ops.hymate.<name>`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

_registry: Any = torch.library  # untyped in torch
_library = _registry.Library("hymate", "FRAGMENT")


def register_operator(
    name: str, signature: str, *, kernel: Callable[..., Any], shapes: Callable[..., Any]
) -> None:
    """Define `hymate::name` with its CPU kernel and its fake kernel, which only makes empty outputs."""
    _library.define(name + signature)
    _library.impl(name, kernel, "CPU")
    _registry.register_fake(f"hymate::{name}", shapes, lib=_library)


def register_gradient(name: str, *, remember: Callable[..., None], gradient: Callable[..., Any]) -> None:
    """Make `hymate::name` differentiable: `remember(ctx, inputs, output)`, `gradient(ctx, *grad_outputs)`."""
    _registry.register_autograd(f"hymate::{name}", gradient, setup_context=remember, lib=_library)


def launch(kernel: Callable[..., None], *arguments: Any) -> None:
    """Run a compiled kernel on torch's number of threads.

    Tensors are handed over as DLPack capsules: the kernels take tensors, too, but ask `Tensor.__dlpack__` for
    one then, which is Python, and a training step of a small model hands over some hundreds.
    """
    given = (to_dlpack(one) if isinstance(one, Tensor) else one for one in arguments)
    kernel(*given, torch.get_num_threads())


def sequence_rows(tensor: Tensor) -> Tensor:
    """The same tensor with adjacent elements in its last dimension; other strides are free (no copy)."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def parameter_rows(tensor: Tensor, ndim: int) -> Tensor:
    """The same parameter, contiguous but for a batch dimension in front of `ndim` others (no copy)."""
    shared = tensor.dim() == ndim or len(tensor) == 0
    one = tensor if shared else tensor[0]
    return tensor if one.is_contiguous() else tensor.contiguous()
