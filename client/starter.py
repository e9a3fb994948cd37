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
    try:
        write_text(path, text.replace("name: north\n", f"name: {name}\n").replace("north.key", f"{name}.key"))
    except OSError as fault:
        raise InputFault(
            folder, f"cannot be written to ({fault.strerror})", "choose another folder"
        ) from None
    return path
