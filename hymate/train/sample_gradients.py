"""Every stay's own gradient from one backward pass, at about the cost of the ordinary one.

Opacus' hooks (`hymate.train.per_sample`) let autograd compute the ordinary gradient of every weight,
compute the stays' gradients beside it, and run scan and convolution a second time for that. Here the
layers' own backward passes make the stays' gradients *instead*: scan, convolution and norm are given
their parameters once per stay, which their kernels take as they are; linear layers and tables have a
backward of their own. What arrives is the same number, to rounding (`tests/hymate/train/test_per_sample.py`
holds both against batches of one stay); it lies where Opacus' optimisers look, in `grad_sample`.

`Mode.NORMS` and `Mode.SUMS` are the two passes of fast gradient clipping (Lee and Kifer, arXiv 2009.03106),
called ghost clipping where a norm is found without its gradient (Li et al., arXiv 2110.05679).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import Enum
from types import TracebackType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.model.layers import Linear, RMSNorm
from hymate.model.mamba import CausalConv1d, SelectiveSSM
from hymate.ops.backend import Backend, choose_backend
from hymate.ops.linear import linear

Forward = Callable[..., Tensor]

NARROW = 512  # elements of a weight below which one call for all stays is faster than one call each


class Mode(Enum):
    """What a backward pass leaves behind."""

    ROWS = "rows"
    """`p.grad_sample` (B, *p.shape): gradients of stay after stay; `p.grad` stays None."""
    NORMS = "norms"
    """`SampleGradients.squares` (B,): each stay's squared norm over all parameters, and no gradient."""
    SUMS = "sums"
    """`p.grad`, as ever."""


class SampleGradients:
    """Within the `with`, backward passes of `model` make gradients stay by stay; afterwards all is as before.

    Every tensor that a layer with parameters is called with has the batch in front. Raises ValueError in
    forward where one has not, and in backward for a layer called twice in `Mode.NORMS`.
    """

    def __init__(self, model: nn.Module, mode: Mode = Mode.ROWS) -> None:
        self.model = model
        self.mode = mode
        self.squares: Tensor | None = None
        self._seen: set[int] = set()
        self._stays: int | None = None

    def __enter__(self) -> SampleGradients:
        for module in self.model.modules():
            if (make := LAYERS.get(type(module))) is not None:
                module.forward = self._watched(type(module).forward, module, make(module, self))
        self.clear()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        for module in self.model.modules():
            module.__dict__.pop("forward", None)
        for parameter in self.model.parameters():
            parameter.__dict__.pop("grad_sample", None)

    def clear(self) -> None:
        """Forget what the last backward pass left, before the next."""
        self.squares, self._stays = None, None
        self._seen.clear()
        for parameter in self.model.parameters():
            parameter.grad_sample = None  # type: ignore[attr-defined]  # Opacus' place for it

    def _watched(self, ordinary: Forward, layer: nn.Module, by_stay: Forward) -> Forward:
        def forward(*inputs: Tensor) -> Tensor:
            if not torch.is_grad_enabled():
                return ordinary(layer, *inputs)
            stays = len(inputs[0])
            if self._stays not in {None, stays}:
                raise ValueError(f"a layer is called with {stays} rows, and another with {self._stays}")
            self._stays = stays
            return by_stay(*inputs)

        return forward

    def rows(self, parameter: nn.Parameter, stays: int) -> Tensor:
        """The parameter once per stay, (B, *shape); nothing is copied."""
        found: Tensor = _Rows.apply(parameter, stays, self)  # type: ignore[no-untyped-call]
        return found

    def take(self, parameter: nn.Parameter, rows: Tensor) -> Tensor | None:
        """A backward pass has found the gradients `rows` (B, *shape); what it is to give for `p.grad`."""
        if self.mode is Mode.SUMS:
            return rows.sum(0)
        if self.mode is Mode.NORMS:
            self.add_squares(parameter, rows.flatten(1).square().sum(1))
        else:
            before: Tensor | None = parameter.grad_sample  # type: ignore[attr-defined]
            parameter.grad_sample = rows if before is None else before + rows  # type: ignore[attr-defined]
        return None

    def add_squares(self, parameter: nn.Parameter, squares: Tensor) -> None:
        """Squared norms (B,) of one parameter's gradients."""
        if id(parameter) in self._seen:
            raise ValueError("a layer that is called twice has no norm but that of its gradients' sum")
        self._seen.add(id(parameter))
        self.squares = squares if self.squares is None else self.squares + squares


class _Rows(torch.autograd.Function):
    """p -> (p, p, ..., p)."""

    @staticmethod
    def forward(ctx: Any, parameter: nn.Parameter, stays: int, samples: SampleGradients) -> Tensor:
        ctx.parameter, ctx.samples = parameter, samples
        return parameter.detach().expand(stays, *parameter.shape)

    @staticmethod
    def backward(ctx: Any, rows: Tensor) -> tuple[Tensor | None, None, None]:
        return ctx.samples.take(ctx.parameter, rows), None, None


