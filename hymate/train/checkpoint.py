"""Weights and optimiser state on disk: one file, whole or absent.

A file is safetensors: named float arrays, and a header of strings that holds what is no array, as
JSON. Reading one runs no code of whoever wrote it (a pickle does). Arrays are named by parameter,
not by position, so a state belongs to names and shapes:

    weights/<parameter>
    optimiser/<parameter>/<exp_avg | exp_avg_sq | step>
    kept/<name>/<parameter>                 further sets of weights, such as the best so far

Learning rate and other settings are not kept: they come from the configuration, which may have
changed since.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from hymate.durable import write_bytes
from hymate.errors import InputFault

FORMAT = "hymate-checkpoint-1"


def save_weights(path: Path, model: nn.Module, state: Mapping[str, Any] | None = None) -> None:
    """Write the model's weights, and `state` (anything JSON holds) beside them."""
    _write(path, _weights(model), {"state": dict(state or {})})


def load_weights(path: Path, model: nn.Module) -> dict[str, Any]:
    """Put the file's weights into `model`; returns its `state`. `InputFault` leaves the model as it was."""
    arrays, header = _read(path)
    _load_weights(path, arrays, model)
    return _state(header)


def save_optimiser(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Write AdamW's moments and step counts by parameter name."""
    _write(path, _optimiser(model, optimiser), {"optimiser": True})


def load_optimiser(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Put the file's moments and steps into `optimiser`, which holds `model`'s parameters.

    Raises `InputFault` as `load_checkpoint` does, and leaves the optimiser as it was then.
    """
    arrays, header = _read(path)
    _fill(model, optimiser, _slots(path, arrays, header, model))


def save_checkpoint(
    path: Path,
    model: nn.Module,
    optimiser: torch.optim.Optimizer,
    state: Mapping[str, Any] | None = None,
    kept: Mapping[str, Mapping[str, Tensor]] | None = None,
) -> None:
    """Write weights, optimiser and `state` (anything JSON holds) as one file: they belong together.

    `kept` names further sets of weights (the best so far, a running mean) that belong to them too.
    """
    arrays = _weights(model) | _optimiser(model, optimiser)
    for name, weights in (kept or {}).items():
        arrays |= {f"kept/{name}/{parameter}": tensor for parameter, tensor in weights.items()}
    _write(path, arrays, {"state": dict(state or {}), "optimiser": True})


def load_checkpoint(path: Path, model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Any]:
    """Restore what `save_checkpoint` wrote; returns `state`.

    Raises `InputFault` for a missing, corrupt or foreign file, or one of another model.
    """
    arrays, header = _read(path)
    slots = _slots(path, arrays, header, model)
    _load_weights(path, arrays, model)
    _fill(model, optimiser, slots)
    return _state(header)


def save_arrays(path: Path, arrays: Mapping[str, Tensor]) -> None:
    """Write arrays by name that belong to no model."""
    _write(path, {name: tensor.detach() for name, tensor in arrays.items()}, {})


def load_arrays(path: Path) -> dict[str, Tensor]:
    """What `save_arrays` wrote; `InputFault` as `load_checkpoint`."""
    return _read(path)[0]


def read_state(path: Path) -> dict[str, Any]:
    """The file's `state` alone; `InputFault` as `load_checkpoint`."""
    return _state(_read(path)[1])


def read_kept(path: Path, name: str) -> dict[str, Tensor]:
    """The set of weights that `save_checkpoint` was given as `kept[name]`; empty where there was none."""
    arrays, _ = _read(path)
    prefix = f"kept/{name}/"
    return {key.removeprefix(prefix): tensor for key, tensor in arrays.items() if key.startswith(prefix)}


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {f"weights/{name}": tensor.detach() for name, tensor in model.state_dict().items()}


def _optimiser(model: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    name_of = {id(parameter): name for name, parameter in model.named_parameters()}
    return {
        f"optimiser/{name_of[id(parameter)]}/{slot}": torch.as_tensor(value)
        for parameter, slots in optimiser.state.items()
        for slot, value in slots.items()
    }


def _load_weights(path: Path, arrays: Mapping[str, Tensor], model: nn.Module) -> None:
    found = {name.removeprefix("weights/"): x for name, x in arrays.items() if name.startswith("weights/")}
    expected = model.state_dict()
    wrong = sorted(set(found) ^ set(expected)) or sorted(
        name for name in found if found[name].shape != expected[name].shape
    )
    if wrong:
        raise InputFault(
            path,
            f"'{wrong[0]}' is not as in this model",
            "use the file that belongs to this model's configuration",
        )
    model.load_state_dict(found)


def _slots(
    path: Path, arrays: Mapping[str, Tensor], header: Mapping[str, Any], model: nn.Module
) -> dict[str, dict[str, Tensor]]:
    """The file's optimiser state by parameter, once it is known to fit the model."""
    if not header.get("optimiser"):
        raise InputFault(path, "holds no optimiser state", "start the phase anew")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    slots: dict[str, dict[str, Tensor]] = {}
    for key, tensor in arrays.items():
        if not key.startswith("optimiser/"):
            continue
        _, name, slot = key.split("/")
        if name not in shapes or (slot != "step" and tensor.shape != shapes[name]):
            raise InputFault(
                path, f"optimiser state of '{name}' does not fit this model", "start the phase anew"
            )
        slots.setdefault(name, {})[slot] = tensor
    return slots


def _fill(
    model: nn.Module, optimiser: torch.optim.Optimizer, slots: Mapping[str, Mapping[str, Tensor]]
) -> None:
    optimiser.state.clear()
    for name, parameter in model.named_parameters():
        if name in slots:
            optimiser.state[parameter] = {
                slot: tensor if slot == "step" else tensor.to(parameter.device)
                for slot, tensor in slots[name].items()
            }


def _state(header: Mapping[str, Any]) -> dict[str, Any]:
    state: dict[str, Any] = header.get("state", {})
    return state


def _write(path: Path, arrays: Mapping[str, Tensor], header: Mapping[str, Any]) -> None:
    content = save(
        {name: tensor.cpu().contiguous() for name, tensor in arrays.items()},
        # One key: safetensors writes several in no fixed order, and equal weights are to be equal files.
        metadata={"header": json.dumps({"format": FORMAT, **header})},
    )
    write_bytes(path, content)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    if not path.is_file():
        raise InputFault(path, "no such file", "check the path given")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        header: dict[str, Any] = json.loads(metadata.get("header", "{}"))
        if header.get("format") != FORMAT:
            raise InputFault(path, "is no checkpoint of this program", f"expected format {FORMAT}")
    except (SafetensorError, OSError, KeyError, ValueError):
        raise InputFault(
            path, "is damaged, or no checkpoint", "restore it from a copy, or start anew"
        ) from None
    return arrays, header
