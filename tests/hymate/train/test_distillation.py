"""Distillation on invented stays: whole codes change places, teachers are copied, a stop costs nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.config import DistillationConfig, FinetuneConfig
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.metrics import auroc
from hymate.model.hymate import HyMaTE
from hymate.train.alone import Progress, rounds_done, train_alone
from hymate.train.auxiliary import auxiliary_target, widen
from hymate.train.distillation import Teachers, distil, exchange, fit_boosters
from hymate.train.encoded import encode_stays
from hymate.train.scoring import labelled, outputs
from hymate.train.target import target_of
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store

BRANCH = MODEL.model_copy(
    update={"d_summary": 32, "summary_windows": (1, 2), "summary_thresholds": 3, "summary_dropout": 0.3}
)
NOTHING = PRETRAIN.model_copy(update={"rounds": 0})


def finetune(**changes: object) -> FinetuneConfig:
    settings = DistillationConfig.model_validate({"epochs": 2, "batch_size": 32, **changes})
    return FINETUNE.model_copy(update={"rounds": 1, "distillation": settings})


@pytest.fixture(scope="module")
def store() -> TripletStore:
    """Every sixth label is turned round: nothing is certain, so log odds are finite."""
    made = planted_store(train=160, tuning=32, held_out=160)
    turned = np.arange(len(made)) % 6 == 0
    return replace(made, label=np.where(turned, 1 - made.label, made.label).astype(np.float32))


def columns(said: Tensor) -> Tensor:
    return said if said.ndim == 2 else said.unsqueeze(1)


def boosting_says(store: TripletStore, model: HyMaTE, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Log odds of the boosting that `distil` fits under seed 0, of these stays."""
    train = labelled(store, "train")
    stays, asked = encode_stays(model, store, train), encode_stays(model, store, rows)
    assert stays.figures is not None
    assert asked.figures is not None
    static = torch.from_numpy(store.static)
    fitted = fit_boosters(stays.figures, static[train], store.label[train], 1, 0, "here")
    log_odds = Teachers(fitted, model, 0.0).log_odds(asked.pooled, static[rows], asked.figures)
    return columns(log_odds)[:, 0].numpy().astype(np.float64)


def test_an_invented_stay_has_whole_codes_of_two_stays() -> None:
    figures = torch.arange(400 * 10 * 3, dtype=torch.float32).reshape(400, 10, 3)
    invented = exchange(figures, figures.roll(1, 0), 0.3, np.random.default_rng(0))
    own, others = (invented == figures).all(-1), (invented == figures.roll(1, 0)).all(-1)
    assert (own ^ others).all()
    assert 0.25 < float(others.float().mean()) < 0.35
    assert len(set(others.float().mean(1).tolist())) > 5  # some stays change little, others much
    assert torch.equal(exchange(figures, figures.roll(1, 0), 0.0, np.random.default_rng(0)), figures)


def test_the_branch_says_of_new_stays_what_boosting_says(store: TripletStore) -> None:
    model = new_model(config=BRANCH)
    rows = store.rows("held_out")
    wanted = boosting_says(store, model, rows)

    def agreement() -> float:
        return float(np.corrcoef(outputs(model, store, rows), wanted)[0, 1])

    assert abs(agreement()) < 0.6
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    distil(model, store, finetune(epochs=40, own=0.0, boosters=1), seed=0)
    assert agreement() > 0.9
    area = auroc(store.label[rows].astype(np.float64), outputs(model, store, rows))
    assert area is not None
    assert area > 0.75
    changed = {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.split(".")[0] for name in changed} == {"summary", "classification_head", "static"}
    assert model.summary is not None
    assert model.summary.dropout.rate == BRANCH.summary_dropout


