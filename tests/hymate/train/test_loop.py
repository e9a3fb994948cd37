"""What an epoch depends on, what it must not touch, and what it lets a federated algorithm do."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hymate.config import FinetuneConfig, OptimiserConfig
from hymate.data.batching import collate
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import load_checkpoint, save_checkpoint
from hymate.train.loop import EpochResult, LocalHook, finetune_epochs, make_optimiser, pretrain_epochs
from hymate.train.scoring import forecast_error, labelled, score
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store


@pytest.fixture(scope="module")
def store() -> TripletStore:
    return planted_store()


def train(
    phase: str,
    model: HyMaTE,
    store: TripletStore,
    optimiser: torch.optim.Optimizer,
    *,
    first_epoch: int = 0,
    epochs: int = 1,
    seed: int = 0,
    hook: LocalHook | None = None,
    finetune: FinetuneConfig = FINETUNE,
) -> EpochResult:
    if phase == "pretrain":
        return pretrain_epochs(
            model, store, PRETRAIN, optimiser, seed=seed, first_epoch=first_epoch, epochs=epochs, hook=hook
        )
    return finetune_epochs(
        model,
        store,
        finetune,
        optimiser,
        positive_weight=2.0,
        seed=seed,
        first_epoch=first_epoch,
        epochs=epochs,
        hook=hook,
    )


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_three_epochs_equal_three_times_one_in_fresh_processes(
    phase: str, store: TripletStore, tmp_path: Path
) -> None:
    """Bitwise, with weights and optimiser carried over by a checkpoint file."""
    straight = new_model()
    train(phase, straight, store, make_optimiser(straight, FINETUNE), epochs=3)
    path = tmp_path / "between.safetensors"
    start = new_model()
    save_checkpoint(path, start, make_optimiser(start, FINETUNE))
    for epoch in range(3):
        torch.rand(epoch + 1)  # whatever else a process did with torch's generator
        model = new_model(seed=99)
        optimiser = make_optimiser(model, FINETUNE)
        load_checkpoint(path, model, optimiser)
        train(phase, model, store, optimiser, first_epoch=epoch)
        save_checkpoint(path, model, optimiser)
    assert same_weights(straight, model)
    assert not same_weights(straight, start)


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_seed_and_epoch_number_decide_and_the_global_generator_is_untouched(
    phase: str, store: TripletStore
) -> None:
    def trained(seed: int, first_epoch: int) -> HyMaTE:
        model = new_model()
        train(phase, model, store, make_optimiser(model, FINETUNE), seed=seed, first_epoch=first_epoch)
        return model

    base = trained(0, 0)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    again = trained(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(base, again)
    assert not same_weights(base, trained(1, 0))
    assert not same_weights(base, trained(0, 1))


def test_dropout_follows_the_seed_too(store: TripletStore) -> None:
    """One batch holds every stay, so that seeds differ by order of rows and dropout only."""
    whole = FINETUNE.model_copy(update={"batch_size": 64})
    losses = {
        (rate, seed): train(
            "finetune",
            model := new_model(config=MODEL.model_copy(update={"dropout": rate})),
            store,
            make_optimiser(model, whole),
            seed=seed,
            finetune=whole,
        ).loss
        for rate in (0.0, 0.3)
        for seed in (0, 1)
    }
    assert losses[0.0, 0] == pytest.approx(losses[0.0, 1], abs=1e-5)
    assert abs(losses[0.3, 0] - losses[0.3, 1]) > 1e-3


def test_the_model_keeps_its_mode(store: TripletStore) -> None:
    model = new_model().eval()
    train("finetune", model, store, make_optimiser(model, FINETUNE))
    assert not model.training
    model.train()
    score(model, store, store.rows("tuning"))
    forecast_error(model, store, PRETRAIN, seed=0)
    assert model.training


def test_loss_falls(store: TripletStore) -> None:
    model = new_model()
    optimiser = make_optimiser(model, FINETUNE)
    first = train("finetune", model, store, optimiser)
    train("finetune", model, store, optimiser, first_epoch=1, epochs=7)
    last = train("finetune", model, store, optimiser, first_epoch=8)
    assert last.loss < 0.8 * first.loss


def test_epoch_result_counts(store: TripletStore) -> None:
    model = new_model()
    result = train("finetune", model, store, make_optimiser(model, FINETUNE), epochs=2)
    assert (result.stays, result.steps) == (64, 2 * 4)
    assert math.isfinite(result.loss)
    nothing = train("finetune", model, store, make_optimiser(model, FINETUNE), epochs=0)
    assert (nothing.stays, nothing.steps) == (0, 0)


class Watching:
    """A hook that records what it saw."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.norms: list[float] = []

    def before_step(self, model: nn.Module) -> None:
        self.calls.append("before_step")

    def on_gradient(self, model: nn.Module) -> None:
        self.calls.append("on_gradient")
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.norms.append(float(torch.cat([g.flatten() for g in gradients]).norm()))

    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        self.calls.append("after_step")

    def after_epoch(self, model: nn.Module) -> None:
        self.calls.append("after_epoch")


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_hook_is_called_in_order_and_sees_clipped_gradients(phase: str, store: TripletStore) -> None:
    model, hook = new_model(), Watching()
    tight = FINETUNE.model_copy(update={"clip_norm": 0.01})
    result = train(phase, model, store, make_optimiser(model, FINETUNE), epochs=2, hook=hook, finetune=tight)
    one_epoch = ["before_step", "on_gradient", "after_step"] * (result.steps // 2) + ["after_epoch"]
    assert hook.calls == one_epoch * 2
    limit = 0.01 if phase == "finetune" else PRETRAIN.clip_norm
    assert max(hook.norms) == pytest.approx(limit, rel=1e-3)  # early gradients are far above both


class Freezing(Watching):
    """Takes every gradient away, and notes weights that moved all the same."""

    def on_gradient(self, model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad = None


def test_what_the_hook_does_to_gradients_is_what_the_optimiser_sees(store: TripletStore) -> None:
    model = new_model()
    train("finetune", model, store, make_optimiser(model, FINETUNE), hook=Freezing())
    assert same_weights(model, new_model())


def test_a_loss_that_is_not_finite_names_its_place(store: TripletStore) -> None:
    broken = replace(store, value=np.where(np.arange(store.value.size) % 7 == 0, np.nan, store.value))
    model = new_model()
    with pytest.raises(InputFault, match=r"finetune, epoch 3, step 0: the loss is nan"):
        train("finetune", model, broken, make_optimiser(model, FINETUNE), first_epoch=3)
    assert same_weights(model, new_model())


def test_a_gradient_that_is_not_finite_is_never_applied(store: TripletStore) -> None:
    model = new_model()

    def explode(gradient: torch.Tensor) -> torch.Tensor:
        return gradient * float("inf")

    model.classification_head.out.weight.register_hook(explode)  # type: ignore[no-untyped-call]
    with pytest.raises(InputFault, match=r"finetune, epoch 0, step 0: the gradient's norm is"):
        train("finetune", model, store, make_optimiser(model, FINETUNE))
    assert same_weights(model, new_model())


@pytest.mark.parametrize("phase", ["pretrain", "finetune"])
def test_no_stay_to_train_on_is_a_fault(phase: str) -> None:
    store = planted_store(train=0)
    model = new_model()
    with pytest.raises(InputFault, match="no training stay can be used"):
        train(phase, model, store, make_optimiser(model, FINETUNE))


def test_unlabelled_stays_pretrain_but_do_not_finetune(store: TripletStore) -> None:
    label = store.label.copy()
    label[10:30] = np.nan
    partly = replace(store, label=label)
    assert len(labelled(partly, "train")) == 44
    model = new_model()
    optimiser = make_optimiser(model, FINETUNE)
    assert train("finetune", model, partly, optimiser).stays == 44
    with_labels = train("pretrain", new_model(), store, make_optimiser(model, FINETUNE)).stays
    assert train("pretrain", model, partly, optimiser).stays == with_labels > 44


def test_scores_come_in_the_order_asked() -> None:
    store, model = planted_store(train=20), new_model()
    rows = np.random.default_rng(0).permutation(20)
    scores = score(model, store, rows, batch_size=3)
    assert scores.dtype == np.float64
    model.eval()
    for row, probability in zip(rows, scores, strict=True):
        logit = model.classify(collate(store, np.array([row])))
        assert probability == pytest.approx(float(torch.sigmoid(logit.detach())), abs=1e-6)
    assert np.unique(scores).size == 20


def test_forecast_error_is_repeatable_and_sees_learning(store: TripletStore) -> None:
    model = new_model()
    before = forecast_error(model, store, PRETRAIN, seed=0)
    assert before == forecast_error(model, store, PRETRAIN, seed=0)
    assert before != forecast_error(model, store, PRETRAIN, seed=1)
    train("pretrain", model, store, make_optimiser(model, FINETUNE), epochs=12)
    after = forecast_error(model, store, PRETRAIN, seed=0)
    assert before is not None
    assert after is not None
    assert after < 0.8 * before
    assert forecast_error(model, planted_store(tuning=0), PRETRAIN, seed=0) is None


def test_weight_decay_spares_what_it_should() -> None:
    model = new_model()
    decaying = OptimiserConfig(learning_rate=0.1, weight_decay=0.5)
    optimiser = make_optimiser(model, decaying)
    grouped = [p for group in optimiser.param_groups for p in group["params"]]
    assert len(grouped) == len({id(p) for p in grouped}) == len(list(model.parameters()))
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    kept = {name for name, p in model.named_parameters() if torch.equal(p, start[name])}
    zero = {name for name, p in start.items() if not p.any()}
    weights = {name for name in start if name.endswith(".weight") and "norm" not in name}
    weights -= {"embedding.feature.weight"}
    assert {"mamba.0.mixer.ssm.A_log", "mamba.0.mixer.ssm.D", "mamba.0.mixer.dt_proj.bias"} <= kept
    assert kept - zero == set(start) - weights - zero
