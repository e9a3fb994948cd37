"""The machine: room for the cache and the state, memory, threads, the backend, one training step."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from client.preflight.lines import Line, fail, ok, plural, warn
from client.round_limit import rounds_given
from client.site import SiteConfig
from hymate.config import FinetuneConfig, ModelConfig, TaskConfig, VocabularyConfig

GIB = 1 << 30
LEAST_FREE_BYTES = GIB // 4
CACHE_PER_DATA = 8
"""Windows and stores of one task are at most so many times as large as the compressed events."""
LEAST_MEMORY_BYTES = GIB
STEPS = 3
BATCH = 32
LONG_EPOCH_S = 3600.0
"""How long a study waits for a round unless it says otherwise (`participation.deadline_minutes`)."""


def check_folders(site: SiteConfig) -> Iterator[Line]:
    """Cache and state can be written to."""
    for name, folder in (("cache", site.cache), ("state", site.state)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder) as probe:
                probe.write(b"\0" * 4096)
                probe.flush()
                os.fsync(probe.fileno())
        except OSError as fault:
            yield fail(
                name,
                f"{folder} cannot be written to ({fault.strerror})",
                f"correct `{name}` in the site file, free space, or mend the folder's permissions",
            )
        else:
            yield ok(name, f"{folder} can be written to")


def check_rounds(site: SiteConfig) -> Iterator[Line]:
    """What studies have had from this site."""
    for study, total in rounds_given(site).items():
        limit = site.policy.max_rounds_per_study
        what = f"study {study} has had {plural(total, 'training round')}"
        if limit is not None and total >= limit:
            yield warn("rounds", f"{what}: no more are allowed", "raise `policy.max_rounds_per_study`")
        else:
            yield ok("rounds", what + (f" of {limit}" if limit is not None else ""))


def check_disk(site: SiteConfig, free_bytes: int | None = None) -> Iterator[Line]:
    """Room for the cache. `free_bytes`: what counts as free; None: what the disk says."""
    data = sum(file.stat().st_size for file in site.data.glob("data/**/*.parquet"))
    need = max(LEAST_FREE_BYTES, CACHE_PER_DATA * data)
    for name, folder in (("cache", site.cache), ("state", site.state)):
        free = shutil.disk_usage(_existing(folder)).free if free_bytes is None else free_bytes
        needed = need if name == "cache" else LEAST_FREE_BYTES
        what = f"{_gib(free)} free for the {name}, {_gib(needed)} needed at most"
        remedy = f"free space, or let `{name}` name a folder on a larger disk"
        yield ok("disk", what) if free >= needed else fail("disk", what, remedy)


def check_memory() -> Iterator[Line]:
    """Memory this process may use, a container's limit included."""
    import psutil

    free = psutil.virtual_memory().available
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.is_file() and (given := limit.read_text().strip()).isdigit():
        free = min(free, int(given))
    if free < LEAST_MEMORY_BYTES:
        yield warn("memory", f"{_gib(free)} available", f"give the site {_gib(LEAST_MEMORY_BYTES)} or more")
    else:
        yield ok("memory", f"{_gib(free)} available")


def check_threads(site: SiteConfig) -> Iterator[Line]:
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    what = f"{plural(site.threads, 'thread')} for training, {plural(there, 'processor core')} here"
    if site.threads > there:
        yield warn("threads", what, f"set `threads: {there}`: more threads than cores are slower")
    else:
        yield ok("threads", what)


def check_backend() -> Iterator[Line]:
    """Which scan backend trains here."""
    import warnings

    import torch

    from hymate.ops.backend import Backend, choose_backend

    with warnings.catch_warnings():  # the reason says the same
        warnings.simplefilter("ignore")
        backend, reason = choose_backend(torch.device("cpu"), torch.float32)
    what = f"the selective scan runs in '{backend}': {reason}"
    if backend is Backend.NATIVE:
        yield ok("backend", what)
    else:
        yield warn("backend", what, "install a C++ compiler and reinstall the package: it is far faster")
    if torch.cuda.is_available():
        yield ok("gpu", f"{torch.cuda.get_device_name()} is there; sites train on the CPU in this release")
    else:
        yield ok("gpu", "none; sites train on the CPU")


def check_step(site: SiteConfig, task: str) -> Iterator[Line]:
    """The time of one optimiser step of the default model on stays of this site.

    Windows, a vocabulary of the site's own and a store are made as in a study, and removed again.
    """
    import numpy as np
    import torch

    from hymate.data.batching import training_batches
    from hymate.data.meds import MedsDataset
    from hymate.data.statistics import code_statistics
    from hymate.data.store import prepare_store
    from hymate.data.tasks import cut_windows
    from hymate.data.vocabulary import build_vocabulary
    from hymate.model.hymate import build_model
    from hymate.train.loop import make_optimiser
    from hymate.train.objectives import classification_loss
    from hymate.train.scoring import labelled as labelled_rows

    dataset, config = MedsDataset.open(site.data), TaskConfig(name=task)
    began = time.perf_counter()
    windows = cut_windows(dataset, config)
    labelled = windows.stays.filter(windows.stays["split"] == "train")["label"].drop_nulls().drop_nans()
    if len(labelled) < max(2, site.policy.min_cell):
        yield fail(
            "training step",
            f"{plural(len(labelled), 'training stay')} with a label for {task}: a site below its minimum of "
            f"{site.policy.min_cell} does not train",
            "check labels and subject_splits with 'hymate data check'",
        )
        return
    statistics = code_statistics(windows, dataset.units(), site.policy.min_cell, site=site.name)
    vocabulary = build_vocabulary({site.name: statistics}, VocabularyConfig())
    with tempfile.TemporaryDirectory(dir=site.cache, prefix="check-") as folder:
        store = prepare_store(Path(folder) / "store", windows, vocabulary, config)
        prepared = time.perf_counter() - began
        rows = labelled_rows(store, "train")
        torch.set_num_threads(site.threads)
        model = build_model(
            ModelConfig(),
            codes=vocabulary.size,
            static_width=vocabulary.static_width,
            time_scale_hours=config.lookback_hours,
            seed=0,
        ).train()
        optimiser = make_optimiser(model, FinetuneConfig())
        batch = next(iter(training_batches(store, rows[:BATCH], BATCH, np.random.default_rng(0), 0.0)))
        seconds = []
        for _ in range(STEPS):
            began = time.perf_counter()
            optimiser.zero_grad()
            loss = classification_loss(model.classify(batch), batch.label, 1.0).mean()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            seconds.append(time.perf_counter() - began)
        del batch, store  # its arrays are mapped from the folder that goes
    step = min(seconds)
    epoch = step * math.ceil(len(rows) / BATCH)
    what = (
        f"{step:.3f} s for {min(BATCH, len(rows))} stays of {task}: about {epoch:.0f} s an epoch of "
        f"{plural(len(rows), 'stay')}; made ready in {prepared:.1f} s"
    )
    if epoch > LONG_EPOCH_S:
        yield warn(
            "training step", what, "raise `threads`, or have the study raise participation.deadline_minutes"
        )
    else:
        yield ok("training step", what)


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
