"""Self-attention against its formula, one head and one stay at a time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from hymate.model.attention import AttentionLayer, SelfAttention


def test_attention_by_formula() -> None:
    torch.manual_seed(0)
    attention = SelfAttention(d_model=8, heads=2)
    x = torch.randn(2, 5, 8)
    lengths = (5, 3)
    mask = torch.arange(5)[None, :] < torch.tensor(lengths)[:, None]
    with torch.no_grad():
        found = attention(x, mask)
        for stay, length in enumerate(lengths):
            q, k, v = torch.chunk(attention.qkv(x[stay, :length]), 3, dim=-1)
            heads = []
            for head in range(2):
                of_head = slice(4 * head, 4 * head + 4)
                weight = (q[:, of_head] @ k[:, of_head].T / math.sqrt(4)).softmax(dim=-1)
                heads.append(weight @ v[:, of_head])
            expected = attention.out(torch.cat(heads, dim=-1))
            torch.testing.assert_close(found[stay, :length], expected, atol=1e-6, rtol=1e-5)


def test_layer_is_two_residual_branches() -> None:
    torch.manual_seed(0)
    layer = AttentionLayer(d_model=8, heads=2, dropout=0.5).eval()
    x, mask = torch.randn(1, 4, 8), torch.ones(1, 4, dtype=torch.bool)
    with torch.no_grad():
        middle = x + layer.attention(layer.attention_norm(x), mask)
        expected = middle + layer.ffn_out(F.gelu(layer.ffn_in(layer.ffn_norm(middle))))
        torch.testing.assert_close(layer(x, mask), expected)
        layer.train()
        assert not torch.allclose(layer(x, mask), expected)  # dropout acts while training
