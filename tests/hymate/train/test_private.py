"""Private epochs: what a patient can change, what noise is added, what an epoch depends on and leaves."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy import stats
from torch import Tensor, nn

from hymate.config import FinetuneConfig, PretrainConfig
from hymate.data.batching import TripletBatch, collate
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.config import GRUConfig
from hymate.model.hymate import HyMaTE
from hymate.model.registry import build
from hymate.model.sequence_model import SequenceModel
from hymate.privacy.spend import Spend
from hymate.privacy_config import Clipping, PrivacyConfig
from hymate.train import private
from hymate.train.averaging import Average
from hymate.train.checkpoint import load_optimiser, save_optimiser
from hymate.train.loop import LocalHook, Phase, finetune_epochs, label_losses, make_optimiser, pretrain_epochs
from hymate.train.noise import SecretNoise, derived_key
from hymate.train.private import PrivateResult, private_finetune_epochs, private_pretrain_epochs
from hymate.train.private_optimiser import KINDS, Mechanism
from hymate.train.scoring import labelled
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store

STAYS = 24
KEY = bytes(range(32))
STILL = MODEL.model_copy(update={"dropout": 0.0})
ALL = FINETUNE.model_copy(update={"batch_size": 2 * STAYS, "rounds": 1})  # each step draws everyone
ALL_FORECAST = PRETRAIN.model_copy(update={"batch_size": 2 * STAYS, "variable_dropout": 0.0})
PHASES = ("pretrain", "finetune")
CLIPPINGS: tuple[Clipping, ...] = tuple(KINDS)


@pytest.fixture(scope="module")
def store() -> TripletStore:
    return planted_store(train=STAYS, tuning=2)


class Watch:
    """Keeps what `on_gradient` sees, and does in `before_step` what an algorithm may do to a model there."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, Tensor]] = []
        self.calls: list[str] = []
        self.before: list[dict[str, Tensor]] = []

    def before_step(self, model: nn.Module) -> None:
        self.calls.append("before")
        self.before.append({n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None})
        assert all("forward" not in vars(module) for module in copy.deepcopy(model).modules())

    def on_gradient(self, model: nn.Module) -> None:
        self.calls.append("gradient")
        found = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
        self.gradients.append(found)

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        assert isinstance(optimiser, torch.optim.AdamW)
        self.calls.append("after")

    def after_epoch(self, model: nn.Module) -> None:
        self.calls.append("epoch")


def train(
    phase: str,
    model: SequenceModel,
    store: TripletStore,
    mechanism: Mechanism,
    *,
    optimiser: torch.optim.Optimizer | None = None,
    finetune: FinetuneConfig = FINETUNE,
    pretrain: PretrainConfig = PRETRAIN,
    key: bytes = KEY,
    first_epoch: int = 0,
    epochs: int = 1,
    hook: LocalHook | None = None,
    average: Average | None = None,
) -> PrivateResult:
    optimiser = optimiser or make_optimiser(model, finetune if phase == "finetune" else pretrain)
    if phase == "pretrain":
        return private_pretrain_epochs(
            model,
            store,
            pretrain,
            optimiser,
            mechanism,
            key=key,
            first_epoch=first_epoch,
            epochs=epochs,
            hook=hook,
            average=average,
        )
    return private_finetune_epochs(
        model,
        store,
        finetune,
        optimiser,
        mechanism,
        positive_weight=2.0,
        key=key,
        first_epoch=first_epoch,
        epochs=epochs,
        hook=hook,
        average=average,
    )


def sum_of(phase: str, store: TripletStore, mechanism: Mechanism, *, epoch: int = 0) -> Tensor:
    """The first step's sum of clipped gradients (and noise), everyone drawn, as one vector."""
    watch = Watch()
    train(
        phase,
        new_model(config=STILL),
        store,
        mechanism,
        finetune=ALL,
        pretrain=ALL_FORECAST,
        first_epoch=epoch,
        hook=watch,
    )
    gradient = torch.cat([part.flatten() for part in watch.gradients[0].values()])
    return gradient * ALL.batch_size


