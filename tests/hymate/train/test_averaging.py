"""The running mean is what is evaluated and kept, and what training itself does is not changed by it."""

from __future__ import annotations

import torch

from hymate.evaluate.metrics import auroc
from hymate.train.alone import train_alone
from hymate.train.averaging import Average, averaged
from hymate.train.loop import finetune_epochs, labelled, make_optimiser, score
from tests.hymate.train.planted import FINETUNE, PRETRAIN, new_model, planted_store

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
