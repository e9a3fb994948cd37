"""Do attributions tell the truth about the model? Take away what they call important, and look.

Of each stay the observations of its k most important features are deleted, and, for comparison, those of
k features drawn at random (after the deletion tests of Samek et al. 2017, arXiv 1509.06321, and ROAR's
control, Hooker et al. 2019, arXiv 1806.10758; without retraining). Attributions that mean nothing move the
model no more than chance does.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hymate.data.batching import collate
from hymate.data.store import TripletStore
from hymate.evaluate.explanation.amounts import BATCH, Floats
from hymate.train.placement import device_of, mode, on_device
from hymate.train.saved_model import SavedModel

Ints = NDArray[np.int64]
Choice = Callable[[int, Ints], Ints]
"""(position of the stay, its codes) -> the codes to delete."""


@dataclass(frozen=True)
class Deletion:
    """The model's answers (n,) whole, without the top features, and without random ones (draws, n)."""

    whole: Floats
    without_top: Floats
    without_random: Floats

    @property
    def moved_by_top(self) -> Floats:
        """(n,)"""
        return np.abs(self.without_top - self.whole)

    @property
    def moved_by_random(self) -> Floats:
        """(n,), mean over the draws."""
        moved: Floats = np.abs(self.without_random - self.whole).mean(axis=0)
        return moved


def delete_features(
    saved: SavedModel,
    store: TripletStore,
    rows: Ints,
    importance: Floats,
    *,
    target: int | None = None,
    features: int = 3,
    draws: int = 5,
    seed: int = 0,
) -> Deletion:
    """Delete the `features` most important ones of each stay in `rows`; never all that a stay has.

    importance (n, F): size of attribution by stay and code, vocabulary index less 1.
    """
    rng = np.random.default_rng(seed)

    def number(codes: Ints) -> int:
        return min(features, max(len(codes) - 1, 0))

    def top(stay: int, codes: Ints) -> Ints:
        order = np.argsort(-importance[stay, codes - 1], kind="stable")
        chosen: Ints = codes[order[: number(codes)]]
        return chosen

    def at_random(_: int, codes: Ints) -> Ints:
        chosen: Ints = rng.permutation(codes)[: number(codes)]
        return chosen

    return Deletion(
        whole=_answers(saved, store, rows, target, lambda _, codes: codes[:0]),
        without_top=_answers(saved, store, rows, target, top),
        without_random=np.stack([_answers(saved, store, rows, target, at_random) for _ in range(draws)]),
    )


def _answers(
    saved: SavedModel, store: TripletStore, rows: Ints, target: int | None, deleted: Choice
) -> Floats:
    keep = []
    for stay, row in enumerate(rows):
        codes = store.code[store.offset[row] : store.offset[row + 1]].astype(np.int64)
        keep.append(~np.isin(codes, deleted(stay, np.unique(codes))))
    scale = 1.0 if saved.scale is None else saved.scale.std
    found = []
    with mode(saved.model, training=False), torch.inference_mode():
        for begin in range(0, len(rows), BATCH):
            part = slice(begin, begin + BATCH)
            batch = on_device(collate(store, rows[part], keep[part]), device_of(saved.model))
            made = saved.model.classify(batch)
            found.append((made if target is None else made[:, target]).double().cpu().numpy())
    return np.concatenate(found) * scale
