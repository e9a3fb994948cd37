"""A site file to begin with."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

from hymate.durable import write_text
from hymate.errors import InputFault


def write_site_file(folder: Path) -> Path:
    """Write `site.yaml` into `folder`, named after it; an existing file is an `InputFault`."""
    path = folder / "site.yaml"
    if path.exists():
        raise InputFault(path, "exists already", "edit it, or choose another folder")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.resolve().name).strip("-_") or "site"
    text = (files("deploy") / "configs" / "site.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^name: north\b", f"name: {name}", text, flags=re.MULTILINE)
    text = re.sub(r"^(key: .*)$", lambda line: line[1].replace("north", name), text, flags=re.MULTILINE)
    try:
        write_text(path, text)
    except OSError as fault:
        raise InputFault(
            folder, f"cannot be written to ({fault.strerror})", "choose another folder"
        ) from None
    return path
