"""Causal depthwise convolution followed by SiLU, as it precedes the scan in a Mamba block."""

from __future__ import annotations

import importlib.util
from functools import cache

import torch.nn.functional as F
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend

_WIDEST_KERNEL = 4  # of our kernel and of causal-conv1d's


def causal_conv1d_silu(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """silu(bias_c + sum_k weight_ck x_{t - width + 1 + k, c}), x being zero before its first position.

    Shapes: x and the result (batch, length, channels); weight (channels, 1, width) as nn.Conv1d with
    groups=channels holds it; bias (channels,) or None. For per-sample gradients weight and bias may have
    the batch in front, as in `selective_scan`. The backend follows the scan's choice: the C++ kernel,
    `causal_conv1d` on CUDA where installed, else torch. Raises ValueError for shapes that do not fit.
    """
    _require_shapes(x, weight, bias)
    backend = choose_backend(x.device, x.dtype).backend
    if weight.shape[-1] <= _WIDEST_KERNEL:
        if backend is Backend.NATIVE:
            from hymate.ops.convolution_native import causal_conv1d_native

            return causal_conv1d_native(x, weight, bias)
        shared = weight.dim() == 3 and (bias is None or bias.dim() == 1)
        if backend is Backend.CUDA and shared and weight.shape[-1] > 1 and _has_causal_conv1d():
            from causal_conv1d import causal_conv1d_fn

            y: Tensor = causal_conv1d_fn(x.transpose(1, 2), weight.squeeze(1), bias, activation="silu")
            return y.transpose(1, 2)
    return causal_conv1d_torch(x, weight, bias)


def causal_conv1d_torch(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`causal_conv1d_silu` by torch operations only: any device and dtype."""
    batch, length, channels = x.shape
    width = weight.shape[-1]
    # One position more on the right where there is none: conv1d takes no input shorter than its kernel.
    padded = F.pad(x.transpose(1, 2), (width - 1, int(length == 0)))
    if weight.dim() == 3 and (bias is None or bias.dim() == 1):
        return F.silu(F.conv1d(padded, weight, bias, groups=channels)).transpose(1, 2)[:, :length]
    if batch == 0:  # a convolution has at least one channel; what is empty shall have gradients all the same
        return x * (weight.sum((-2, -1)) if bias is None else weight.sum((-2, -1)) + bias).unsqueeze(1)
    # One filter per sample: the batch folded into the channels.
    weights = weight.expand(batch, channels, 1, width).reshape(batch * channels, 1, width)
    biases = None if bias is None else bias.expand(batch, channels).reshape(batch * channels)
    y = F.conv1d(padded.reshape(1, batch * channels, -1), weights, biases, groups=batch * channels)
    return F.silu(y).reshape(batch, channels, -1).transpose(1, 2)[:, :length]


@cache
def _has_causal_conv1d() -> bool:
    return importlib.util.find_spec("causal_conv1d") is not None


def _require_shapes(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    if x.dim() != 3 or weight.dim() not in {3, 4}:
        raise ValueError(
            "x must be (batch, length, channels), weight ([batch,] channels, 1, width): "
            f"{tuple(x.shape)}, {tuple(weight.shape)}"
        )
    batch, _, channels = x.shape
    for name, shape, expected in (
        ("weight", tuple(weight.shape[:-1]), ((channels, 1), (batch, channels, 1))),
        ("bias", None if bias is None else tuple(bias.shape), ((channels,), (batch, channels))),
    ):
        if shape is not None and shape not in expected:
            raise ValueError(f"{name} has shape {shape}, expected {' or '.join(map(str, expected))}")
