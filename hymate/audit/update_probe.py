"""What one hospital's update gives away of the stays it was made from: three probes of a curious coordinator.

The update is a real one: the site's own epochs with its own optimiser (and noise), on stays of people the
hospital holds; the coordinator sees the weights before and after, and knows the model.

codes    A row of the feature table moves only if its code occurs in the batch: AdamW starts without moments
         and decays no table (`hymate.train.optimiser`). Whose row moved was measured; with noise, every row
         moves, and the distance is all there is to go by.
label    The classification head's bias moves up for a stay with the label, and down for one without.
values   Made-up values are fitted until the step they cause is like the one seen (Zhu et al. 2019,
         https://arxiv.org/abs/1906.08935; the cosine of Geiping et al. 2020,
         https://arxiv.org/abs/2003.14053), codes and times given: the worst case. What they miss is held
         against the guess that every value is its code's mean (z-score 0).
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from hymate.audit.people import People
from hymate.config import FinetuneConfig
from hymate.data.batching import TripletBatch, collate
from hymate.evaluate.metrics import auroc
from hymate.model.embedding import TripletEmbedding
from hymate.model.hymate import HyMaTE
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.objectives import classification_loss
from hymate.train.saved_model import SavedModel, new_model

Update = dict[str, Tensor]
"""What is taken off the weights: before less after, by name."""

TABLE, BIAS = "embedding.feature.weight", "classification_head.out.bias"
LONGEST = 96
"""Observations of a stay whose values are probed: the time that fitting takes grows with them."""
FITTED = 2
"""Stays whose values are probed: each takes some seconds."""
ITERATIONS, RATE = 60, 0.1


@dataclass(frozen=True)
class Round:
    """What kind of round is probed."""

    stays: int
    epochs: int
    """Of one step each."""
    noise: float
    """Noise multiplier, clipping at norm 1; 0: neither noise nor clipping but the training's own."""

    @property
    def words(self) -> str:
        stays = "1 stay" if self.stays == 1 else f"{self.stays} stays"
        return f"{stays}, {self.epochs} step{'s' * (self.epochs > 1)}"


@dataclass(frozen=True)
class Leak:
    """What was found, means over `trials` updates; None where there was nothing to find."""

    round: Round
    trials: int
    present: float | None
    """Share of the vocabulary's codes that occur in the batch: the precision of guessing."""
    precision: float | None
    """Of the rows that moved, those whose code occurs."""
    recall: float | None
    """Of the codes that occur, those whose row moved."""
    separation: float | None
    """AUC of how far a row moved against whether its code occurs; 0.5: guessing."""
    label: float | None
    """Share of updates of one stay that give its label away."""
    value_error: float | None
    """Root mean squared error of the values found, in standard deviations of their code."""
    guess_error: float | None
    """The same of guessing each code's mean."""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def can_probe(saved: SavedModel) -> bool:
    """Whether the model is one whose updates are understood here: HyMaTE with a row for each code."""
    return isinstance(saved.model, HyMaTE) and isinstance(saved.model.embedding, TripletEmbedding)


def probe(
    saved: SavedModel, people: People, config: FinetuneConfig, rounds: Round, trials: int, seed: int = 0
) -> Leak:
    """Updates of the first round of fine-tuning, each from other members' stays, and what they give away."""
    rng = np.random.default_rng([seed, rounds.stays, rounds.epochs])
    members = np.flatnonzero(people.member)
    present, precision, recall, separation = (np.full(trials, np.nan) for _ in range(4))
    labels, errors, guesses = list[float](), list[float](), list[float]()
    for trial in range(trials):
        model = new_model(saved.config, saved.task, saved.vocabulary, seed)
        assert isinstance(model, HyMaTE)  # can_probe
        rows = _drawn(people, rng.choice(members, min(rounds.stays, len(members)), replace=False), rng)
        update = update_of(copy.deepcopy(model), people, rows, config, rounds, trial)
        batch = collate(people.store, rows)
        occurs = np.bincount(batch.code[batch.mask].numpy(), minlength=people.store.header.codes + 1)[1:] > 0
        moved = update[TABLE][1:].norm(dim=1).numpy()
        present[trial] = occurs.mean()
        if (moved > 0).any():
            precision[trial] = occurs[moved > 0].mean()
        if occurs.any():
            recall[trial] = (moved > 0)[occurs].mean()
        if (apart := auroc(occurs.astype(np.float64), moved.astype(np.float64))) is not None:
            separation[trial] = apart
        if rounds.stays > 1:
            continue
        labels.append(float((update[BIAS] < 0) == (batch.label > 0.5)))
        if len(errors) < FITTED and 0 < batch.value.shape[1] <= LONGEST:
            found = fitted_values(model, update, batch)
            errors.append(float((found - batch.value).square().mean().sqrt()))
            guesses.append(float(batch.value.square().mean().sqrt()))
    return Leak(
        rounds,
        trials,
        _mean(present),
        _mean(precision),
        _mean(recall),
        _mean(separation),
        _mean(labels),
        _mean(errors),
        _mean(guesses),
    )


