"""A checkpoint is whole or absent, fits its model or is refused, and leaves no trace of a refusal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.train.checkpoint import (
    load_checkpoint,
    load_optimiser,
    load_weights,
    save_checkpoint,
    save_optimiser,
    save_weights,
)
from hymate.train.loop import finetune_epochs, make_optimiser
from tests.hymate.train.planted import FINETUNE, MODEL, new_model, planted_store


def trained(seed: int = 0) -> tuple[HyMaTE, torch.optim.AdamW]:
    model = new_model(seed)
    optimiser = make_optimiser(model, FINETUNE)
    finetune_epochs(
        model,
        planted_store(),
        FINETUNE,
        optimiser,
        positive_weight=1.0,
        seed=seed,
        first_epoch=0,
        epochs=1,
    )
    return model, optimiser


def moments(model: HyMaTE, optimiser: torch.optim.AdamW) -> dict[str, torch.Tensor]:
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        f"{names[id(p)]}/{slot}": torch.as_tensor(value).clone()
        for p, slots in optimiser.state.items()
        for slot, value in slots.items()
    }


def test_everything_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "last.safetensors"
    model, optimiser = trained()
    state = {"round": 7, "best": 0.25, "note": "ü", "history": [1, None]}
    save_checkpoint(path, model, optimiser, state)
    other = new_model(seed=3)
    its = make_optimiser(other, FINETUNE.model_copy(update={"learning_rate": 0.123}))
    assert load_checkpoint(path, other, its) == state
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name])
    expected, found = moments(model, optimiser), moments(other, its)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert any("forecast_head" in name for name in model.state_dict())
    assert not any("forecast_head" in key for key in found)  # fine-tuning does not use it
    assert [group["lr"] for group in its.param_groups] == [0.123, 0.123]  # the configuration's


def test_weights_and_optimiser_may_lie_apart(tmp_path: Path) -> None:
    model, optimiser = trained()
    save_weights(tmp_path / "w", model, {"vocabulary": "abc"})
    save_optimiser(tmp_path / "o", model, optimiser)
    other = new_model(seed=3)
    its = make_optimiser(other, FINETUNE)
    assert load_weights(tmp_path / "w", other) == {"vocabulary": "abc"}
    load_optimiser(tmp_path / "o", other, its)
    expected, found = moments(model, optimiser), moments(other, its)
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    with pytest.raises(InputFault, match="not as in this model"):
        load_weights(tmp_path / "o", other)
    with pytest.raises(InputFault, match="holds no optimiser state"):
        load_optimiser(tmp_path / "w", other, its)


def test_moments_go_by_name_not_by_position(tmp_path: Path) -> None:
    """An optimiser that lists the parameters in another order gets each its own moments."""
    model, optimiser = trained()
    save_optimiser(tmp_path / "o", model, optimiser)
    backwards = make_optimiser(model, FINETUNE)
    for group in backwards.param_groups:
        group["params"].reverse()
    load_optimiser(tmp_path / "o", model, backwards)
    expected, found = moments(model, optimiser), moments(model, backwards)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_loading_forgets_what_the_optimiser_knew(tmp_path: Path) -> None:
    model, optimiser = trained()
    save_optimiser(tmp_path / "fresh", model, make_optimiser(model, FINETUNE))
    load_optimiser(tmp_path / "fresh", model, optimiser)
    assert not optimiser.state


def test_weights_without_optimiser_are_no_checkpoint(tmp_path: Path) -> None:
    """Refused before anything is loaded: half a checkpoint would train on with wrong moments."""
    save_weights(tmp_path / "w", new_model(seed=3))
    model, optimiser = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(InputFault, match="holds no optimiser state"):
        load_checkpoint(tmp_path / "w", model, optimiser)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_optimiser_state_of_another_shape_is_refused(tmp_path: Path) -> None:
    wide = MODEL.model_copy(update={"expand": 4})
    wider = new_model(config=wide)
    its = make_optimiser(wider, FINETUNE)
    for parameter in wider.parameters():
        parameter.grad = torch.ones_like(parameter)
    its.step()
    save_optimiser(tmp_path / "o", wider, its)
    model, optimiser = trained()
    with pytest.raises(InputFault, match=r"optimiser state of 'mamba\.0.* does not fit"):
        load_optimiser(tmp_path / "o", model, optimiser)


def damaged(content: bytes, kind: str) -> bytes:
    middle = len(content) // 2
    return {
        "cut": content[:middle],
        "empty": b"",
        "noise": np.random.default_rng(0).bytes(500),
        "header": content[:20] + b"\xff" + content[21:],
    }[kind]


@pytest.mark.parametrize("kind", ["cut", "empty", "noise", "header"])
def test_a_damaged_file_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "last.safetensors"
    model, optimiser = trained()
    save_checkpoint(path, model, optimiser)
    path.write_bytes(damaged(path.read_bytes(), kind))
    with pytest.raises(InputFault, match=r"last\.safetensors: is damaged"):
        load_checkpoint(path, model, optimiser)


def test_foreign_and_missing_files_are_refused(tmp_path: Path) -> None:
    model, optimiser = trained()
    with pytest.raises(InputFault, match="no such file"):
        load_weights(tmp_path / "none", model)
    save_file({"weights/x": torch.zeros(3)}, tmp_path / "foreign")
    with pytest.raises(InputFault, match="no checkpoint of this program"):
        load_checkpoint(tmp_path / "foreign", model, optimiser)


def test_another_models_file_changes_nothing(tmp_path: Path) -> None:
    wider = new_model(config=MODEL.model_copy(update={"d_static": 8}))
    save_checkpoint(tmp_path / "wider", wider, make_optimiser(wider, FINETUNE))
    deeper = new_model(config=MODEL.model_copy(update={"mamba_blocks": 2}))
    save_checkpoint(tmp_path / "deeper", deeper, make_optimiser(deeper, FINETUNE))
    model, optimiser = trained()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = moments(model, optimiser)
    for name, first in (("wider", "classification_head.out.weight"), ("deeper", r"mamba\.1")):
        with pytest.raises(InputFault, match=first):
            load_checkpoint(tmp_path / name, model, optimiser)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    found = moments(model, optimiser)
    assert all(torch.equal(expected[key], found[key]) for key in expected)


def test_a_new_file_takes_the_old_ones_place_in_one_step(tmp_path: Path) -> None:
    """Whoever holds the old file open goes on reading the old one: it is replaced, not overwritten."""
    path = tmp_path / "last.safetensors"
    save_weights(path, new_model(), {"round": 1})
    (tmp_path / "held").hardlink_to(path)
    save_weights(path, new_model(seed=5), {"round": 2})
    assert load_weights(tmp_path / "held", new_model()) == {"round": 1}
    assert load_weights(path, new_model()) == {"round": 2}


def test_an_interrupted_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.safetensors"
    model, _ = trained()
    save_weights(path, model, {"round": 1})
    old = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_weights(path, new_model(seed=5), {"round": 2})
    assert path.read_bytes() == old
    assert [file.name for file in tmp_path.iterdir()] == [path.name]
