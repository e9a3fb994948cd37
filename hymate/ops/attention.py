"""Softmax attention among the real observations of each sample, all of them or a window around each.

Memory is linear in length everywhere; time is too with a window. On the CPU in float32 the C++ kernel
runs, which leaves padding out instead of masking it; else torch's `scaled_dot_product_attention`.

    B, L         batch, padded length
    H, k         heads, width of a head
    qkv          (B, L, 3 H k)   query, key and value of each observation, in this order, heads within
    lengths      (B,) int64      real observations of each sample: its first ones
    window       observations seen on each side of one's own; None: all
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hymate.ops.backend import Backend, choose_backend


def attention(qkv: Tensor, lengths: Tensor, heads: int, window: int | None = None) -> Tensor:
    """-> (B, L, H k), zero where padding is. Raises ValueError for a window below 1 or odd shapes."""
    if window is not None and window < 1:
        raise ValueError(f"window is {window}, expected None or at least 1")
    if qkv.dim() != 3 or qkv.shape[2] % (3 * heads) or lengths.shape != qkv.shape[:1]:
        raise ValueError(
            f"qkv must be (batch, length, 3 * {heads} * width), lengths (batch,): "
            f"{tuple(qkv.shape)}, {tuple(lengths.shape)}"
        )
    if choose_backend(qkv.device, qkv.dtype).backend is Backend.NATIVE:
        from hymate.ops.attention_native import attention_native

        return attention_native(qkv, lengths, heads, window)
    return attention_torch(qkv, lengths, heads, window)


def attention_torch(qkv: Tensor, lengths: Tensor, heads: int, window: int | None = None) -> Tensor:
    """`attention` by torch operations only: any device and dtype."""
    batch, length, wide = qkv.shape
    q, k, v = qkv.reshape(batch, length, 3, heads, wide // (3 * heads)).permute(
        2, 0, 3, 1, 4
    )  # 3 x (B, H, L, k)
    real = torch.arange(length, device=qkv.device) < lengths[:, None]  # (B, L)
    if window is None or window >= length - 1:
        # A sample without observations attends to its padding: over no key at all, some backends of
        # SDPA give NaN.
        seen = real | (lengths == 0)[:, None]
        y = F.scaled_dot_product_attention(q, k, v, attn_mask=seen[:, None, None, :])
    else:
        y = _local(q, k, v, real, window)
    return y.transpose(1, 2).flatten(2).masked_fill(~real[:, :, None], 0.0)  # (B, H, L, k) -> (B, L, H k)


def _local(q: Tensor, k: Tensor, v: Tensor, real: Tensor, window: int) -> Tensor:
    """Queries in chunks as long as the window: each chunk sees itself and a window on either side."""
    batch, heads, length, width = q.shape
    chunks = -(-length // window)
    after = chunks * window - length
    queries = (
        F.pad(q, (0, 0, 0, after)).reshape(batch, heads, chunks, window, width).transpose(1, 2)
    )  # (B, n, H, w, k)

    def around(x: Tensor) -> Tensor:
        """(B, H, L, k) -> (B n, H, 3 w, k): the keys that each chunk may see."""
        padded = F.pad(x, (0, 0, window, after + window)).unfold(2, 3 * window, window)  # (B, H, n, k, 3w)
        return padded.permute(0, 2, 1, 4, 3).flatten(0, 1)

    key = torch.arange(3 * window, device=q.device)
    query = torch.arange(window, device=q.device)[:, None] + window  # its place among the chunk's keys
    near = (key - query).abs() <= window  # (w, 3w)
    there = F.pad(real, (window, after + window)).unfold(1, 3 * window, window)  # (B, n, 3w)
    seen = near & there[:, :, None, :]
    seen = seen | ~seen.any(dim=-1, keepdim=True)  # padding sees what there is: no query without a key
    y = F.scaled_dot_product_attention(
        queries.flatten(0, 1), around(k), around(v), attn_mask=seen.flatten(0, 1).unsqueeze(1)
    )  # (B n, H, w, k)
    y = y.reshape(batch, chunks, heads, window, width).transpose(1, 2)  # (B, H, n, w, k)
    return y.reshape(batch, heads, chunks * window, width)[:, :, :length]