def test_teachers_say_the_mean_of_their_log_odds(store: TripletStore) -> None:
    model = new_model(config=BRANCH).eval()
    rows = store.rows("train")
    stays, static = encode_stays(model, store, rows), torch.from_numpy(store.static[rows])
    assert stays.figures is not None
    fitted = fit_boosters(stays.figures, static, store.label[rows], 2, 0, "here")
    shown = (stays.pooled, static, stays.figures)

    def said(own: float) -> Tensor:
        return columns(Teachers(fitted, model, own).log_odds(*shown))[:, 0]

    with torch.no_grad():
        itself = columns(model.classify_pooled(*shown))[:, 0]
    assert torch.allclose(said(1.0), itself)
    assert not torch.allclose(said(0.0), itself, atol=0.1)
    assert torch.allclose(said(0.25), 0.25 * itself + 0.75 * said(0.0), atol=1e-5)
    asked = torch.cat([stays.figures[:, 1:].flatten(1), static], dim=1).numpy()
    first, second = (fit.predict_proba(asked)[:, 1] for fit in fitted)
    assert np.allclose(torch.sigmoid(said(0.0)).numpy(), (first + second) / 2, atol=1e-5)
    assert not np.allclose(first, second)


def test_further_outputs_say_what_they_said(store: TripletStore) -> None:
    model = new_model(config=BRANCH)
    widen(model, 2, seed=0)
    rows = store.rows("held_out")
    with torch.no_grad():
        model.classification_head.out.weight[1:] *= 5.0
    before = outputs(model, store, rows)[:, 1:]
    distil(model, store, finetune(epochs=30), seed=0)
    after = outputs(model, store, rows)[:, 1:]
    for k in range(2):
        assert np.corrcoef(before[:, k], after[:, k])[0, 1] > 0.9


def test_what_is_reported_is_what_distillation_ends_with(store: TripletStore) -> None:
    model = new_model(config=BRANCH)
    told: list[Progress] = []
    result = train_alone(store, model, NOTHING, finetune(epochs=5), 0, on_progress=told.append)
    assert [progress.phase for progress in told] == ["finetune", "distil"]
    rows = labelled(store, "tuning")
    assert result.tuning == told[-1].tuning
    assert auroc(store.label[rows].astype(float), outputs(model, store, rows)) == result.tuning.auroc
    plain = new_model(config=BRANCH)
    without = finetune().model_copy(update={"distillation": None})
    assert train_alone(store, plain, NOTHING, without, 0).tuning.auroc != result.tuning.auroc


@pytest.mark.parametrize("stop", ["finetune", "distil"])
def test_a_stop_before_or_after_changes_nothing(store: TripletStore, tmp_path: Path, stop: str) -> None:
    settings = finetune(epochs=3).model_copy(update={"warm_epochs": 1, "ema": 0.9})
    further = np.stack([store.label * 3, store.label - 1], axis=1)
    target = auxiliary_target(target_of(store, store.task, finetune=settings), store, further, 0.5)
    whole = new_model(config=BRANCH)
    result = train_alone(store, whole, NOTHING, settings, 0, target=target)

    def killed(progress: Progress) -> None:
        if progress.phase == stop:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        train_alone(
            store, new_model(config=BRANCH), NOTHING, settings, 0,
            target=target, state=state, on_progress=killed,
        )  # fmt: skip
    phases = [progress.phase for progress in rounds_done(state)]
    assert phases == (["warm"] if stop == "finetune" else ["warm", "finetune"])
    for _ in range(2):  # going on, and asking again when all is done
        resumed = new_model(config=BRANCH)
        again = train_alone(store, resumed, NOTHING, settings, 0, target=target, state=state)
        assert again.tuning == result.tuning
        for name, tensor in whole.state_dict().items():
            assert torch.equal(tensor, resumed.state_dict()[name]), name


def test_a_model_without_the_branch_and_labels_of_one_class_are_refused(store: TripletStore) -> None:
    with pytest.raises(InputFault, match=r"set model\.d_summary"):
        distil(new_model(), store, finetune(), seed=0)
    one = replace(store, label=np.zeros_like(store.label))
    with pytest.raises(InputFault, match="fewer than two classes"):
        distil(new_model(config=BRANCH), one, finetune(), seed=0)
