"""Forty people whose labels are coin flips, so that only memory can tell them, and forty more like them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from hymate.audit.people import People
from hymate.config import FinetuneConfig, PretrainConfig, TaskConfig
from hymate.data.vocabulary import Vocabulary, VocabularyEntry
from hymate.train.alone import train_alone
from hymate.train.saved_model import SavedModel, new_model
from tests.hymate.train.planted import CODES, MODEL, planted_store

BLOCKS = 5  # of CODES codes each; a stay has codes of one block alone
STILL = MODEL.model_copy(update={"dropout": 0.0})
LEARN = FinetuneConfig(rounds=25, batch_size=8, learning_rate=1e-2, clip_norm=1.0)
ENTRIES = tuple(VocabularyEntry(f"CODE {i}", "", 0.0, 1.0, True) for i in range(1, BLOCKS * CODES + 1))
STATIC = (VocabularyEntry("A", "", 0.0, 1.0, True),)  # two columns, as the planted stays have
VOCABULARY = Vocabulary(codes=ENTRIES, static=STATIC)


@dataclass(frozen=True, eq=False)
class Remembered:
    """`saved` has learned the members by heart; `untrained` has seen nobody."""

    people: People
    saved: SavedModel
    untrained: SavedModel


def made_people() -> People:
    rng = np.random.default_rng(0)
    store = planted_store(train=40, tuning=0, held_out=40, seed=1)
    block = np.repeat(rng.integers(0, BLOCKS, len(store)), store.lengths).astype(np.int32)
    store = replace(
        store,
        header=replace(store.header, codes=BLOCKS * CODES),
        code=store.code + CODES * block,
        numeric=np.arange(BLOCKS * CODES + 1) > 0,
        label=rng.permutation(store.label),
    )
    return People.of(store, store.split == 0)


def untrained(seed: int = 5) -> SavedModel:
    model = new_model(STILL, TaskConfig(), VOCABULARY, seed)
    return SavedModel("made", model, STILL, TaskConfig(), VOCABULARY)


@pytest.fixture(scope="session")
def remembered() -> Remembered:
    people, saved = made_people(), untrained(0)
    train_alone(people.store, saved.model, PretrainConfig(rounds=0), LEARN, 0)
    return Remembered(people, saved, untrained())
