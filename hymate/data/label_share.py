"""Fewer labels than there are: what a model learns where few stays have been labelled."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import numpy as np
import polars as pl

from hymate.data.pooling import PooledData
from hymate.errors import InputFault


def hide_labels(pooled: PooledData, share: float, seed: int) -> PooledData:
    """Keep the labels of `share` of the training split's subjects, drawn by `seed`; the others' are unknown.

    That goes for further labels (`finetune.auxiliary`) too. Their stays remain: pretraining and the
    vocabulary still see the records. Under one seed a smaller share is a part of a larger one. Other splits
    keep their labels.

    Raises:
        InputFault: no label is left.
    """
    if share == 1.0:
        return pooled
    stays = pooled.windows.stays
    training = (stays["split"] == "train").to_numpy()
    labelled = stays["label"].is_not_null().to_numpy() & training
    subjects = sorted(
        set(stays["subject_id"].filter(pl.Series(labelled)).to_list()),
        key=lambda subject: hashlib.sha256(f"label share/{seed}/{subject}".encode()).digest(),
    )
    kept = subjects[: round(share * len(subjects))]
    if not kept:
        what = f"leaves no label of {len(subjects)} training subjects"
        raise InputFault(f"label_share {share:g}", what, "raise it")
    hidden = training & ~stays["subject_id"].is_in(kept).to_numpy()
    unknown = pl.when(pl.Series(hidden)).then(None).otherwise(pl.col("label")).alias("label")
    labels, auxiliary = (
        np.where(hidden[:, None], np.float32("nan"), known).astype(np.float32)
        for known in (pooled.labels, pooled.auxiliary)
    )
    windows = replace(pooled.windows, stays=stays.with_columns(unknown))
    return replace(pooled, windows=windows, labels=labels, auxiliary=auxiliary)
