"""LiRA: how likely a person's answer is of models that saw them, against models that did not.

Carlini et al. 2022 (https://arxiv.org/abs/2112.03570), the online attack with few shadow models: each is
trained on half of all people, drawn so that every person is in exactly half of them; a person's log odds of
the true label are normal in either half of the models, with means of their own and the spreads of everybody
(section VI-C); the score is the ratio of the two densities at the audited model's answer.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hymate.audit.people import Floats, People
from hymate.config import FinetuneConfig, PretrainConfig
from hymate.durable import write_bytes
from hymate.errors import InputFault
from hymate.train.alone import Progress, train_alone
from hymate.train.saved_model import SavedModel, new_model
from hymate.train.scoring import outputs

Bools = NDArray[np.bool_]
LEAST = 4
"""Shadow models, for a spread to be known."""
VARIANCE_FLOOR = 1e-6


@dataclass(frozen=True)
class ShadowSettings:
    """How many shadow models, and how each is trained: like the audited one, but from labels alone."""

    number: int
    finetune: FinetuneConfig
    seed: int = 0

    def demand_even(self) -> None:
        """`InputFault` where people could not be in half of the models."""
        if self.number < LEAST or self.number % 2:
            raise InputFault("--shadow", f"is {self.number}", f"give an even number from {LEAST} on, or 0")


def confidence(saved: SavedModel, people: People) -> Floats:
    """Mean log odds that the model gives to the true labels of each person's stays, (n,)."""
    said = outputs(saved.model, people.store, people.rows)
    return people.mean(np.where(people.store.label[people.rows] > 0.5, said, -said))


def halves(people: int, number: int, seed: int) -> Bools:
    """Who is in the training data of which shadow model, (number, people): everybody in half of them."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(number // 2):
        within = np.zeros(people, bool)
        within[rng.permutation(people)[: people // 2]] = True
        parts += [within, ~within]
    return np.stack(parts)


def likelihood_ratios(observed: Floats, shadows: Floats, within: Bools) -> Floats:
    """Log of the ratio of densities at `observed` (n,); shadows: what each shadow model says,
    (number, n); within: of whom it was trained on them."""
    inside, outside = (_mean_and_residuals(shadows, chosen) for chosen in (within, ~within))
    return _log_density(observed, *inside) - _log_density(observed, *outside)


def shadow_answers(
    saved: SavedModel,
    people: People,
    settings: ShadowSettings,
    work: Path,
    done: Callable[[int, Progress | None], None],
) -> tuple[Floats, Bools]:
    """What shadow models say of everybody, and whom each was trained on: both (number, n).

    Each is trained once and kept in `work`: an audit that was killed goes on within the model it was at.
    `done` hears of every round of a model (numbered from 1), and with None of its end.
    """
    settings.demand_even()
    within = halves(len(people), settings.number, settings.seed)
    name = _name(saved, people, settings)
    answers = []
    for number, chosen in enumerate(within):
        kept = work / f"shadow-{name}-{number:03d}.npy"
        if not kept.is_file():
            state = kept.with_suffix(".safetensors")
            answer = _answer_of_shadow(saved, people, settings, number, chosen, state, done)
            content = io.BytesIO()
            np.save(content, answer, allow_pickle=False)
            write_bytes(kept, content.getvalue())
            state.unlink()
        answers.append(_kept(kept))
        done(number + 1, None)
    return np.stack(answers), within


def _answer_of_shadow(
    saved: SavedModel,
    people: People,
    settings: ShadowSettings,
    number: int,
    chosen: Bools,
    state: Path,
    done: Callable[[int, Progress | None], None],
) -> Floats:
    seed = settings.seed + number
    model = new_model(saved.config, saved.task, saved.vocabulary, seed)
    splits = people.store.header.splits
    split = np.full(len(people.store), splits.index("held_out"), np.int8)
    split[people.stays_of(chosen)] = splits.index("train")
    state.parent.mkdir(parents=True, exist_ok=True)
    train_alone(
        replace(people.store, split=split),
        model,
        PretrainConfig(rounds=0),
        settings.finetune,
        seed,
        on_progress=lambda progress: done(number + 1, progress),
        state=state,
    )
    return confidence(replace(saved, model=model), people)


def _name(saved: SavedModel, people: People, settings: ShadowSettings) -> str:
    """Of the answers of these shadow models and no others."""
    content = [
        people.digest(),
        saved.config.model_dump(mode="json"),
        settings.finetune.model_dump(mode="json"),
        settings.number,
        settings.seed,
    ]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:12]


def _kept(path: Path) -> Floats:
    try:
        found: Floats = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError):
        raise InputFault(path, "is damaged", "remove it: this shadow model is then trained again") from None
    return found


def _mean_and_residuals(shadows: Floats, chosen: Bools) -> tuple[Floats, float]:
    """Each person's mean over their models, and everybody's variance about it."""
    count = chosen.sum(0)
    mean = np.where(chosen, shadows, 0.0).sum(0) / count
    squares = np.where(chosen, np.square(shadows - mean), 0.0).sum()
    return mean, max(VARIANCE_FLOOR, float(squares / (count - 1).sum()))


def _log_density(at: Floats, mean: Floats, variance: float) -> Floats:
    return np.asarray(-np.square(at - mean) / (2 * variance) - 0.5 * np.log(variance))
