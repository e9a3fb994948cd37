"""What one of Flower's strategies remembers, as arrays by name: whatever is in its `__dict__`.

Numbers, words, arrays, Flower's ArrayRecords, and lists, tuples and dicts of them, however deep. One array
of bytes holds the tree as JSON, in which a leaf says which other array it is; floats are written so that
they come back bit for bit. Functions are left out: they come from the constructor.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from hymate.errors import InputFault
from strategies.base import Arrays

TREE = "tree"


def captured(owner: object, name: str) -> Arrays:
    """All that `owner` remembers.

    Raises:
        InputFault: something that no checkpoint can hold.
    """
    arrays: Arrays = {}
    tree = {}
    for key, value in vars(owner).items():
        if callable(value):
            continue
        try:
            tree[key] = _written(value, arrays)
        except TypeError as fault:
            raise InputFault(
                "strategy", f"{name} keeps {fault} as '{key}', which no checkpoint holds", "take another one"
            ) from None
    words = json.dumps(tree).encode()
    return {TREE: np.frombuffer(words, np.uint8).copy(), **arrays}


def put_back(owner: object, state: Mapping[str, NDArray[np.generic]]) -> None:
    """Make `owner`, built by the same constructor, remember what `captured` wrote."""
    tree = json.loads(state[TREE].tobytes())
    vars(owner).update({key: _read(node, state) for key, node in tree.items()})


def _written(value: Any, arrays: Arrays) -> Any:
    """A node of the tree: [kind, content]."""
    if isinstance(value, np.ndarray | np.generic):  # before floats: numpy's are floats, too
        key = f"array-{len(arrays)}"
        arrays[key] = np.array(value, order="C")
        return ["array" if isinstance(value, np.ndarray) else "scalar", key]
    if value is None or isinstance(value, bool | int | float | str):
        return ["plain", value]
    if isinstance(value, ArrayRecord):
        return ["record", [[name, _written(array.numpy(), arrays)] for name, array in value.items()]]
    if type(value) is dict:
        return ["dict", [[_written(k, arrays), _written(v, arrays)] for k, v in value.items()]]
    if type(value) in (list, tuple):
        return [type(value).__name__, [_written(item, arrays) for item in value]]
    raise TypeError(type(value).__name__)


def _read(node: Any, state: Mapping[str, NDArray[np.generic]]) -> Any:
    kind, content = node
    if kind == "plain":
        return content
    if kind == "array":
        return np.array(state[content])
    if kind == "scalar":
        return state[content][()]
    if kind == "record":
        return ArrayRecord({name: Array(_read(array, state)) for name, array in content})
    if kind == "dict":
        return {_read(k, state): _read(v, state) for k, v in content}
    items = [_read(item, state) for item in content]
    return tuple(items) if kind == "tuple" else items
