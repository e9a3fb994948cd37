"""Attention of both backends against its formula in float64, one sample and head at a time."""

from __future__ import annotations

import importlib
import math

import pytest
import torch
from torch import Tensor

from hymate.ops import attention as attention_module
from hymate.ops.attention import attention
from tests.hymate.ops.conftest import relative_error

# Lengths, heads, width of a head, window: around the lanes and strips of the kernel.
CASES = [
    ((1,), 1, 1, None),
    ((5, 0, 3), 2, 4, None),
    ((17, 16, 1, 33), 2, 8, None),
    ((130, 300), 1, 16, None),
    ((40,), 2, 21, None),
    ((9, 4), 2, 8, 1),
    ((60, 0, 37), 2, 16, 5),
    ((150, 290), 1, 16, 37),
    ((33, 20), 1, 5, 16),
    ((300,), 1, 4, 128),
    ((20, 7), 2, 4, 19),
    ((20, 7), 2, 4, 100),
    ((0, 0), 1, 4, 2),
]


def by_formula(qkv: Tensor, lengths: Tensor, heads: int, window: int | None) -> Tensor:
    batch, padded, wide = qkv.shape
    width = wide // (3 * heads)
    y = qkv.new_zeros(batch, padded, heads * width)
    for sample, length in enumerate(lengths.tolist()):
        q, k, v = qkv[sample, :length].view(length, 3, heads, width).unbind(dim=1)
        place = torch.arange(length)
        far = (place[:, None] - place).abs() > (padded if window is None else window)
        for head in range(heads):
            score = (q[:, head] @ k[:, head].T / math.sqrt(width)).masked_fill(far, -math.inf)
            y[sample, :length, head * width : (head + 1) * width] = score.softmax(dim=-1) @ v[:, head]
    return y


def case_inputs(lengths: tuple[int, ...], heads: int, width: int, extra: int = 3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    padded = max(lengths) + extra
    qkv = 1.5 * torch.randn(len(lengths), padded, 3 * heads * width, generator=generator)
    return qkv, torch.tensor(lengths)


@pytest.mark.parametrize(("lengths", "heads", "width", "window"), CASES)
@pytest.mark.parametrize("backend", ["native", "torch"])
def test_equals_formula(
    isa: str,
    lengths: tuple[int, ...],
    heads: int,
    width: int,
    window: int | None,
    backend: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    given, count = case_inputs(lengths, heads, width)
    ours, double = given.clone().requires_grad_(), given.double().requires_grad_()
    y, expected = attention(ours, count, heads, window), by_formula(double, count, heads, window)
    assert relative_error(y, expected) <= 1e-5
    assert all(y[sample, length:].eq(0).all() for sample, length in enumerate(lengths))
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (found,) = torch.autograd.grad(y, ours, dy)
    (exact,) = torch.autograd.grad(expected, double, dy.double())
    # One observation alone attends to itself: the exact gradient of its query is then 0.
    scale = exact.abs().max().clamp_min(1e-6)
    assert float((found - exact).abs().max() / scale) <= 1e-4 if found.numel() else True


@pytest.mark.parametrize("backend", ["native", "torch"])
def test_a_window_over_everything_is_full_attention(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    qkv, lengths = case_inputs((50, 23), 2, 8, extra=0)
    full = attention(qkv, lengths, 2)
    for window in (49, 50, 1000):
        torch.testing.assert_close(attention(qkv, lengths, 2, window), full, atol=1e-6, rtol=0)
    assert not torch.allclose(attention(qkv, lengths, 2, 48)[0], full[0], atol=1e-6)
    torch.testing.assert_close(attention(qkv, lengths, 2, 48)[1], full[1], atol=1e-6, rtol=0)


@pytest.mark.parametrize("backend", ["native", "torch"])
@pytest.mark.parametrize("window", [None, 6])
def test_padding_is_not_read(backend: str, window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYMATE_SCAN", backend)
    qkv, lengths = case_inputs((31, 8), 2, 8, extra=0)
    changed = qkv.clone()
    changed[1, 8:] = 1e6
    clean, dirty = attention(qkv, lengths, 2, window), attention(changed, lengths, 2, window)
    assert torch.equal(clean, dirty)
    alone = attention(qkv[1:, :8], lengths[1:], 2, window)
    torch.testing.assert_close(clean[1:, :8], alone, atol=1e-6, rtol=0)


def test_large_scores_do_not_overflow(isa: str) -> None:
    qkv, lengths = case_inputs((200,), 1, 8)
    qkv[..., :8] *= 1e4
    ours, double = qkv.clone().requires_grad_(), qkv.double().requires_grad_()
    y = attention(ours, lengths, 1)
    assert relative_error(y, by_formula(double, lengths, 1, None)) <= 1e-2  # scores of 1e5 in float32
    assert torch.autograd.grad(y.sum(), ours)[0].isfinite().all()


def test_threads_do_not_change_a_bit(isa: str, threads: None) -> None:
    qkv, lengths = case_inputs((150, 77, 31), 2, 8)
    qkv.requires_grad_()
    dy, results = torch.randn(3, 153, 16), []
    for count in (1, 2, 5):
        torch.set_num_threads(count)
        y = attention(qkv, lengths, 2, 40)
        results.append([y, *torch.autograd.grad(y, qkv, dy)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_operator_registration() -> None:
    importlib.import_module("hymate.ops.attention_native")
    qkv, lengths = case_inputs((9, 4), 2, 4)
    torch.library.opcheck(torch.ops.hymate.attention.default, (qkv.requires_grad_(), lengths, 2, 3))


def test_no_query_of_torch_is_left_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over no key at all, some backends of SDPA give NaN."""
    original, masks = attention_module.F.scaled_dot_product_attention, []

    def watched(q: Tensor, k: Tensor, v: Tensor, attn_mask: Tensor) -> Tensor:
        masks.append(attn_mask)
        return original(q, k, v, attn_mask=attn_mask)

    monkeypatch.setattr(attention_module.F, "scaled_dot_product_attention", watched)
    monkeypatch.setenv("HYMATE_SCAN", "torch")
    for window in (None, 2):
        attention(*case_inputs((0, 5, 12), 2, 4), 2, window)
    assert len(masks) == 2
    assert all(mask.any(dim=-1).all() for mask in masks)
    assert masks[0][1].sum() == 5


@pytest.mark.parametrize("lengths", [[3, -1], [3, 13]])
def test_lengths_beyond_the_padding_are_refused(lengths: list[int]) -> None:
    qkv, _ = case_inputs((9, 4), 2, 4)
    with pytest.raises(ValueError, match="lengths must have values"):
        attention(qkv, torch.tensor(lengths), 2)


def test_other_faults_are_refused() -> None:
    qkv, lengths = case_inputs((9, 4), 2, 4)
    with pytest.raises(ValueError, match="window is 0"):
        attention(qkv, lengths, 2, 0)
    with pytest.raises(ValueError, match="qkv must be"):
        attention(qkv, lengths, 5)
    with pytest.raises(ValueError, match="lengths"):
        attention(qkv, lengths[:1], 2)
