"""What private steps are made of: who is drawn, the noise, and adaptive clipping."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from hymate.train.noise import SecretNoise, derived_key
from hymate.train.poisson import Sampling, Subjects
from hymate.train.private_optimiser import AdaptiveOptimiser, FlatOptimiser, Mechanism, PrivateOptimiser
from tests.hymate.train.planted import planted_store


def test_everyone_is_drawn_by_themselves_at_the_rate() -> None:
    store = planted_store(train=40, tuning=0)
    subjects = Subjects.of(store, np.arange(40))
    rng = np.random.default_rng(0)
    times = np.array([np.isin(np.arange(40), subjects.draw(0.3, rng)) for _ in range(2000)])
    of_each = times.sum(0)
    square = float(((of_each - 600) ** 2 / (2000 * 0.3 * 0.7)).sum())
    assert stats.chi2(40).cdf(square) == pytest.approx(0.5, abs=0.4999)
    sizes = times.sum(1)  # binomial, not always the same
    assert sizes.mean() == pytest.approx(12, abs=0.3)
    assert sizes.var() == pytest.approx(40 * 0.3 * 0.7, rel=0.15)


def test_one_stay_of_a_patient_each_as_often() -> None:
    store = planted_store(train=12, tuning=0)
    store = replace(store, subject_id=np.array([5, 2, 5, 2, 5, 9, 5, 2, 9, 2, 5, 5]))
    usable = np.array([0, 1, 2, 3, 4, 5, 6, 8, 11])  # of 5: 0, 2, 4, 6, 11; of 2: 1, 3; of 9: 5, 8
    subjects = Subjects.of(store, usable)
    assert len(subjects) == 3
    rng = np.random.default_rng(0)
    drawn = np.array([subjects.draw(1.0, rng) for _ in range(3000)])
    assert (store.subject_id[drawn] == [2, 5, 9]).all()
    for column, stays in enumerate(([1, 3], [0, 2, 4, 6, 11], [5, 8])):
        found, count = np.unique(drawn[:, column], return_counts=True)
        assert found.tolist() == stays
        assert stats.chisquare(count).pvalue > 1e-4
    assert len(subjects.draw(0.0, rng)) == 0


def test_how_many_steps_draw_everyone_once() -> None:
    assert Sampling.of(1000, 32) == Sampling(1000, 0.032, 31)
    assert Sampling.of(1000, 32, visits=3).steps == 94
    assert Sampling.of(20, 32) == Sampling(20, 1.0, 1)
    assert Sampling.of(0, 32) == Sampling(0, 0.0, 0)


def test_noise_is_normal_and_its_keys_alone() -> None:
    noise = SecretNoise(derived_key(bytes(32), "noise", 1, 0))
    first, second = noise.normal(100_001), noise.normal(3)
    assert first.dtype == torch.float64
    assert stats.kstest(first.numpy(), "norm").pvalue > 1e-4
    assert stats.kurtosis(first.numpy()) == pytest.approx(0.0, abs=0.08)
    assert abs(float(torch.corrcoef(torch.stack([first[:-1], first[1:]]))[0, 1])) < 0.015
    again = SecretNoise(derived_key(bytes(32), "noise", 1, 0))
    assert torch.equal(again.normal(100_001), first)
    assert torch.equal(again.normal(3), second)
    short = SecretNoise(derived_key(bytes(32), "noise", 1, 0)).normal(3)
    for purpose in (("noise", 1, 1), ("noise", 2, 0), ("draws", 1, 0)):
        assert not torch.equal(SecretNoise(derived_key(bytes(32), *purpose)).normal(3), short)
    assert not torch.equal(SecretNoise(derived_key(bytes(31) + b"1", "noise", 1, 0)).normal(3), short)
    with pytest.raises(ValueError, match="32 bytes, not 5"):
        derived_key(b"short", "noise")


def private_of(kind: type[PrivateOptimiser], mechanism: Mechanism, expected: float) -> PrivateOptimiser:
    parameter = nn.Parameter(torch.zeros(2))
    return kind(torch.optim.AdamW([parameter]), [parameter], mechanism, expected)


def step(private: PrivateOptimiser, *pieces: list[float]) -> torch.Tensor:
    """The mean gradient of stays with these norms, given in pieces."""
    (parameter,) = private.params
    private.zero_grad(set_to_none=True)
    for norms in pieces:
        parameter.grad_sample = torch.tensor([[norm, 0.0] for norm in norms])  # type: ignore[attr-defined]
        private.add()
    private.finish()
    assert parameter.grad is not None
    return parameter.grad


def test_pieces_add_up_over_the_expected_number() -> None:
    private = private_of(FlatOptimiser, Mechanism(0.0, 1.0), expected=8)
    assert step(private, [0.5, 3.0], [2.0]).tolist() == pytest.approx([2.5 / 8, 0.0])
    assert step(private).tolist() == [0.0, 0.0]  # nothing of the last step is left


@pytest.mark.parametrize(("norm", "reached"), [(1e-3, 0.01), (100.0, 10.0)])
def test_adaptive_clipping_finds_the_median(norm: float, reached: float) -> None:
    private = private_of(AdaptiveOptimiser, Mechanism(0.3, norm), expected=9)
    private.noise = SecretNoise(bytes(32))
    norms = [reached * factor for factor in (0.1, 0.3, 0.6, 0.9, 1.0, 1.1, 2.0, 4.0, 9.0)]
    found = []
    for _ in range(300):
        step(private, norms[:4], norms[4:])
        found.append(float(private.max_grad_norm))
    assert np.median(found[150:]) == pytest.approx(reached, rel=0.25)


def test_adaptive_clipping_does_not_tell_how_many_were_drawn() -> None:
    """One more patient moves the count by 1/2: up, unclipped, or down, clipped."""
    moved = []
    for pieces in ([[0.1] * 3], [[0.1] * 4], [[0.1] * 3 + [9.0]], []):
        private = private_of(AdaptiveOptimiser, Mechanism(0.0, 1.0), expected=10)
        step(private, *pieces)
        moved.append(-np.log(private.max_grad_norm) / 0.2 * 10)  # the count, from its middle
    assert moved == pytest.approx([1.5, 2.0, 1.0, 0.0])


def test_adaptive_clipping_spends_its_multiplier_on_both_releases() -> None:
    for multiplier, expected in ((0.5, 32), (4.0, 32), (1.0, 1000)):
        private = private_of(AdaptiveOptimiser, Mechanism(multiplier, 3.0), expected)
        assert isinstance(private, AdaptiveOptimiser)
        of_gradient, of_count = private.deviation / 3.0, 2 * private.unclipped_num_std
        assert of_gradient**-2 + of_count**-2 == pytest.approx(multiplier**-2)
        assert of_gradient < 1.16 * multiplier