def without(store: TripletStore, subject: int) -> TripletStore:
    """The store as if this subject had never been in the training split."""
    return replace(store, split=np.where(store.subject_id == subject, 1, store.split).astype(np.int8))


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_without_noise_and_bound_it_is_the_plain_gradient(clipping: Clipping, store: TripletStore) -> None:
    model = new_model(config=STILL)
    losses = label_losses(model, store, ALL, positive_weight=2.0)
    losses(collate(store, labelled(store, "train"))).sum().backward()  # type: ignore[no-untyped-call]
    plain = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    found = sum_of("finetune", store, Mechanism(0.0, 1e5, clipping))
    torch.testing.assert_close(found, plain, rtol=1e-4, atol=1e-5)


def test_one_pass_and_two_agree_in_forecasting(store: TripletStore) -> None:
    one, two = (sum_of("pretrain", store, Mechanism(0.0, 0.05, way)) for way in ("flat", "ghost"))
    assert one.norm() > 0.1
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def with_one_cut(store: TripletStore) -> TripletStore:
    """Each stay can be cut at one time only, so a patient more leaves the others' cuts as they are."""
    time = np.full_like(store.time, 20.0)
    time[store.offset[1:] - 1] = 21.0
    return replace(store, time=time)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_patient_changes_the_sum_by_at_most_the_norm(
    clipping: Clipping, phase: str, store: TripletStore
) -> None:
    store = with_one_cut(store)
    mechanism = Mechanism(0.0, 0.01, clipping)
    with_all = sum_of(phase, store, mechanism)
    for subject in (0, 7):
        change = float((with_all - sum_of(phase, without(store, subject), mechanism)).norm())
        assert change <= 0.01 * 1.0001
        assert change > 0.005  # and clipping was at work


def test_ten_stays_count_no_more_than_one(store: TripletStore) -> None:
    often = replace(store, subject_id=np.where(np.arange(len(store)) < 10, 0, store.subject_id))
    mechanism = Mechanism(0.0, 0.01)
    watch = Watch()
    result = train("finetune", new_model(config=STILL), often, mechanism, finetune=ALL, hook=watch)
    assert result.visits == result.epochs.stays == STAYS - 9
    change = sum_of("finetune", often, mechanism) - sum_of("finetune", without(often, 0), mechanism)
    assert float(change.norm()) <= 0.01 * 1.0001


@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_a_patient_with_a_broken_record_counts_nothing(clipping: Clipping, store: TripletStore) -> None:
    value = store.value.copy()
    value[store.offset[3] + 1] = np.nan
    broken, mechanism = replace(store, value=value), Mechanism(0.0, 0.01, clipping)
    torch.testing.assert_close(
        sum_of("finetune", broken, mechanism),
        sum_of("finetune", without(store, 3), mechanism),
        rtol=1e-4,
        atol=1e-7,
    )
    result = train("finetune", new_model(config=STILL), broken, mechanism, finetune=ALL)
    assert (result.visits, result.unusable) == (STAYS, 1)
    assert np.isfinite(result.epochs.loss)


@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize("clipping", CLIPPINGS)
def test_noise_has_the_deviation_that_is_accounted(
    clipping: Clipping, phase: str, store: TripletStore
) -> None:
    """Chi-square on each entry; adaptive clipping spends a part of the multiplier on its count."""
    bound, multiplier = 0.02, 1.5
    silent = sum_of(phase, store, Mechanism(0.0, bound, clipping))
    noise = sum_of(phase, store, Mechanism(multiplier, bound, clipping)) - silent
    deviation = multiplier * bound
    if clipping == "adaptive":
        of_count = 2 * max(ALL.batch_size / 20, multiplier)
        deviation = (multiplier**-2 - of_count**-2) ** -0.5 * bound
    square = float((noise.double() / deviation).square().sum())
    low, high = stats.chi2(noise.numel()).ppf([1e-4, 1 - 1e-4])
    assert low < square < high
    assert stats.kstest((noise / deviation).numpy(), "norm").pvalue > 1e-4


