"""The run directory of one training: what is in it, who writes it, and how it goes on after a kill.

| path                   | what it holds                                                            |
|------------------------|--------------------------------------------------------------------------|
| train.yaml             | the training file as run, every default written out                      |
| vocabulary.json        | the codes with mean and standard deviation, what was dropped and why     |
| data.json              | the data sets, stays and positives per split, what was left out          |
| store/, *labels.npy    | the triplet store and its labels; removed when the run is done           |
| checkpoints/state.*    | weights, optimiser and history after the last round: what --resume reads |
| metrics.jsonl          | one line a round                                                         |
| tensorboard/           | the same for TensorBoard                                                 |
| pretrained/, model/    | weights, config, vocabulary: after pretraining, and the best ones        |
| predictions/           | of every split that was evaluated                                        |
| members/SEED/          | of an ensemble: checkpoints, metrics and model of each member            |
| report.json            | every figure; written last                                               |
"""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hymate.data.output import fresh_folder, write_json
from hymate.data.pooling import PooledData
from hymate.data.store import TripletStore, open_store, prepare_store
from hymate.data.vocabulary import Vocabulary
from hymate.durable import write_bytes, write_text
from hymate.errors import InputFault
from hymate.train.alone import Progress
from hymate.train.config import TrainConfig, dump_train_config, load_train_config
from hymate.train.saved_model import PRETRAINED, SavedModel, save_model

CONFIG = "train.yaml"
METRICS = "metrics.jsonl"
REPORT = "report.json"
TENSORBOARD = "tensorboard"
LOCK = ".lock"
LABELS = "labels.npy"
AUXILIARY = "auxiliary_labels.npy"
SOFT = "soft_labels.npy"


@dataclass(frozen=True)
class RunFolder:
    """Names of the parts of a run at `path`."""

    path: Path

    @property
    def state(self) -> Path:
        return self.path / "checkpoints" / "state.safetensors"

    @property
    def store(self) -> Path:
        return self.path / "store"

    @property
    def started(self) -> bool:
        """Whether a training has begun here."""
        return (self.path / CONFIG).is_file()

    @property
    def finished(self) -> bool:
        return (self.path / REPORT).is_file()

    def config(self) -> TrainConfig:
        """The training file as run; `InputFault` where no training has begun here."""
        if not self.started:
            raise InputFault(self.path, "holds no training to go on with", "give --config to start one")
        return load_train_config(self.path / CONFIG)

    def data(self) -> dict[str, Any]:
        """What `data.json` says."""
        content: dict[str, Any] = json.loads((self.path / "data.json").read_text(encoding="utf-8"))
        return content

    def report(self) -> dict[str, Any]:
        """What `report.json` says; `InputFault` where it is not whole."""
        try:
            content: dict[str, Any] = json.loads((self.path / REPORT).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            raise InputFault(self.path / REPORT, "cannot be read", "remove it, then --resume") from None
        return content

    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.path / "vocabulary.json")

    def open_store(self, config: TrainConfig) -> TripletStore:
        """The store this run made; `InputFault` where it is missing or not this run's.

        It is the run's own copy of the data: what becomes of the data sets meanwhile does not matter.
        """
        return open_store(self.store, dataset="", vocabulary_hash=self.vocabulary().hash, task=config.task)

    def labels(self) -> NDArray[np.float32]:
        """Labels of the store's stays, (N, K); NaN where a stay lacks one."""
        found: NDArray[np.float32] = np.load(self.path / LABELS, allow_pickle=False)
        return found

    def auxiliary(self) -> NDArray[np.float32]:
        """Further labels of the store's stays, (N, A); NaN where a stay lacks one."""
        found: NDArray[np.float32] = np.load(self.path / AUXILIARY, allow_pickle=False)
        return found

    def soft_labels(self, make: Callable[[], NDArray[np.float32]]) -> NDArray[np.float32]:
        """What `make` returned when it was first asked, (N,): a training that goes on reads it again."""
        path = self.path / SOFT
        if not path.is_file():
            content = io.BytesIO()
            np.save(content, make(), allow_pickle=False)
            write_bytes(path, content.getvalue())
        found: NDArray[np.float32] = np.load(path, allow_pickle=False)
        return found

    def member(self, seed: int) -> RunFolder:
        """Where the member of this seed keeps what is its own."""
        folder = RunFolder(self.path / "members" / str(seed))
        folder.path.mkdir(parents=True, exist_ok=True)
        return folder

    def write_report(self, report: dict[str, Any]) -> None:
        """Write report.json: from here on the run is finished, and its store is not needed any more."""
        write_text(self.path / REPORT, json.dumps(report, indent=2) + "\n")
        shutil.rmtree(self.store, ignore_errors=True)
        for name in (LABELS, AUXILIARY, SOFT):
            (self.path / name).unlink(missing_ok=True)