class _Linear(torch.autograd.Function):
    """`hymate.ops.linear` whose weight and bias get a gradient for each stay."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: nn.Parameter, bias: nn.Parameter | None, samples: SampleGradients
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.weight, ctx.bias, ctx.samples = weight, bias, samples
        return linear(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        samples, dweight, dbias = ctx.samples, None, None
        if ctx.needs_input_grad[1]:
            if samples.mode is Mode.NORMS and x.dim() == 2:  # |g x^T| = |g| |x|
                samples.add_squares(ctx.weight, dy.square().sum(1) * x.square().sum(1))
            else:
                dweight = samples.take(ctx.weight, weight_rows(x, dy))
        if ctx.needs_input_grad[2]:
            dbias = samples.take(ctx.bias, dy if dy.dim() == 2 else dy.flatten(1, -2).sum(1))
        dx = linear(dy, ctx.weight.detach().t()) if ctx.needs_input_grad[0] else None
        return dx, dweight, dbias, None


def weight_rows(x: Tensor, dy: Tensor) -> Tensor:
    """sum_l dy_l x_l^T of each stay: x (B, ..., inputs), dy (B, ..., outputs) -> (B, outputs, inputs)."""
    inputs, outputs = x.shape[-1], dy.shape[-1]
    if x.dim() == 2:
        return dy.unsqueeze(2) * x.unsqueeze(1)
    x, dy = x.flatten(1, -2), dy.flatten(1, -2)  # (B, L, ...)
    native = choose_backend(x.device, x.dtype).backend is Backend.NATIVE
    if not native or inputs * outputs < NARROW:
        return torch.bmm(dy.transpose(1, 2), x)
    from hymate.ops import linear_native as linear_native  # noqa: PLC0414  (registers the operator)

    found = x.new_empty(len(x), outputs, inputs)
    for stay in range(len(x)):
        found[stay] = torch.ops.hymate.linear_backward_weight(dy[stay], x[stay], False)[0]
    return found


class _Table(torch.autograd.Function):
    """`F.embedding` whose table gets a gradient for each stay."""

    @staticmethod
    def forward(
        ctx: Any, index: Tensor, table: nn.Parameter, padding: int | None, samples: SampleGradients
    ) -> Tensor:
        ctx.save_for_backward(index)
        ctx.table, ctx.padding, ctx.samples = table, padding, samples
        return F.embedding(index, table)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[None, Tensor | None, None, None]:
        (index,) = ctx.saved_tensors
        size, width = ctx.table.shape
        first = torch.arange(len(index), device=index.device).mul(size)
        place = index.flatten(1) + first.unsqueeze(1)  # (B, L), of the stays' tables in a row
        rows = dy.new_zeros(len(index) * size, width).index_add_(0, place.flatten(), dy.reshape(-1, width))
        rows = rows.view(len(index), size, width)
        if ctx.padding is not None:
            rows[:, ctx.padding] = 0.0
        return None, ctx.samples.take(ctx.table, rows), None, None


def _of_linear(layer: nn.Module, samples: SampleGradients) -> Forward:
    assert isinstance(layer, nn.Linear)

    def forward(x: Tensor) -> Tensor:
        y: Tensor = _Linear.apply(x, layer.weight, layer.bias, samples)  # type: ignore[no-untyped-call]
        return y

    return forward


def _of_table(layer: nn.Module, samples: SampleGradients) -> Forward:
    assert isinstance(layer, nn.Embedding)

    def forward(index: Tensor) -> Tensor:
        y: Tensor = _Table.apply(  # type: ignore[no-untyped-call]
            index, layer.weight, layer.padding_idx, samples
        )
        return y

    return forward


def _of_kernel(layer: nn.Module, samples: SampleGradients) -> Forward:
    """A layer whose kernel takes its parameters once per stay."""
    forward_of: Forward = type(layer).forward

    def forward(*inputs: Tensor) -> Tensor:
        own = dict(layer._parameters)
        for name, parameter in own.items():
            if parameter is not None:
                layer._parameters[name] = samples.rows(parameter, len(inputs[0]))  # type: ignore[assignment]
        try:
            return forward_of(layer, *inputs)
        finally:
            layer._parameters.update(own)

    return forward


LAYERS: dict[type[nn.Module], Callable[[nn.Module, SampleGradients], Forward]] = {
    Linear: _of_linear,
    RMSNorm: _of_kernel,
    CausalConv1d: _of_kernel,
    SelectiveSSM: _of_kernel,
    nn.Embedding: _of_table,
    nn.Linear: _of_linear,
}


def used_parameters(model: nn.Module, output: Callable[[], Tensor]) -> list[nn.Parameter]:
    """Trainable parameters that `output` depends on, in the model's order."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad():
        found = torch.autograd.grad(output().sum(), trainable, allow_unused=True)
    return [parameter for parameter, gradient in zip(trainable, found, strict=True) if gradient is not None]


def unusable(parameters: Iterable[nn.Parameter]) -> Tensor:
    """Which stays, (B,) bool, have a gradient that is not finite in any of the `grad_sample`s."""
    sums = [parameter.grad_sample.flatten(1).sum(1) for parameter in parameters]  # type: ignore[attr-defined]
    return ~torch.isfinite(torch.stack(sums).sum(0))
