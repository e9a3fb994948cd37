"""The mixer against its recurrence, and its names against mamba_ssm's."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from hymate.model.mamba import Mamba, MambaBlock


def by_recurrence(mixer: Mamba, hidden: torch.Tensor) -> torch.Tensor:
    """Algorithm 2 of arXiv 2312.00752 one position at a time, for one sequence (L, d)."""
    weights = mixer.to_mamba_ssm_state()
    x, z = (hidden @ weights["in_proj.weight"].T).chunk(2, dim=-1)
    width = weights["conv1d.weight"].shape[-1]
    A = -weights["A_log"].exp()
    h = torch.zeros_like(A)
    out = []
    for t in range(hidden.shape[0]):
        u = weights["conv1d.bias"].clone()
        for lag in range(width):
            if t - lag >= 0:
                u += weights["conv1d.weight"][:, 0, width - 1 - lag] * x[t - lag]
        u = F.silu(u)
        dt, B, C = torch.split(weights["x_proj.weight"] @ u, [mixer.dt_rank, mixer.d_state, mixer.d_state])
        delta = F.softplus(weights["dt_proj.weight"] @ dt + weights["dt_proj.bias"])
        h = torch.exp(delta[:, None] * A) * h + (delta * u)[:, None] * B[None, :]
        y = (h @ C + weights["D"] * u) * F.silu(z[t])
        out.append(weights["out_proj.weight"] @ y)
    return torch.stack(out)


@pytest.mark.parametrize(("length", "width"), [(1, 4), (2, 4), (3, 2), (37, 3)])
def test_mixer_equals_the_recurrence(length: int, width: int) -> None:
    torch.manual_seed(0)
    mixer = Mamba(d_model=12, d_state=5, d_conv=width, expand=2)
    hidden = torch.randn(3, length, 12)
    with torch.no_grad():
        mixer.ssm.D.normal_()
        expected = torch.stack([by_recurrence(mixer, sequence) for sequence in hidden])
        torch.testing.assert_close(mixer(hidden), expected, atol=1e-5, rtol=1e-4)


def test_block_adds_the_mixer_to_the_normalised_stream() -> None:
    torch.manual_seed(0)
    block = MambaBlock(d_model=12, d_state=4, d_conv=4, expand=2, dropout=0.5).eval()
    x = torch.randn(2, 9, 12)
    with torch.no_grad():
        block.norm.weight.uniform_(0.5, 2.0)
        normalised = x / x.square().mean(dim=-1, keepdim=True).add(1e-5).sqrt() * block.norm.weight
        torch.testing.assert_close(block(x), x + block.mixer(normalised))


def test_names_and_shapes_are_those_of_mamba_ssm() -> None:
    """The parameters of `mamba_ssm.modules.mamba_simple.Mamba(d_model=24, d_state=6, d_conv=3)`."""
    d, c, n, r, width = 24, 48, 6, 2, 3  # c = 2 d, r = ceil(24 / 16)
    mixer = Mamba(d_model=d, d_state=n, d_conv=width)
    assert {name: tuple(p.shape) for name, p in mixer.to_mamba_ssm_state().items()} == {
        "A_log": (c, n),
        "D": (c,),
        "in_proj.weight": (2 * c, d),
        "conv1d.weight": (c, 1, width),
        "conv1d.bias": (c,),
        "x_proj.weight": (r + 2 * n, c),
        "dt_proj.weight": (c, r),
        "dt_proj.bias": (c,),
        "out_proj.weight": (d, c),
    }


def test_weights_move_both_ways_bit_for_bit() -> None:
    torch.manual_seed(0)
    one, other = Mamba(24), Mamba(24)
    with torch.no_grad():
        for parameter in one.parameters():
            parameter.normal_()
    sent = one.to_mamba_ssm_state()
    other.load_mamba_ssm_state(sent)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    back = other.to_mamba_ssm_state()
    assert list(sent) == list(back)
    assert all(torch.equal(sent[name], back[name]) for name in sent)
    with pytest.raises(RuntimeError, match=r"ssm\.D"):
        other.load_mamba_ssm_state({name: tensor for name, tensor in sent.items() if name != "D"})


def test_first_values_are_those_of_mamba_ssm() -> None:
    torch.manual_seed(0)
    mixer = Mamba(d_model=64, d_state=16)
    expected = torch.arange(1.0, 17.0).log().expand(128, 16)
    torch.testing.assert_close(mixer.ssm.A_log.detach(), expected)
    assert mixer.ssm.D.eq(1).all()
    steps = F.softplus(mixer.dt_proj.bias.detach())
    assert steps.min() >= 1e-3 * 0.999
    assert steps.max() <= 1e-1 * 1.001
    # Log-uniform: the median lies at the geometric mean of the ends, 1e-2.
    assert math.log10(float(steps.median())) == pytest.approx(-2, abs=0.3)
    assert mixer.dt_proj.weight.abs().max() <= 0.5  # dt_rank ** -0.5