def begin(
    path: Path, config: TrainConfig, pooled: PooledData, cohort: dict[str, Any], pretrained: SavedModel | None
) -> RunFolder:
    """Make a run directory that holds all that training needs; it appears whole or not at all."""
    with fresh_folder(path) as folder:
        (folder / CONFIG).write_text(dump_train_config(config), encoding="utf-8")
        pooled.vocabulary.save(folder / "vocabulary.json")
        prepare_store(folder / "store", pooled.windows, pooled.vocabulary, config.task)
        write_json(folder / "data.json", cohort)
        np.save(folder / LABELS, pooled.labels, allow_pickle=False)
        np.save(folder / AUXILIARY, pooled.auxiliary, allow_pickle=False)
        if pretrained is not None:
            save_model(folder / PRETRAINED, pretrained)
    return RunFolder(path)


@contextlib.contextmanager
def alone_in(run: RunFolder) -> Iterator[None]:
    """Nobody else trains here within; `InputFault` where somebody does. What a kill left is removed."""
    with (run.path / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # released with the file, also by a kill
        except BlockingIOError:
            raise InputFault(
                run.path, "another process is training here", "wait for it, or give another --out"
            ) from None
        for leftover in run.path.rglob(".*"):  # files that were being written (hymate.durable)
            if leftover.is_file() and leftover.name != LOCK:
                leftover.unlink()
        yield


def refuse_difference(run: RunFolder, wanted: TrainConfig) -> None:
    """`InputFault` where the run was begun with another configuration: its weights would be neither's."""
    before, now = run.config().model_dump(mode="json"), wanted.model_dump(mode="json")
    for key, was, is_ in _differences(before, now):
        raise InputFault(
            run.path,
            f"was begun with {key} {was}, now it is {is_}",
            "give another --out, or --resume without changing the configuration",
        )


def _differences(before: Any, now: Any, key: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, dict) and isinstance(now, dict):
        for name in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(name), now.get(name), f"{key}.{name}" if key else name)
    elif before != now:
        yield key, before, now


class Journal:
    """metrics.jsonl and TensorBoard's events of one run, a line a round.

    A kill can come between a round's line and its state. On opening, lines of rounds that the state
    does not hold are taken out: these rounds are trained again.
    """

    def __init__(self, run: RunFolder, done: tuple[Progress, ...]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = run.path / METRICS
        shutil.rmtree(run.path / TENSORBOARD, ignore_errors=True)
        self._board = SummaryWriter(str(run.path / TENSORBOARD))
        known = {(progress.phase, progress.round) for progress in done}
        kept = [line for line in _lines(path) if (line["phase"], line["round"]) in known]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        for line in kept:
            self._draw(line)
        self._stream = path.open("a", encoding="utf-8")

    def round(self, progress: Progress) -> None:
        """Write one round, flushed at once."""
        line = {"time": time.time(), "event": "round", **_flat(progress)}
        self._stream.write(json.dumps(line) + "\n")
        self._stream.flush()
        self._draw(line)

    def close(self) -> None:
        self._stream.close()
        self._board.close()

    def _draw(self, line: dict[str, Any]) -> None:
        for name, value in line.items():
            if isinstance(value, int | float) and name not in ("round", "rounds", "time"):
                self._board.add_scalar(f"{line['phase']}/{name}", value, line["round"], walltime=line["time"])


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file; one that a kill cut short is dropped."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            found.append(json.loads(text))
    return found


def _flat(progress: Progress) -> dict[str, Any]:
    """A round as one flat object, named as a federated study's lines are."""
    line: dict[str, Any] = {
        "phase": progress.phase,
        "round": progress.round,
        "rounds": progress.rounds,
        "loss": progress.loss,
        "seconds": progress.seconds,
    }
    if progress.forecast_error is not None:
        line["forecast_error"] = progress.forecast_error
    if progress.tuning is not None and progress.tuning.rmse is not None:
        line["tuning_rmse"] = progress.tuning.rmse
    elif progress.tuning is not None:
        line["tuning_auroc"] = progress.tuning.auroc
        line["tuning_auprc"] = progress.tuning.auprc
        line["tuning_log_loss"] = progress.tuning.log_loss
    return line
