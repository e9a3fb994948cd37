"""The Mamba stack one observation at a time: constant time and memory for each new one.

Mamba, arXiv 2312.00752, section 3.3: the same recurrence that the scan runs over a whole sequence.

    B, d, c, n   stays, d_model, channels, states
    window       (B, width, c)   the convolution's last inputs, newest last
    h            (B, c, n)       the scan's state
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.model.mamba import Mamba, MambaBlock


@dataclass(frozen=True)
class BlockState:
    """What one Mamba block remembers of the past: window (B, width, c), h (B, c, n)."""

    window: Tensor
    h: Tensor

    def where(self, observed: Tensor, other: BlockState) -> BlockState:
        """This state for the stays where `observed` (B,) is True, `other` for the rest."""
        chosen = observed[:, None, None]
        return BlockState(
            torch.where(chosen, self.window, other.window), torch.where(chosen, self.h, other.h)
        )


@dataclass(frozen=True)
class StackState:
    """What the Mamba stack remembers of B stays; its size does not depend on how much was observed."""

    blocks: tuple[BlockState, ...]


def first_block_state(mixer: Mamba, batch: int) -> BlockState:
    """Nothing observed yet."""
    like = mixer.ssm.A_log
    width = mixer.conv1d.weight.shape[-1]
    return BlockState(like.new_zeros(batch, width, mixer.d_inner), like.new_zeros(batch, *like.shape))


def step_block(block: MambaBlock, state: BlockState, x: Tensor) -> tuple[Tensor, BlockState]:
    """One position of `block`, dropout left out: x (B, d) -> (B, d) and the state after it."""
    mixer = block.mixer
    normalised: Tensor = block.norm(x.unsqueeze(1)).squeeze(1)
    u, z = mixer.in_proj(normalised).chunk(2, dim=-1)  # 2 x (B, c)
    window = torch.cat([state.window[:, 1:], u.unsqueeze(1)], dim=1)
    u = mixer.conv1d(window)[:, -1]  # the whole window lies in its past
    dt, b, c = mixer.x_proj(u).split([mixer.dt_rank, mixer.d_state, mixer.d_state], dim=-1)
    delta = F.softplus(mixer.dt_proj(dt))  # (B, c)
    decay = torch.exp(delta.unsqueeze(-1) * -torch.exp(mixer.ssm.A_log))  # (B, c, n)
    h = decay * state.h + (delta * u).unsqueeze(-1) * b.unsqueeze(1)
    y = (torch.einsum("bcn,bn->bc", h, c) + mixer.ssm.D * u) * F.silu(z)
    return x + mixer.out_proj(y), BlockState(window, h)
