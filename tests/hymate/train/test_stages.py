"""Head first, further labels, soft labels: each does what it says, and a training that is stopped agrees."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hymate.config import AuxiliaryConfig, FinetuneConfig, SoftLabelsConfig, TaskConfig
from hymate.data.batching import collate
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.metrics import auroc
from hymate.model.baselines.summary import fit_summary
from hymate.model.hymate import HyMaTE
from hymate.train import soft_labels
from hymate.train.alone import Progress, rounds_done, train_alone
from hymate.train.auxiliary import Auxiliary, auxiliary_target, narrow, widen
from hymate.train.averaging import Average
from hymate.train.loop import make_optimiser
from hymate.train.objectives import smoothed
from hymate.train.optimiser import of_encoder
from hymate.train.scoring import labelled, outputs
from hymate.train.target import Binary, target_of
from hymate.train.warm_up import warm_up
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store

NAN = float("nan")
BRANCH = MODEL.model_copy(update={"d_summary": 8, "summary_windows": (1, 2), "summary_dropout": 0.1})
NOTHING = PRETRAIN.model_copy(update={"rounds": 0})
WARM = FINETUNE.model_copy(update={"warm_epochs": 3, "warm_batch_size": 16, "warm_learning_rate": 0.01})


@pytest.fixture(scope="module")
def store() -> TripletStore:
    return planted_store(train=32, tuning=16)


def further_labels(store: TripletStore) -> NDArray[np.float32]:
    """Days, long-tailed, that a third of the stays lack; and a number that may be negative."""
    rng = np.random.default_rng(0)
    days = np.where(np.arange(len(store)) % 3, np.expm1(1 + store.label), NAN)
    return np.stack([days, 10 * store.label - 5 + rng.normal(0, 0.1, len(store))], axis=1).astype(np.float32)


def auxiliary(store: TripletStore, weight: float = 0.5) -> Auxiliary:
    return auxiliary_target(target_of(store, TaskConfig()), store, further_labels(store), weight)


def test_warming_up_moves_everything_but_the_encoder(store: TripletStore) -> None:
    model, start = new_model(config=BRANCH), new_model(config=BRANCH)
    optimiser = make_optimiser(model, WARM)
    result = warm_up(model, store, WARM, optimiser, objective=auxiliary_free(store), seed=0)
    assert (result.stays, result.steps) == (32, 3 * 2)
    for (name, after), before in zip(model.named_parameters(), start.parameters(), strict=True):
        untouched = of_encoder(name)  # the forecasting head is no part of what is learned either
        assert torch.equal(after, before) == untouched, name


def auxiliary_free(store: TripletStore) -> Any:
    return target_of(store, TaskConfig()).losses


def test_a_warm_up_step_sees_what_the_model_says_of_the_stays(store: TripletStore) -> None:
    """Without dropout, the first step's loss is that of the model as it is called."""
    calm = BRANCH.model_copy(update={"dropout": 0.0, "summary_dropout": 0.0, "summary_input_dropout": 0.0})
    model, whole = new_model(config=calm), WARM.model_copy(update={"warm_batch_size": 99, "warm_epochs": 1})
    losses = auxiliary_free(store)
    rows = labelled(store, "train")
    with torch.no_grad():
        batch = collate(store, rows)
        expected = float(losses(model.classify(batch), batch).mean())
    result = warm_up(model, store, whole, make_optimiser(model, whole), objective=losses, seed=0)
    assert result.loss == pytest.approx(expected, rel=1e-5)


def test_warming_up_learns_from_the_summary_and_averages() -> None:
    store, model = planted_store(train=96, tuning=0, held_out=60), new_model(config=BRANCH)
    settings = WARM.model_copy(update={"warm_epochs": 25})
    average = Average(model, 0.9)
    warm_up(
        model,
        store,
        settings,
        make_optimiser(model, settings.model_copy(update={"learning_rate": 0.01})),
        objective=auxiliary_free(store),
        seed=0,
        average=average,
    )
    model.load_state_dict(average.weights)
    rows = store.rows("held_out")
    area = auroc(store.label[rows].astype(np.float64), outputs(model, store, rows))
    assert area is not None
    assert area > 0.9
    assert average.steps == 25 * 6


def test_the_head_is_widened_and_narrowed_without_a_trace() -> None:
    model = new_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generator = torch.get_rng_state()
    widen(model, 2, seed=0)
    assert model.classification_head.out.weight.shape[0] == 3
    assert torch.equal(model.classification_head.out.weight[:1], before["classification_head.out.weight"])
    narrow(model, 2)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert torch.equal(torch.get_rng_state(), generator)