@pytest.mark.parametrize("phase", PHASES)
def test_noise_is_of_key_phase_and_epoch(phase: str, store: TripletStore) -> None:
    """No two epochs have the same, and torch's generator has no part in it."""
    for epoch in (0, 1):
        silent = sum_of(phase, store, Mechanism(0.0, 0.02), epoch=epoch)
        noise = sum_of(phase, store, Mechanism(10.0, 0.02), epoch=epoch) - silent
        key = derived_key(KEY, "noise", Phase[phase.upper()], epoch)
        expected = (SecretNoise(key).normal(noise.numel()) * 0.2).float()
        torch.testing.assert_close(noise, expected, rtol=1e-4, atol=1e-6)


def test_draws_and_dropout_are_anew_in_each_epoch(store: TripletStore) -> None:
    few = FINETUNE.model_copy(update={"batch_size": 5})
    alone = replace(store, split=np.where(store.subject_id == 0, 0, 1).astype(np.int8))
    for model, stays, config in ((STILL, store, few), (MODEL, alone, ALL)):  # draws, dropout
        watch = Watch()
        for epoch in (0, 1):
            fresh = new_model(config=model)
            train(
                "finetune", fresh, stays, Mechanism(0.0, 1.0), finetune=config, first_epoch=epoch, hook=watch
            )
        second = len(watch.gradients) // 2
        name = "classification_head.out.weight"
        one, other = watch.gradients[0][name], watch.gradients[second][name]
        assert float((one - other).norm()) > 0.01 * float(one.norm())


def test_steps_without_a_stay_are_noise_alone(store: TripletStore) -> None:
    few = FINETUNE.model_copy(update={"batch_size": 1})
    silent, noisy = Watch(), Watch()
    result = train("finetune", new_model(), store, Mechanism(0.0), finetune=few, hook=silent)
    train("finetune", new_model(), store, Mechanism(1.0), finetune=few, hook=noisy)
    assert result.epochs.steps == STAYS == len(noisy.gradients)
    empty = [not any(part.any() for part in step.values()) for step in silent.gradients]
    assert 3 <= sum(empty) < STAYS  # (1 - 1/24)^24 of them on average
    deviations = [
        float(torch.cat([part.flatten() for part in noisy.gradients[step].values()]).std())
        for step in np.flatnonzero(empty)
    ]
    assert deviations == pytest.approx([1.0] * len(deviations), rel=0.05)
    first, second = (noisy.gradients[step]["norm.weight"] for step in np.flatnonzero(empty)[:2])
    assert not torch.equal(first, second)


@pytest.mark.parametrize("clipping", CLIPPINGS)
@pytest.mark.parametrize("phase", PHASES)
def test_two_epochs_equal_twice_one_and_the_key_is_all(
    clipping: Clipping, phase: str, store: TripletStore, tmp_path: Path
) -> None:
    """Bitwise, the second epoch in another process' place: optimiser from a file, norm carried on."""
    straight, torch_before = new_model(), torch.random.get_rng_state()
    whole = train(phase, straight, store, Mechanism(0.5, 0.1, clipping), epochs=2)
    assert torch.equal(torch.random.get_rng_state(), torch_before)
    config = FINETUNE if phase == "finetune" else PRETRAIN
    broken = new_model()
    optimiser = make_optimiser(broken, config)
    first = train(phase, broken, store, Mechanism(0.5, 0.1, clipping), optimiser=optimiser)
    save_optimiser(tmp_path / "state", broken, optimiser)
    torch.manual_seed(12345)
    optimiser = make_optimiser(broken, config)
    load_optimiser(tmp_path / "state", broken, optimiser)
    then = Mechanism(0.5, first.max_grad_norm, clipping)
    second = train(phase, broken, store, then, optimiser=optimiser, first_epoch=1)
    assert same_weights(straight, broken)
    assert whole.max_grad_norm == second.max_grad_norm
    assert (whole.max_grad_norm != 0.1) == (clipping == "adaptive")
    other = new_model()
    train(phase, other, store, Mechanism(0.5, 0.1, clipping), epochs=2, key=bytes(32))
    assert not same_weights(straight, other)


