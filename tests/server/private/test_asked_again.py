"""A round with noise that is asked again: the same bits for nothing, or another round."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Message, RecordDict
from safetensors import safe_open
from safetensors.torch import save

from client.site_secret import FILE as SECRET
from client.solved_noise import FILE as SOLVED
from client.solved_noise import solved_noise
from hymate.protocol import FinetuneRequest, TrainReply
from hymate.train.checkpoint import load_arrays
from strategies.wire import CONFIG, pack, unpack, unpack_weights
from tests.server.private.asking import (
    FINETUNE,
    NOISE,
    PRETRAIN,
    ROUNDS,
    SITES,
    ask_again,
    asked,
    bits,
    charged,
    replies,
    site_of,
)
from tests.server.studies import Broken, Study, breaks_after


@pytest.mark.parametrize("action", [PRETRAIN, FINETUNE])
def test_asked_again_a_round_has_the_same_bits_and_costs_nothing(action: str, done: Study) -> None:
    before = charged(done)
    again = ask_again(done, asked(done, action))
    first = [reply for reply in replies(done, action) if unpack(reply.content, TrainReply).site == SITES[0]]
    assert bits(again) in [bits(reply) for reply in first]
    assert charged(done) == before


def changed(
    message: Message, kind: Any, weights: Callable[[Any], Any] = lambda arrays: arrays, **update: Any
) -> RecordDict:
    request = unpack(message.content, kind).model_copy(update=update)
    return pack(request, weights(unpack_weights(message.content)))


def _numbers(array: Any) -> Any:
    return np.asarray(array, np.float64)


def test_with_other_weights_or_on_another_backend_it_is_another_round(
    done: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same noise over other bits would show a little of what it covers."""
    before, message = len(charged(done)), asked(done, FINETUNE)

    def moved(arrays: dict[str, Any]) -> dict[str, Any]:
        """One number of one layer: nothing of what comes beside the weights."""
        own = {name: np.array(array) for name, array in arrays.items()}
        own["norm.weight"][0] += 1e-6
        return own

    first = unpack_weights(ask_again(done, message).content)
    second = unpack_weights(ask_again(done, message, changed(message, FinetuneRequest, moved)).content)
    assert len(charged(done)) == before + 1
    monkeypatch.setenv("HYMATE_SCAN", "torch")
    third = unpack_weights(ask_again(done, message).content)
    assert len(charged(done)) == before + 2
    for other in (second, third):  # fresh noise moves far more than what was changed
        assert max(np.abs(_numbers(first[name]) - _numbers(other[name])).max() for name in first) > 1e-4


@pytest.mark.parametrize("part", ["layers/", "algorithm/", "norm/", "optimiser/", "residual/"])
def test_with_anything_else_that_it_remembers_too(
    part: str, done: Study, hospitals: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"privacy": {**NOISE, "clipping": "adaptive"}}
    study = done
    if part == "residual/":
        study = Study(hospitals, tmp_path / "run")
        study.run(rounds=ROUNDS, strategy={"compression": ["delta", "top_k"]}, **settings)
    before, message = charged(study), asked(study, FINETUNE)
    files = sorted(site_of(study).state.glob("small/*/finetune/*-00001.safetensors"))
    for path in files:
        whole = path.read_bytes()
        arrays = load_arrays(path)
        names = [name for name in arrays if name.startswith(part) and not name.endswith("/step")]
        if names:
            arrays[names[0]] = arrays[names[0]] + 1e-3
            with safe_open(path, "pt") as file:
                header = file.metadata()
            path.write_bytes(save(arrays, header))
            assert "TrainReply" in str(ask_again(study, message).content.config_records[CONFIG]["kind"])
            path.write_bytes(whole)
            break
    else:
        raise AssertionError(f"nothing is remembered of {part}")
    assert len(charged(study)) == len(before) + 1
    ask_again(study, message)
    assert len(charged(study)) == len(before) + 1


def test_a_study_that_broke_off_goes_on_to_the_same_bits_and_charges_no_round_twice(
    hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.run.secrets.token_hex", lambda length: "run")
    settings: dict[str, Any] = {"rounds": (2, 2), "privacy": NOISE}
    whole, broken = Study(hospitals, tmp_path / "whole"), Study(hospitals, tmp_path / "broken")
    for name in SITES:  # the same secrets, or their noise would differ
        for run in (whole, broken):
            state = site_of(run, name).state
            state.mkdir()
            (state / SECRET).write_bytes(name.encode().ljust(32))
            (state / SECRET).chmod(0o600)
    whole.run(**settings)
    for messages in (7, 3, 3):  # in a round whose first site has trained, and again
        with pytest.raises(Broken):
            broken.run(breaks_after(messages), **settings)
    broken.run(**settings)
    assert broken.bits() == whole.bits()
    for name in SITES:
        assert charged(broken, name) == charged(whole, name)
        assert len(charged(whole, name)) == 4


def test_noise_is_solved_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    site, planned, solved = site_of(study), [(0.5, 4), (0.25, 8)], []

    def solve(*asked: Any) -> float:
        solved.append(asked)
        return float(len(solved))

    monkeypatch.setattr("client.solved_noise.noise_for", solve)
    assert solved_noise(site, 5.0, 1e-5, planned) == 1.0
    assert solved_noise(site, 5.0, 1e-5, planned[::-1]) == 1.0
    assert solved_noise(site, 5.0, 1e-6, planned) == 2.0
    assert solved_noise(site, 4.0, 1e-5, planned) == 3.0
    assert solved_noise(site, 5.0, 1e-5, [*planned, (0.1, 1)]) == 4.0
    assert solved_noise(site, 5.0, 1e-5, planned) == 1.0
    (site.state / SOLVED).write_text("{")
    assert solved_noise(site, 5.0, 1e-5, planned) == 5.0
