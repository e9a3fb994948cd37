"""Small stores in memory: a signal that can be learned, and the truth about it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from hymate.config import FinetuneConfig, ModelConfig, PretrainConfig, TaskConfig
from hymate.data.store import TripletStore
from hymate.data.store_header import StoreHeader
from hymate.model.hymate import HyMaTE, build_model

CODES = 6
SIGNAL = 2  # the code whose level decides the label
MODEL = ModelConfig(
    d_model=16, mamba_blocks=1, d_state=4, attention_layers=1, attention_heads=2, d_static=4, dropout=0.1
)
PRETRAIN = PretrainConfig(rounds=1, batch_size=16, learning_rate=2e-3)
FINETUNE = FinetuneConfig(rounds=4, batch_size=16, learning_rate=5e-3, clip_norm=1.0)


def planted_store(
    train: int = 64, tuning: int = 32, held_out: int = 0, seed: int = 0, one_class: tuple[str, ...] = ()
) -> TripletStore:
    """Stays of 4 to 20 observations over 48 h; label 1 where code `SIGNAL` runs one unit high.

    Every stay measures `SIGNAL` at least twice. Splits named in `one_class` hold negatives only.
    """
    rng = np.random.default_rng(seed)
    count = train + tuning + held_out
    split = np.repeat(np.array([0, 1, 2], np.int8), [train, tuning, held_out])
    negative = np.isin(split, [("train", "tuning", "held_out").index(name) for name in one_class])
    label = np.where(negative, 0, rng.permutation(count) % 2).astype(np.float32)
    lengths = rng.integers(4, 21, count)
    time, code, value = [], [], []
    for stay in range(count):
        hours = np.sort(rng.uniform(0, 48, lengths[stay]))
        codes = rng.integers(1, CODES + 1, lengths[stay])
        codes[rng.permutation(lengths[stay])[:2]] = SIGNAL
        level = np.where(codes == SIGNAL, 2 * label[stay] - 1, 0.0)
        time.append(hours)
        code.append(codes)
        value.append(level + rng.normal(0, 0.3, lengths[stay]))
    return store_of(time, code, value, label=label, split=split, static=rng.normal(size=(count, 2)))


def store_of(
    time: list[npt.NDArray[np.float64]],
    code: list[npt.NDArray[np.int64]],
    value: list[npt.NDArray[np.float64]],
    *,
    label: npt.NDArray[np.float32],
    split: npt.NDArray[np.int8],
    static: npt.NDArray[np.float64],
) -> TripletStore:
    """A store of these stays, every code numeric, that lies in memory only."""
    header = StoreHeader(
        vocabulary_hash="planted",
        task=TaskConfig(),
        codes=CODES,
        static_names=("a", "b"),
        splits=("train", "tuning", "held_out"),
        stays=len(time),
        triplets=sum(map(len, time)),
        unknown_codes={},
        unknown_static={},
        left_out={},
        folder="nowhere",
    )
    return TripletStore(
        path=Path("planted"),
        header=header,
        time=np.concatenate(time).astype(np.float32),
        code=np.concatenate(code).astype(np.int32),
        value=np.concatenate(value).astype(np.float32),
        offset=np.cumsum([0, *map(len, time)]).astype(np.int64),
        static=static.astype(np.float32),
        label=label,
        split=split,
        subject_id=np.arange(len(time)),
        prediction_time=np.zeros(len(time), np.int64),
        numeric=np.arange(CODES + 1) > 0,
        static_offset=np.zeros(len(time) + 1, np.int64),
        static_code=np.zeros(0, np.int32),
        static_value=np.zeros(0, np.float32),
    )


def new_model(seed: int = 0, config: ModelConfig = MODEL) -> HyMaTE:
    return build_model(config, CODES, static_width=2, time_scale_hours=48.0, seed=seed)
