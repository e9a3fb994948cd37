"""Options that several commands of `hymate` have, and the stream on which they tell what they do."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

Json = Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object and nothing else.")]
Model = Annotated[
    Path,
    typer.Option(
        "--model", help="Run directory of `hymate train` or of a federated study.", show_default=False
    ),
]
Data = Annotated[Path, typer.Option("--data", help="Folder of a MEDS data set.", show_default=False)]


class Split(StrEnum):
    """MEDS' splits."""

    train = "train"
    tuning = "tuning"
    held_out = "held_out"


def notes_console() -> Console:
    """stderr: figures alone go to stdout."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
