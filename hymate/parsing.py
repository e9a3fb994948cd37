"""From a YAML file to a frozen configuration, and from whatever is wrong in it to one line that says file,
key, problem and remedy."""

from __future__ import annotations

import difflib
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, Tag, ValidationError
from pydantic.fields import FieldInfo

from hymate.errors import InputFault


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; a missing file, broken YAML or another shape is one `InputFault`."""
    if path.is_dir():
        raise InputFault(path, "is a folder", "name the file in it")
    if not path.is_file():
        raise InputFault(path, "no such file", "check the path given")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as fault:
        mark = getattr(fault, "problem_mark", None)
        line = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(fault, "problem", None) or "not readable as text"
        raise InputFault(path, f"{line}{problem}", "correct the YAML there") from None
    if not isinstance(content, dict):
        raise InputFault(path, "holds no 'key: value' mapping", "start from a file in deploy/configs/")
    return content


Config = TypeVar("Config", bound=BaseModel)


def parse(kind: type[Config], content: dict[str, Any], source: str | Path) -> Config:
    """Validate `content` as `kind`; the first fault becomes one `InputFault` naming source and key."""
    try:
        return kind.model_validate(content)
    except ValidationError as invalid:
        # A misspelt key explains a missing one, not the other way round.
        faults = sorted(invalid.errors(), key=lambda fault: fault["type"] != "extra_forbidden")
        places = [_place(kind, fault["loc"])[1] for fault in faults]
        # Of a value that may be of several kinds, the kind that was read furthest is the one that was meant.
        place = max((each for each in places if each[: len(places[0])] == places[0]), key=len)
        here = [fault for fault, each in zip(faults, places, strict=True) if each == place]
        what, remedy = _explain(kind, here, ".".join(str(part) for part in place))
        others = len({each for each in places if each != place[: len(each)]})
        more = f" ({others} more after this one)" if others else ""
        raise InputFault(source, what, remedy + more) from None


def _explain(kind: type[BaseModel], faults: list[Any], key: str) -> tuple[str, str]:
    """What is wrong and what to do, for the pydantic errors of one key: several where it may be of several
    kinds."""
    fault = faults[0]
    if fault["type"] == "extra_forbidden":
        parent, _ = _place(kind, fault["loc"][:-1])
        known = sorted(_keys(parent)) if parent else []
        near = difflib.get_close_matches(str(fault["loc"][-1]), known, n=1)
        remedy = f"did you mean '{near[0]}'?" if near else f"known here: {', '.join(known) or 'none'}"
        return f"key '{key}' does not exist", remedy
    if fault["type"] == "missing":
        return f"key '{key}' is missing", "add it"
    if fault["type"] == "union_tag_not_found":
        missing = fault["ctx"]["discriminator"].strip("'")
        return f"key '{key}.{missing}' is missing", "add it"
    messages = [each["msg"].removeprefix("Value error, ") for each in faults]
    message = ", or ".join([messages[0], *(each.removeprefix("Input should be ") for each in messages[1:])])
    where = f"key '{key}': " if key else ""
    given = fault.get("input")
    shown = f" (given: {given!r})" if isinstance(given, str | int | float | bool) else ""
    return f"{where}{message}{shown}", "correct the value"


def _place(
    kind: type[BaseModel], location: tuple[int | str, ...]
) -> tuple[type[BaseModel] | None, tuple[int | str, ...]]:
    """The pydantic model that a fault's location ends in, and the location as the file has it.

    pydantic puts the tag or kind of a union's branch between two keys, and `[key]` behind one; no file has
    them.
    """
    current: Any = kind
    keys: list[int | str] = []
    for part in location:
        branch = _branch(current, part)
        if branch is not None:
            current = branch
            continue
        if _untagged(current):
            named = [member for member in get_args(current) if getattr(member, "__name__", "") == part]
            current = named[0] if named else None
            continue
        if part == "[key]":
            continue
        keys.append(part)
        model = _nested_model(current)
        fields = _keys(model) if model else {}
        if isinstance(part, str) and part in fields:  # else an index of a list or a key of a mapping
            current = fields[part].annotation
    return _nested_model(current), tuple(keys)


def _branch(annotation: Any, tag: int | str) -> Any | None:
    """The member of a union that `tag` stands for; None where the annotation is no such union."""
    for member in get_args(annotation):
        if any(isinstance(mark, Tag) and mark.tag == tag for mark in get_args(member)[1:]):
            return member
    models = _models(annotation)
    said = (model for model in models for field in model.model_fields.values() if _says(field, tag))
    return next(said, None) if len(models) > 1 else None


def _says(field: FieldInfo, tag: int | str) -> bool:
    """Whether this field tells a model of a union from the others by this word."""
    return get_origin(field.annotation) is Literal and get_args(field.annotation) == (tag,)


def _untagged(annotation: Any) -> bool:
    """Whether pydantic says of a value at fault of which of several kinds it was taken to be."""
    kinds = [member for member in get_args(annotation) if member is not NoneType]
    tagged = any(isinstance(mark, Tag) for member in kinds for mark in get_args(member)[1:])
    return get_origin(annotation) in (Union, UnionType) and len(kinds) > 1 and not tagged


def _keys(kind: type[BaseModel]) -> dict[str, FieldInfo]:
    """The model's fields by the name a file gives them."""
    return {field.alias or name: field for name, field in kind.model_fields.items()}


def _nested_model(annotation: Any) -> type[BaseModel] | None:
    return next(iter(_models(annotation)), None)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The pydantic models that a value of this annotation may be, or hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in get_args(annotation) for model in _models(argument)]