@pytest.mark.parametrize("phase", PHASES)
def test_model_and_optimiser_come_out_as_from_plain_training(phase: str, store: TripletStore) -> None:
    model, plain = new_model(), new_model()
    start = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    config = FINETUNE if phase == "finetune" else PRETRAIN
    optimiser, other = make_optimiser(model, config), make_optimiser(plain, config)
    for parameter in model.parameters():  # of an earlier phase
        parameter.grad = torch.ones_like(parameter)
    result = train(phase, model, store, Mechanism(1.0, 0.1), optimiser=optimiser)
    if phase == "finetune":
        finetune_epochs(plain, store, FINETUNE, other, positive_weight=2.0, seed=0, first_epoch=0, epochs=1)
    else:
        pretrain_epochs(plain, store, PRETRAIN, other, seed=0, first_epoch=0, epochs=1)
    found, expected = optimiser.state_dict(), other.state_dict()
    assert found["param_groups"] == expected["param_groups"]
    assert {at: set(state) for at, state in found["state"].items()} == {
        at: set(state) for at, state in expected["state"].items()
    }
    assert list(model.state_dict()) == list(plain.state_dict())
    assert [set(vars(m)) for m in model.modules()] == [set(vars(m)) for m in plain.modules()]
    assert not any(vars(parameter) or parameter.grad is not None for parameter in model.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.modules())
    unused = "forecast_head" if phase == "finetune" else "classification_head"
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, start[name]) == name.startswith(unused)
    assert result.epochs.steps == round(1 / result.spend.sampling_rate)


def test_the_hook_sees_the_noised_gradient_and_no_other(store: TripletStore) -> None:
    watch, model = Watch(), new_model()
    for parameter in model.parameters():  # of an earlier phase, perhaps raw
        parameter.grad = torch.ones_like(parameter)
    result = train("finetune", model, store, Mechanism(1.0, 1e-9), hook=watch)
    steps = ["before", "gradient", "after"] * result.epochs.steps
    assert watch.calls == [*steps, "epoch"]
    for gradients in (*watch.gradients, *watch.before):
        assert all(float(part.abs().max()) < 1e-8 for part in gradients.values())
    # What a hook finds before a step is the noised gradient of the step before, or nothing.
    assert not watch.before[0]
    assert all(not found or found.keys() == watch.gradients[0].keys() for found in watch.before)


def test_what_is_spent(store: TripletStore) -> None:
    config = FINETUNE.model_copy(update={"batch_size": 5})
    result = train("finetune", new_model(), store, Mechanism(1.25), finetune=config, epochs=2)
    assert result.spend == Spend("sampled gaussian", 5 / STAYS, 1.25, 10)
    assert private.finetuning_sampling(store, config).steps * 2 == result.epochs.steps == 10
    windows = PRETRAIN.model_copy(update={"batch_size": 5, "windows_per_stay": 3})
    sampling = private.pretraining_sampling(store, windows)
    assert sampling.subjects <= STAYS
    assert sampling.steps == round(3 * sampling.subjects / 5)
    forecast = train("pretrain", new_model(), store, Mechanism(1.25), pretrain=windows)
    assert forecast.spend == Spend("sampled gaussian", sampling.rate, 1.25, sampling.steps)


