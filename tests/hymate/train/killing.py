"""A training that is killed, and goes on: run by `test_resume.py` on its own.

    python -m tests.hymate.train.killing FOLDER     prints one JSON object

Every training is the real command in a forked process, killed by SIGKILL. The parent runs neither torch
nor polars: their threads do not survive a fork.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
import torch.utils.tensorboard

from hymate import durable
from hymate.cli import app
from hymate.command import run_command
from hymate.train import centralised, checkpoint
from hymate.train.config import load_train_config
from hymate.train.progress import Display  # noqa: F401  (as above)

FILE = """
name: killed
data: {data}
model: {{d_model: 16, mamba_blocks: 1, d_state: 4, attention_heads: 2, d_static: 4}}
pretrain: {{rounds: 3, variable_dropout: 0.2}}
finetune: {{rounds: 5, learning_rate: 2.0e-3, variable_dropout: 0.2, patience: 9}}
evaluation: {{bootstrap: 0}}
"""
ROUNDS = 8


def hymate(*arguments: object) -> int:
    return run_command(app, "hymate", [str(argument) for argument in arguments])


def in_child(work: Callable[[], object]) -> int:
    """Start `work` in a process of its own, as quiet as it is."""
    child = os.fork()
    if child == 0:
        try:
            torch.set_num_threads(1)
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return child


def finished(child: int) -> None:
    assert os.waitpid(child, 0)[1] == 0


def train(run: Path) -> None:
    assert hymate("train", "--out", run, "--resume", "--json") == 0


def rounds(run: Path) -> int:
    """Lines of rounds that the run has written so far."""
    path = run / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def kill_at(run: Path, number: int, share: float) -> bool:
    """Kill a training `share` of a round after it has told of its round `number`; False: it was faster."""
    child = in_child(lambda: train(run))
    while rounds(run) < number and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.002)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    time.sleep(share * lines[-1]["seconds"])
    try:
        os.kill(child, signal.SIGKILL)
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    except (ProcessLookupError, ChildProcessError):
        return False


def kill_in_write(run: Path, number: int) -> bool:
    """Kill a training in the middle of writing its state for the `number`th time."""

    def work() -> None:
        calls = iter(range(number))

        def cut_short(path: Path, content: bytes) -> None:
            if path.name == "state.safetensors" and next(calls) == number - 1:
                path.with_name(f".{path.name}.part").write_bytes(content[: len(content) // 2])
                os.kill(os.getpid(), signal.SIGKILL)
            durable.write_bytes(path, content)

        checkpoint.write_bytes = cut_short  # type: ignore[attr-defined]
        train(run)

    return os.WIFSIGNALED(os.waitpid(in_child(work), 0)[1])


def outcome(run: Path) -> dict[str, object]:
    """What must be the same after a kill: the weights, and every round told once."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    report = json.loads((run / "report.json").read_text())
    return {
        "weights": (run / "model" / "weights.safetensors").read_bytes().hex(),
        "pretrained": (run / "pretrained" / "weights.safetensors").read_bytes().hex(),
        "rounds": [(line["phase"], line["round"], line["loss"]) for line in lines],
        "figures": report["evaluation"],
        "kept": report["finetuning"],
        "left": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }


def main() -> None:
    folder = Path(sys.argv[1])
    file = folder / "train.yaml"
    file.write_text(FILE.format(data="cohort/hospital_1"))
    finished(
        in_child(
            lambda: hymate("data", "synthetic", "--out", folder / "cohort", "--hospitals", 1, "--stays", 90)
        )
    )
    finished(in_child(lambda: centralised.start(folder / "begun", load_train_config(file))))
    whole = folder / "whole"
    shutil.copytree(folder / "begun", whole)
    finished(in_child(lambda: train(whole)))
    expected = outcome(whole)

    moments = random.Random(0)
    kills: dict[str, Callable[[Path], bool]] = {
        f"random point {i}": partial(kill_at, number=moments.randint(1, ROUNDS - 2), share=moments.random())
        for i in range(3)
    }
    kills["in the middle of writing"] = partial(kill_in_write, number=5)
    result = {}
    for name, kill in kills.items():
        run = folder / name.replace(" ", "-")
        shutil.copytree(folder / "begun", run)
        killed = kill(run)
        report_there = (run / "report.json").exists()
        finished(in_child(partial(train, run)))
        found = outcome(run)
        result[name] = {
            "killed": killed and not report_there,
            "different": sorted(key for key in expected if found[key] != expected[key]),
        }
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main()
