"""Mamba: a selective state space model between gated projections.

Mamba, arXiv 2312.00752, sections 3.2 to 3.4 and algorithm 2; parameter names, shapes and first
values are those of `mamba_ssm.modules.mamba_simple.Mamba`, so weights move both ways.

    B, L, d      batch, length, d_model
    c            d_inner = expand * d                     channels of the scan
    n            d_state                                  states of each channel
    r            dt_rank = ceil(d / 16)                   rank of the step's projection
    x, z         (B, L, c)   the scan's input, its gate   in_proj      (2c, d)
    x            (B, L, c)   SiLU(causal convolution)     conv1d       (c, 1, width), (c,)
    dt, B, C     (B, L, r | n | n)   read from x          x_proj       (r + 2n, c)
    delta        (B, L, c)   softplus(dt_proj(dt)) > 0    dt_proj      (c, r), (c,)
    A            (c, n)      -exp(A_log): decay rates     ssm.A_log    (c, n)
    D            (c,)        skip                         ssm.D        (c,)
    y            (B, L, c)   (scan + D x) * SiLU(z)       out_proj     (d, c)

Every weight is used by the module that owns it, called as a module: per-sample gradients are taken
by hooks on modules (Opacus), and a bare `weight @ x` would escape them. `A_log` and `D` therefore
live in a leaf module of their own, one name deeper than in mamba_ssm.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from hymate.model.dropout import Dropout
from hymate.model.layers import Linear, RMSNorm
from hymate.ops.causal_conv import causal_conv1d_silu
from hymate.ops.selective_scan import selective_scan

DT_MIN, DT_MAX, DT_FLOOR = 1e-3, 1e-1, 1e-4  # first step sizes: log-uniform (arXiv 2312.00752, section 3.6)


class CausalConv1d(nn.Conv1d):
    """Depthwise convolution over the past, then SiLU, on channels-last input."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__(channels, channels, width, groups=channels, padding=width - 1)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, c) -> (B, L, c)."""
        return causal_conv1d_silu(x, self.weight, self.bias)


class SelectiveSSM(nn.Module):
    """The scan and the two parameters that are its own, `A_log` (c, n) and `D` (c,)."""

    def __init__(self, channels: int, d_state: int) -> None:
        super().__init__()
        # S4D-real: A = -1, -2, ..., -n in every channel.
        states = torch.arange(1, d_state + 1, dtype=torch.float32)
        self.A_log = nn.Parameter(torch.log(states).repeat(channels, 1))
        self.D = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor, delta: Tensor, B: Tensor, C: Tensor, z: Tensor) -> Tensor:
        """x, delta (before softplus), z (B, L, c); B, C (B, L, n) -> y (B, L, c)."""
        A = -torch.exp(self.A_log)
        return selective_scan(x, delta, A, B, C, self.D, z, delta_bias=None, delta_softplus=True)


class Mamba(nn.Module):
    """The mixer: (B, L, d) -> (B, L, d), causal, linear in L."""

    def __init__(self, d_model: int, d_state: int = 16, d_conv: int = 4, expand: int = 2) -> None:
        super().__init__()
        self.d_inner = expand * d_model
        self.d_state = d_state
        self.dt_rank = math.ceil(d_model / 16)

        self.in_proj = Linear(d_model, 2 * self.d_inner, bias=False)
        self.conv1d = CausalConv1d(self.d_inner, d_conv)
        self.x_proj = Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = Linear(self.dt_rank, self.d_inner)
        self.ssm = SelectiveSSM(self.d_inner, d_state)
        self.out_proj = Linear(self.d_inner, d_model, bias=False)
        self._first_steps()

    def _first_steps(self) -> None:
        """Start with softplus(bias) log-uniform in [DT_MIN, DT_MAX] and a variance-keeping weight."""
        bound = self.dt_rank**-0.5
        nn.init.uniform_(self.dt_proj.weight, -bound, bound)
        low, high = math.log(DT_MIN), math.log(DT_MAX)
        dt = torch.exp(low + torch.rand(self.d_inner) * (high - low)).clamp(min=DT_FLOOR)
        with torch.no_grad():
            self.dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))  # softplus^-1(dt)

    def forward(self, hidden: Tensor) -> Tensor:
        """hidden (B, L, d) -> (B, L, d)."""
        x, z = self.in_proj(hidden).chunk(2, dim=-1)  # (B, L, 2c) -> 2 x (B, L, c)
        x = self.conv1d(x)
        dt, B, C = self.x_proj(x).split([self.dt_rank, self.d_state, self.d_state], dim=-1)
        y = self.ssm(x, self.dt_proj(dt), B, C, z)  # (B, L, c)
        out: Tensor = self.out_proj(y)
        return out

    def to_mamba_ssm_state(self) -> dict[str, Tensor]:
        """This mixer's parameters under the names of `mamba_ssm.modules.mamba_simple.Mamba`."""
        return {name.removeprefix("ssm."): tensor for name, tensor in self.state_dict().items()}

    def load_mamba_ssm_state(self, state: Mapping[str, Tensor]) -> None:
        """Take over the parameters of a `mamba_ssm` Mamba of the same size, bit for bit.

        Raises RuntimeError (from `load_state_dict`) where names or shapes differ.
        """
        own = {"A_log": "ssm.A_log", "D": "ssm.D"}
        self.load_state_dict({own.get(name, name): tensor for name, tensor in state.items()})


class MambaBlock(nn.Module):
    """Residual around RMSNorm -> Mamba -> dropout (HyMaTE section 3, pre-norm)."""

    def __init__(self, d_model: int, d_state: int, d_conv: int, expand: int, dropout: float) -> None:
        super().__init__()
        self.norm = RMSNorm(d_model)
        self.mixer = Mamba(d_model, d_state, d_conv, expand)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """x (B, L, d) -> (B, L, d)."""
        mixed: Tensor = x + self.dropout(self.mixer(self.norm(x)))
        return mixed