def test_pieces_of_a_batch_make_no_difference(store: TripletStore, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sum_of("finetune", store, Mechanism(0.0, 0.05))
    sizes: list[int] = []
    ordinary = HyMaTE.classify

    def classify(model: HyMaTE, batch: TripletBatch) -> Tensor:
        sizes.append(len(batch.row))
        return ordinary(model, batch)

    monkeypatch.setattr(private, "PIECE_STAYS", 5)
    monkeypatch.setattr(HyMaTE, "classify", classify)
    torch.testing.assert_close(sum_of("finetune", store, Mechanism(0.0, 0.05)), whole, rtol=1e-4, atol=1e-6)
    assert max(sizes) == 5
    monkeypatch.setattr(private, "PIECE_TOKENS", 1)
    sizes.clear()
    sum_of("finetune", store, Mechanism(0.0, 0.05))
    assert sizes == [1] * (STAYS + 1)  # and the invented stay


def test_with_little_noise_it_learns(store: TripletStore) -> None:
    model = new_model()
    config = FINETUNE.model_copy(update={"learning_rate": 1e-2, "schedule": "cosine", "rounds": 12})
    average = Average(model, 0.9)
    optimiser = make_optimiser(model, config)
    first = train("finetune", model, store, Mechanism(0.02), optimiser=optimiser, finetune=config)
    rest = train(
        "finetune",
        model,
        store,
        Mechanism(0.02),
        optimiser=optimiser,
        finetune=config,
        first_epoch=1,
        epochs=11,
        average=average,
    )
    assert rest.epochs.loss < 0.8 * first.epochs.loss
    assert average.steps == rest.epochs.steps
    assert optimiser.param_groups[0]["lr"] < 0.1 * config.learning_rate


def test_what_cannot_be_private_is_refused(store: TripletStore) -> None:
    gru = build(GRUConfig(d_model=8), codes=6, static_width=2, time_scale_hours=48.0, seed=0)
    with pytest.raises(InputFault, match="no gradient by patient is known for 1 layers, gru among them"):
        train("finetune", gru, store, Mechanism(1.0))
    nobody = replace(store, split=np.ones_like(store.split))
    for phase in PHASES:
        with pytest.raises(InputFault, match="no training stay can be used"):
            train(phase, new_model(), nobody, Mechanism(1.0))
    smooth = FINETUNE.model_copy(update={"label_smoothing": 0.1})
    with pytest.raises(ValueError, match="mean over patients"):
        train("finetune", new_model(), store, Mechanism(1.0), finetune=smooth)
    wild = FINETUNE.model_copy(update={"learning_rate": 1e39})
    with pytest.raises(InputFault, match="no longer finite"):
        train("finetune", new_model(), store, Mechanism(1.0), finetune=wild)


def test_configuration() -> None:
    assert PrivacyConfig().mode == "none"
    assert PrivacyConfig(mode="dp-sgd", target_epsilon=3.0).clipping == "flat"
    for wrong, what in (
        ({"mode": "dp-sgd"}, "noise_multiplier or target_epsilon"),
        ({"mode": "dp-sgd", "noise_multiplier": 1.0, "target_epsilon": 1.0}, "one of the two"),
        ({"noise_multiplier": 1.0}, "mode is none"),
        ({"mode": "dp-sgd", "noise_multiplier": 0.0}, "greater than 0"),
        ({"mode": "dp-sgd", "noise_multiplier": 1.0, "delta": 1.0}, "less than 1"),
        ({"mode": "dp-sgd", "noise_multiplier": 1.0, "clipping": "none"}, "flat"),
    ):
        with pytest.raises(ValidationError, match=what):
            PrivacyConfig.model_validate(wrong)
    smooth = FINETUNE.model_copy(update={"label_smoothing": 0.1})
    PrivacyConfig().demand_soundness(smooth)
    with pytest.raises(ValueError, match="label_smoothing"):
        PrivacyConfig(mode="dp-sgd", noise_multiplier=1.0).demand_soundness(smooth)