def update_of(
    model: HyMaTE, people: People, rows: NDArray[np.int64], config: FinetuneConfig, rounds: Round, trial: int
) -> Update:
    """The update that a site with the stays in `rows` alone would send; `model` is trained by it."""
    splits = people.store.header.splits
    split = np.full(len(people.store), splits.index("held_out"), np.int8)
    split[rows] = splits.index("train")
    store = replace(people.store, split=split)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    plain = {"batch_size": len(rows), "rounds": 1, "local_epochs": rounds.epochs, "label_smoothing": 0.0}
    config = config.model_copy(update={**plain, "schedule": "constant", "warmup": 0.0})
    optimiser = make_optimiser(model, config)
    if rounds.noise:
        from hymate.train.noise import derived_key
        from hymate.train.private import private_finetune_epochs
        from hymate.train.private_optimiser import Mechanism

        private_finetune_epochs(
            model,
            store,
            config,
            optimiser,
            Mechanism(rounds.noise),
            positive_weight=1.0,
            key=derived_key(bytes(32), "audit", trial),
            first_epoch=0,
            epochs=rounds.epochs,
        )
    else:
        finetune_epochs(
            model,
            store,
            config,
            optimiser,
            positive_weight=1.0,
            seed=trial,
            first_epoch=0,
            epochs=rounds.epochs,
        )
    return {name: before[name] - tensor for name, tensor in model.state_dict().items()}


def fitted_values(model: HyMaTE, update: Update, batch: TripletBatch) -> Tensor:
    """Values (1, L) whose step would be most like `update`; of `batch`, its own values are not looked at.

    The label is the one that the bias gives away. AdamW's first step is the gradient's sign, nearly: a
    smooth sign is fitted to it.
    """
    model = copy.deepcopy(model).double().eval()  # in float64 all operators can be differentiated twice
    parameters = dict(model.named_parameters())
    label = (update[BIAS] < 0).double()
    known = replace(
        batch, time=batch.time.double(), static=batch.static.double(), value=batch.value.double(), label=label
    )
    # Not at the mean itself: there the value embedding's gradient has a kink.
    start = torch.randn(known.value.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = (0.1 * start).requires_grad_()
    optimiser = torch.optim.Adam([values], lr=RATE)
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(ITERATIONS):
            loss = classification_loss(model.classify(replace(known, value=values)), label, 1.0).sum()
            gradients = torch.autograd.grad(
                loss, list(parameters.values()), create_graph=True, allow_unused=True
            )
            optimiser.zero_grad()
            _unlikeness(dict(zip(parameters, gradients, strict=True)), update).backward()  # type: ignore[no-untyped-call]
            optimiser.step()
    return values.detach().float()


def _unlikeness(gradients: dict[str, Tensor | None], update: Update) -> Tensor:
    """1 less the cosine between the step that `gradients` would cause and the one seen."""
    product, ours, theirs = torch.zeros(3, dtype=torch.float64)
    for name, gradient in gradients.items():
        if gradient is None:
            continue
        seen = update[name].double()
        width = gradient.detach().square().mean() * 1e-3 + 1e-30
        step = gradient / (gradient.square() + width).sqrt()
        product = product + (step * seen).sum()
        ours, theirs = ours + step.square().sum(), theirs + seen.square().sum()
    alike: Tensor = product / (ours * theirs).sqrt().clamp(min=1e-30)
    return 1.0 - alike


def _drawn(people: People, chosen: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """One stay of each person."""
    rows = [rng.choice(people.rows[people.person == person]) for person in chosen]
    return np.sort(np.array(rows, np.int64))


def _mean(found: Sequence[float] | NDArray[np.float64]) -> float | None:
    known = np.array(found)
    known = known[~np.isnan(known)]
    return float(known.mean()) if known.size else None
