"""SAnD: dense interpolation by hand, and who sees whom."""

from __future__ import annotations

import pytest
import torch

from hymate.model.baselines.sand import SAnD, SpanAttentionBlock, interpolation_weights, span_mask
from hymate.model.config import SAnDConfig


def test_dense_interpolation_weights_by_hand() -> None:
    """T = 4, M = 2: s = 0.5, 1, 1.5, 2; w = (1 - |s - m| / 2)^2."""
    expected = [
        [0.75**2, 0.25**2],
        [1.0, 0.5**2],
        [0.75**2, 0.75**2],
        [0.5**2, 1.0],
    ]
    assert interpolation_weights(steps=4, factors=2).tolist() == expected


def test_the_stay_is_the_interpolated_vectors_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """With blocks that pass everything through, u_m is the weighted sum of the positions."""
    from tests.hymate.model.batches import batch_of, random_stay

    config = SAnDConfig(d_model=4, heads=2, layers=1, interpolation=2, bin_hours=12.0, dropout=0.0)
    model = SAnD(config, codes=11, static_width=0, time_scale_hours=48.0).eval()
    monkeypatch.setattr(SpanAttentionBlock, "forward", lambda self, x, sees: x)
    torch.nn.init.zeros_(model.input.weight)
    torch.nn.init.zeros_(model.input.bias)
    e = model.position.weight
    first = 0.75**2 * e[0] + 1.0 * e[1] + 0.75**2 * e[2] + 0.5**2 * e[3]
    second = 0.25**2 * e[0] + 0.5**2 * e[1] + 0.75**2 * e[2] + 1.0 * e[3]
    found = model.summarise(batch_of([random_stay(5, seed=0)]))
    torch.testing.assert_close(found, torch.cat([first, second])[None])


def test_attention_sees_its_span_and_nothing_later() -> None:
    assert span_mask(steps=4, span=1).int().tolist() == [
        [1, 0, 0, 0],
        [1, 1, 0, 0],
        [0, 1, 1, 0],
        [0, 0, 1, 1],
    ]
    torch.manual_seed(0)
    block = SpanAttentionBlock(d_model=8, heads=2, dropout=0.0).eval()
    x = torch.randn(1, 6, 8)
    changed = x.clone()
    changed[:, 2] += 1.0
    moved = (block(x, span_mask(6, 2)) - block(changed, span_mask(6, 2))).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [False, False, True, True, True, False]


def test_attention_is_softmax_of_scaled_products() -> None:
    torch.manual_seed(1)
    block = SpanAttentionBlock(d_model=6, heads=2, dropout=0.0).eval()
    x, sees = torch.randn(1, 5, 6), span_mask(5, 3)
    q, k, v = (part.view(5, 2, 3) for part in block.qkv(x)[0].split(6, dim=-1))
    heads = []
    for head in range(2):
        scores = (q[:, head] @ k[:, head].T / 3**0.5).masked_fill(~sees, -torch.inf)
        heads.append(scores.softmax(dim=-1) @ v[:, head])
    torch.testing.assert_close(block._attend(block.qkv(x), sees)[0], torch.cat(heads, dim=-1))


def test_parameters_are_those_of_the_paper() -> None:
    codes, d, layers, steps, factors = 5, 8, 3, 48, 12
    config = SAnDConfig(d_model=d, heads=2, layers=layers, interpolation=factors)
    model = SAnD(config, codes, static_width=0, time_scale_hours=48.0)
    block = 4 * d * d + (d * 2 * d + 2 * d) + (2 * d * d + d) + 2 * 2 * d
    expected = (3 * codes * d + d) + steps * d + layers * block + (factors * d + 1)
    assert model.parameter_count == expected
