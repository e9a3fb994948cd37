"""`--set KEY=VALUE`: one key of a configuration file changed from the command line."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import yaml

from hymate.errors import InputFault


def apply_overrides(content: dict[str, Any], overrides: Iterable[str]) -> None:
    """Change `content` in place; values are YAML, sections are made where they are missing.

    >>> content = {"finetune": {"rounds": 10}}
    >>> apply_overrides(content, ["finetune.rounds=3", "evaluation.splits=[tuning]"])
    >>> content
    {'finetune': {'rounds': 3}, 'evaluation': {'splits': ['tuning']}}

    Raises:
        InputFault: not KEY=VALUE, a value that is no YAML, or a key inside something that is no section.
    """
    for override in overrides:
        _apply(content, override)


def _apply(content: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise InputFault(f"--set {override}", "is not KEY=VALUE", "for example --set finetune.rounds=3")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise InputFault(f"--set {override}", "the value is not YAML", "quote it") from None
    inner = content
    for part in parts[:-1]:
        step = inner.setdefault(part, {})
        if not isinstance(step, dict):
            raise InputFault(f"--set {override}", f"'{part}' is not a section", "name a key inside a section")
        inner = step
    inner[parts[-1]] = value