def test_further_labels_are_standardised_on_training_stays_and_counted_where_known(
    store: TripletStore,
) -> None:
    target = auxiliary(store, weight=0.25)
    rows = store.rows("train")
    assert np.nanmean(target.labels[rows], axis=0) == pytest.approx([0, 0], abs=1e-5)
    assert np.nanstd(target.labels[rows], axis=0) == pytest.approx([1, 1], abs=1e-5)
    days = target.labels[rows, 0]
    assert np.unique(days[~np.isnan(days)]).size == 2
    batch = collate(store, rows)
    output = torch.zeros(len(rows), 3, requires_grad=True)
    losses = target.losses(output, batch)
    own = target.task.losses(output[:, 0], batch)
    size = np.abs(target.labels[rows])
    each = np.where(size < 1, 0.5 * size**2, size - 0.5)
    assert (losses - own).detach().numpy() == pytest.approx(0.25 * np.nansum(each, axis=1) / 2, abs=1e-5)
    losses.sum().backward()  # type: ignore[no-untyped-call]
    assert output.grad is not None
    assert ((output.grad[:, 1] == 0).numpy() == np.isnan(days)).all()


def test_soft_labels_never_come_from_a_model_that_saw_the_person(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forty people with two stays each: who is asked about is looked up beside who was fitted on."""
    store = replace(planted_store(train=80, tuning=10), subject_id=np.arange(90) // 2)
    fitted: list[NDArray[np.int64]] = []

    def watched(model: Any, store: TripletStore, rows: NDArray[np.int64], *, seed: int) -> Any:
        fitted.append(rows)
        return fit_summary(model, store, rows, seed=seed)

    monkeypatch.setattr(soft_labels, "fit_summary", watched)
    soft = soft_labels.out_of_fold(store, folds=4, seed=1)
    rows = store.rows("train")
    assert np.isnan(soft).tolist() == [row not in rows for row in range(len(store))]
    left_out = [np.setdiff1d(rows, used) for used in fitted]
    assert np.array_equal(np.sort(np.concatenate(left_out)), rows)  # each stay by one model of four
    for used, asked in zip(fitted, left_out, strict=True):
        assert not set(store.subject_id[used]) & set(store.subject_id[asked])
        says = fit_summary("gradient_boosting", store, used, seed=1).score(store, asked)
        assert soft[asked] == pytest.approx(says, abs=1e-6)
    area = auroc(store.label[rows].astype(np.float64), soft[rows].astype(np.float64))
    assert area is not None
    assert area > 0.8
    with pytest.raises(InputFault, match="50 folds need as many subjects of each class"):
        soft_labels.out_of_fold(store, folds=50, seed=1)


def test_what_is_learned_is_the_mixture_and_what_is_judged_the_label(store: TripletStore) -> None:
    soft = np.full(len(store), NAN, np.float32)
    soft[:4] = 0.3
    settings = FinetuneConfig(
        soft_labels=SoftLabelsConfig(share=0.25), label_smoothing=0.1, positive_weight=3
    )
    target = target_of(store, TaskConfig(), finetune=settings, soft=soft)
    assert isinstance(target, Binary)
    mixed = np.where(np.isnan(soft), store.label, 0.75 * store.label + 0.25 * 0.3)
    mean = mixed[store.rows("train")].mean()
    assert target.learned == pytest.approx(0.9 * mixed + 0.1 * mean, abs=1e-6)
    assert target.labels is store.label
    assert target.positive_weight == 3.0
    none = FinetuneConfig(positive_weight="none")
    assert target_of(store, TaskConfig(), finetune=none).positive_weight == 1.0
    few = replace(store, label=np.where(np.arange(len(store)) < 8, 1, 0).astype(np.float32))
    assert target_of(few, TaskConfig()).positive_weight == 3.0  # 24 / 8
    assert smoothed(store.label, store.rows("train"), 0.0) is store.label


def test_stopped_anywhere_with_everything_on_it_ends_with_the_same_bits(
    store: TripletStore, tmp_path: Path
) -> None:
    class Stopped(Exception):
        pass

    pretrain = PRETRAIN.model_copy(
        update={"rounds": 2, "ema": 0.9, "schedule": "cosine", "event_rate": 0.5, "windows_per_stay": 2}
    )
    finetune = WARM.model_copy(
        update={
            "rounds": 2,
            "ema": 0.9,
            "schedule": "cosine",
            "warmup": 0.2,
            "encoder_rate": 0.5,
            "span_dropout_hours": 6.0,
            "auxiliary": AuxiliaryConfig(tasks=("days", "level")),
        }
    )
    config = BRANCH.model_copy(update={"event_head": True})

    def train(model: HyMaTE, file: Path | None, stop_at: int | None = None) -> list[tuple[str, int]]:
        def plug(progress: Progress) -> None:
            if file is not None and stop_at is not None and len(rounds_done(file)) + 1 == stop_at:
                raise Stopped

        result = train_alone(
            store, model, pretrain, finetune, 3, on_progress=plug, target=auxiliary(store), state=file
        )
        return [(progress.phase, progress.round) for progress in result.rounds]

    whole, file = new_model(config=config), tmp_path / "state.safetensors"
    rounds = train(whole, None)
    assert [phase for phase, _ in rounds] == ["pretrain", "pretrain", "warm", "finetune", "finetune"]
    for stop_at in range(1, 6):
        with pytest.raises(Stopped):
            train(new_model(config=config), file, stop_at)
    resumed = new_model(seed=9, config=config)
    assert train(resumed, file) == rounds
    ours, theirs = whole.state_dict(), resumed.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert ours["classification_head.out.weight"].shape[0] == 1
