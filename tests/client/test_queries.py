"""A site's answers: from windows cut once, and only ever about the data set as it is."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from client import queries
from client.agreed import agreed_store, fingerprint_of
from client.queries import describe, prepare, statistics
from client.site import Policy, SiteConfig
from hymate.config import TaskConfig, VocabularyConfig
from hymate.data.meds import write_dataset
from hymate.data.statistics import SiteStatistics
from hymate.data.store import ARRAYS, TripletStore
from hymate.data.vocabulary import Vocabulary, build_vocabulary
from hymate.errors import InputFault
from hymate.joining_protocol import DescribeRequest, PrepareRequest, StatisticsRequest

TASK = TaskConfig(name="death", max_observations=20)
MIDNIGHT = datetime(2020, 1, 1)


def write_data(root: Path, seed: int = 0) -> None:
    """Forty subjects with some fifty observations of five codes each."""
    rng = np.random.default_rng(seed)
    rows = [
        (subject, MIDNIGHT + timedelta(minutes=int(rng.integers(0, 2881))), f"code {rng.integers(5)}", value)
        for subject in range(40)
        for value in rng.normal(size=50)
    ]
    events = pl.DataFrame(rows, ["subject_id", "time", "code", "numeric_value"], orient="row")
    statics = pl.DataFrame({"subject_id": range(40), "code": ["Age"] * 40, "numeric_value": range(20, 60)})
    write_dataset(
        root,
        name="north",
        events=pl.concat([statics, events], how="diagonal_relaxed"),
        splits=pl.DataFrame(
            {"subject_id": range(40), "split": ["train"] * 28 + ["tuning"] * 4 + ["held_out"] * 8}
        ),
        labels={
            "death": pl.DataFrame(
                {
                    "subject_id": range(40),
                    "prediction_time": [MIDNIGHT + timedelta(hours=48)] * 40,
                    "boolean_value": [subject % 3 == 0 for subject in range(40)],
                }
            )
        },
        codes=pl.DataFrame({"code": ["Age", *(f"code {i}" for i in range(5))]}),
    )


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    write_data(tmp_path / "meds")
    return SiteConfig(
        name="north", data=tmp_path / "meds", cache=tmp_path / "cache", policy=Policy(min_cell=1)
    )


def agree(site: SiteConfig) -> Vocabulary:
    reply = statistics(site, StatisticsRequest(task=TASK))
    return build_vocabulary({"north": SiteStatistics.from_json(reply.statistics)}, VocabularyConfig())


def ask(vocabulary: Vocabulary) -> PrepareRequest:
    return PrepareRequest(task=TASK, vocabulary=vocabulary.to_json(), vocabulary_hash=vocabulary.hash)


def all_phases(site: SiteConfig) -> tuple[object, Vocabulary, TripletStore]:
    description = describe(site, DescribeRequest(task=TASK))
    vocabulary = agree(site)
    prepare(site, ask(vocabulary))
    return description, vocabulary, agreed_store(site, TASK, vocabulary.hash)


def test_windows_are_cut_once_and_answers_are_the_same_without_the_cache(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuts = 0
    cut_windows = queries.cut_windows

    def counted(*args: object) -> object:
        nonlocal cuts
        cuts += 1
        return cut_windows(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(queries, "cut_windows", counted)
    description, vocabulary, store = all_phases(site)
    assert cuts == 1

    def without(path: Path, dataset: str, task: TaskConfig, cut: Callable[[], object]) -> object:
        shutil.rmtree(path, ignore_errors=True)
        return kept_windows(path, dataset, task, cut)  # type: ignore[arg-type]

    kept_windows = queries.kept_windows
    monkeypatch.setattr(queries, "kept_windows", without)
    shutil.rmtree(site.cache)  # a store that is there is kept
    again = all_phases(site)
    assert cuts == 1 + 3
    assert again[:2] == (description, vocabulary)
    assert again[2].header.dataset == store.header.dataset != ""
    for name in ARRAYS:
        assert getattr(again[2], name).tobytes() == getattr(store, name).tobytes(), name


def test_data_that_change_after_the_store_was_made_are_refused(site: SiteConfig) -> None:
    _, vocabulary, store = all_phases(site)
    before, old = store.value.tolist(), site.data.with_name("old")
    site.data.rename(old)
    write_data(site.data, seed=1)
    with pytest.raises(InputFault) as fault:
        agreed_store(site, TASK, vocabulary.hash)
    now = fingerprint_of(site, TASK)
    assert str(fault.value) == (
        "site north: its triplet store was made for another state of the data set "
        f"({store.header.dataset[:12]}, now {now[:12]}); "
        "put the data set back as it was, or run the study again from its vocabulary phase"
    )
    shutil.rmtree(site.data)
    with pytest.raises(InputFault, match="no MEDS data set is here any more"):
        agreed_store(site, TASK, vocabulary.hash)
    shutil.copytree(old, site.data, copy_function=shutil.copyfile)
    assert agreed_store(site, TASK, vocabulary.hash).value.tolist() == before


def test_data_that_change_between_statistics_and_store_are_refused(site: SiteConfig) -> None:
    vocabulary = agree(site)
    shutil.rmtree(site.data)
    write_data(site.data, seed=1)
    with pytest.raises(InputFault, match="has changed since its statistics were sent; put the data set back"):
        prepare(site, ask(vocabulary))
    with pytest.raises(InputFault, match="has not agreed"):
        agreed_store(site, TASK, vocabulary.hash)
    other = agree(site)  # the study begins anew
    assert other.hash != vocabulary.hash
    prepare(site, ask(other))
    assert len(agreed_store(site, TASK, other.hash)) == 40


def test_data_that_change_while_they_are_read_are_refused(
    site: SiteConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut_windows = queries.cut_windows

    def slow(*args: object) -> object:
        windows = cut_windows(*args)  # type: ignore[arg-type]
        shutil.rmtree(site.data)
        write_data(site.data, seed=1)
        return windows

    monkeypatch.setattr(queries, "cut_windows", slow)
    with pytest.raises(InputFault, match="site north: its data set changes while it is read"):
        describe(site, DescribeRequest(task=TASK))
    monkeypatch.undo()
    assert describe(site, DescribeRequest(task=TASK)).splits["train"].stays == 28


def test_two_studies_with_one_label_and_other_windows_keep_two_stores(site: SiteConfig) -> None:
    """The same statistics, so the same vocabulary: only the task differs."""
    vocabulary = agree(site)
    prepare(site, ask(vocabulary))
    other = TASK.model_copy(update={"min_observations": 0})
    prepare(site, ask(vocabulary).model_copy(update={"task": other}))
    assert agreed_store(site, TASK, vocabulary.hash).task == TASK
    assert agreed_store(site, other, vocabulary.hash).task == other


def test_a_store_is_opened_once_until_it_is_made_anew(site: SiteConfig) -> None:
    _, vocabulary, store = all_phases(site)
    assert agreed_store(site, TASK, vocabulary.hash) is store
    shutil.rmtree(store.path)
    with pytest.raises(InputFault, match="holds no triplet store"):
        agreed_store(site, TASK, vocabulary.hash)
    prepare(site, ask(vocabulary))
    assert agreed_store(site, TASK, vocabulary.hash) is not store
