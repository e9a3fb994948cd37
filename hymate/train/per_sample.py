"""Per-sample gradients of every layer of the model, for Opacus.

Opacus takes them by hooks on leaf modules, and looks up what to do by a layer's exact type. Ours compute
with kernels of their own, so each is registered here: linear layers and norms as torch's, convolution and
scan through kernels that take one parameter per sample (`hymate.ops.selective_scan`).

A module whose parameters are of no type known here would be differentiated by functorch, which cannot look
into the native kernels: `unknown_layers` finds such before anything is trained. Training itself goes the
shorter way of `hymate.train.sample_gradients`, for the same types.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from opacus.grad_sample import register_grad_sampler
from opacus.grad_sample.linear import compute_linear_grad_sample
from opacus.grad_sample.rms_norm import compute_rms_norm_grad_sample
from torch import Tensor, nn

from hymate.model.layers import Linear, RMSNorm
from hymate.model.mamba import CausalConv1d, SelectiveSSM
from hymate.ops.causal_conv import causal_conv1d_silu
from hymate.ops.selective_scan import per_sample_gradients

Samples = dict[nn.Parameter, Tensor]


def linear_samples(layer: Linear, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Of weight (B, outputs, inputs) and bias (B, outputs)."""
    found: Samples = compute_linear_grad_sample(layer, activations, backprops)
    return found


def norm_samples(layer: RMSNorm, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Of the weight, (B, width)."""
    found: Samples = compute_rms_norm_grad_sample(layer, activations, backprops)
    return found


def convolution_samples(layer: CausalConv1d, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Of the filters (B, c, 1, width) and their bias (B, c): the SiLU after them is part of the layer."""
    x = activations[0]
    weight, bias = layer.weight, layer.bias
    assert bias is not None  # as `CausalConv1d` makes it
    weights, biases = (p.detach().expand(len(x), *p.shape).requires_grad_() for p in (weight, bias))
    with torch.enable_grad():
        made = causal_conv1d_silu(x, weights, biases)
        of_weight, of_bias = torch.autograd.grad(made, (weights, biases), backprops)
    return cast(Samples, {weight: of_weight, bias: of_bias})


def scan_samples(layer: SelectiveSSM, activations: list[Tensor], backprops: Tensor) -> Samples:
    """Of A_log (B, c, n) and D (B, c). A = -exp(A_log), so d/dA_log = A d/dA."""
    x, delta, B, C, z = activations
    A = -torch.exp(layer.A_log.detach())
    found = per_sample_gradients(backprops, x, delta, A, B, C, layer.D.detach(), z, None, delta_softplus=True)
    assert found.D is not None  # asked for
    return {layer.A_log: found.A * A, layer.D: found.D}


SAMPLERS: dict[type[nn.Module], Callable[..., Samples]] = {
    Linear: linear_samples,
    RMSNorm: norm_samples,
    CausalConv1d: convolution_samples,
    SelectiveSSM: scan_samples,
}
for _layer, _sampler in SAMPLERS.items():
    register_grad_sampler(_layer)(_sampler)


KNOWN = frozenset({*SAMPLERS, nn.Linear, nn.Embedding})
"""Types whose gradients by stay are tested here. Opacus has more, and trusts that each is called with the
batch in front: SAnD calls its table of positions without."""


def unknown_layers(model: nn.Module) -> list[str]:
    """Names of modules that own trainable parameters and are of no type in `KNOWN`."""
    return [
        name or type(module).__name__
        for name, module in model.named_modules()
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False))
        and type(module) not in KNOWN
    ]
