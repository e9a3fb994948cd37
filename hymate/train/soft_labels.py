"""Distillation (Hinton et al., arXiv 1503.02531) from gradient boosting, of stays that it did not see.

The probabilities are out of fold: folds go by subject, so no model says anything of a person it was
fitted on, and a stay's soft label knows nothing of its own label.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedGroupKFold

from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.baselines.summary import fit_summary
from hymate.train.scoring import labelled


def out_of_fold(store: TripletStore, folds: int, seed: int) -> NDArray[np.float32]:
    """Probability of the label for each labelled training stay, (N,) float32; NaN for all others.

    Raises `InputFault` where a fold would leave fewer than two classes to fit on.
    """
    rows = labelled(store, "train")
    labels, subjects = store.label[rows], store.subject_id[rows]
    rarest = min(len(np.unique(subjects[labels == value])) for value in (0, 1))
    if rarest < folds:
        raise InputFault(
            "finetune.soft_labels",
            f"{folds} folds need as many subjects of each class, and one class has {rarest}",
            "lower folds, or leave soft_labels out",
        )
    soft = np.full(len(store), np.nan, np.float32)
    plan = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    for fitted, asked in plan.split(rows, labels, subjects):
        model = fit_summary("gradient_boosting", store, rows[fitted], seed=seed)
        soft[rows[asked]] = model.score(store, rows[asked])
    return soft
