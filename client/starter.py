"""A site file to begin with."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

import yaml

from client.site import SiteConfig
from hymate.config import parse
from hymate.durable import write_text
from hymate.errors import InputFault


def write_site_file(folder: Path, filled: Mapping[str, str] | None = None) -> Path:
    """Write `site.yaml` into `folder`, named after it.

    Args:
        filled: values for keys of the example (`data`, `address`, `ca`, `health_address`), in place of
            what is marked FILL IN there.

    Raises:
        InputFault: the file exists, the folder cannot be written to, or a value cannot be used.
    """
    path = folder / "site.yaml"
    if path.exists():
        raise InputFault(path, "exists already", "edit it, or choose another folder")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "site"
    text = (files("deploy") / "configs" / "site.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^name: north\b", f"name: {name}", text, flags=re.MULTILINE)
    text = re.sub(r"^(key: .*)$", lambda line: line[1].replace("north", name), text, flags=re.MULTILINE)
    text = text.replace("FILL IN: as the study", "the folder's name; as the study", 1)
    for key, value in (filled or {}).items():
        written = _written(value).replace("\\", r"\\")
        text = re.sub(rf"^( *{key}:).*$", rf"\g<1> {written}", text, flags=re.MULTILINE)
    parse(SiteConfig, yaml.safe_load(text), path)
    try:
        write_text(path, text)
    except OSError as fault:
        raise InputFault(
            folder, f"cannot be written to ({fault.strerror})", "choose another folder"
        ) from None
    return path


def _written(value: str) -> str:
    """A string as YAML; in quotes only where it needs them."""
    return value if re.fullmatch(r"[A-Za-z0-9_./:-]+", value) else json.dumps(value, ensure_ascii=False)
