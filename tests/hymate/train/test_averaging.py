"""The running mean is what is evaluated and kept, and what training itself does is not changed by it."""

from __future__ import annotations

from typing import Any

import torch

from hymate.evaluate.metrics import auroc
from hymate.model.hymate import HyMaTE
from hymate.train.alone import Progress, train_alone
from hymate.train.averaging import Average, averaged
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.scoring import labelled, score
from tests.hymate.train.planted import FINETUNE, MODEL, PRETRAIN, new_model, planted_store

NOTHING = PRETRAIN.model_copy(update={"rounds": 0})


def test_the_mean_follows_the_weights_and_soon_forgets_the_first() -> None:
    model = torch.nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        model.weight.fill_(0.0)
    average, expected = Average(model, 0.9), 0.0
    for step in range(1, 200):
        with torch.no_grad():
            model.weight.fill_(float(step))
        average.update(model)
        decay = min(0.9, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * step
        assert abs(float(average.weights["weight"]) - expected) < 1e-3
    assert 188 < expected < 192  # some ten steps behind
    with averaged(model, average):
        assert abs(model.weight.item() - expected) < 1e-3
    assert model.weight.item() == 199.0
    with averaged(model, None):
        assert model.weight.item() == 199.0


def test_training_walks_the_same_path_with_a_mean_beside_it() -> None:
    store = planted_store(train=24, tuning=0)
    models = []
    for decay in (None, 0.9):
        model = new_model()
        average = None if decay is None else Average(model, decay)
        finetune_epochs(
            model,
            store,
            FINETUNE,
            make_optimiser(model, FINETUNE),
            positive_weight=1.0,
            seed=0,
            first_epoch=0,
            epochs=2,
            average=average,
        )
        models.append(model)
    assert all(torch.equal(a, b) for a, b in zip(*(m.parameters() for m in models), strict=True))
    assert average is not None
    assert average.steps == 4
    assert not torch.equal(average.weights["norm.weight"], models[1].norm.weight)


def test_what_is_kept_is_the_mean() -> None:
    """Weights that jump about: their mean is judged, and is what comes out."""
    store = planted_store(train=24, tuning=16)
    plain, mean = new_model(), new_model()
    settings = FINETUNE.model_copy(update={"rounds": 2, "learning_rate": 0.02, "patience": 9})
    train_alone(store, plain, NOTHING, settings, 0)
    result = train_alone(store, mean, NOTHING, settings.model_copy(update={"ema": 0.95}), 0)
    assert not torch.equal(plain.norm.weight, mean.norm.weight)
    rows = labelled(store, "tuning")
    assert auroc(store.label[rows].astype(float), score(mean, store, rows)) == result.tuning.auroc


def test_the_next_phase_begins_with_the_mean() -> None:
    """Rounds that hardly learn show what they began with: what was told of at the end of the phase before."""
    store = planted_store(train=24, tuning=16)
    config = MODEL.model_copy(update={"d_summary": 4})
    pretrain = PRETRAIN.model_copy(update={"rounds": 2, "ema": 0.9, "learning_rate": 0.02})
    still = FINETUNE.model_copy(update={"rounds": 1, "learning_rate": 1e-12, "weight_decay": 0.0})
    for warm in (0, 3):
        model = new_model(config=config)
        told: dict[str, Any] = {}

        def keep(progress: Progress, model: HyMaTE = model, told: dict[str, Any] = told) -> None:
            told[progress.phase] = {name: tensor.clone() for name, tensor in model.state_dict().items()}

        settings = still.model_copy(update={"warm_epochs": warm, "warm_learning_rate": 0.02, "ema": 0.9})
        train_alone(store, model, pretrain, settings, 0, on_progress=keep)
        assert torch.allclose(model.norm.weight, told["pretrain"]["norm.weight"], atol=1e-7)
        if warm:
            name = "classification_head.out.weight"
            assert torch.allclose(model.state_dict()[name], told["warm"][name], atol=1e-7)
            assert not torch.allclose(told["warm"][name], told["pretrain"][name], atol=1e-3)
