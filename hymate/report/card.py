"""The model card's words that no run can know: what the model is for, and answers to TRIPOD+AI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field, field_validator

from hymate.config import Frozen, load_yaml, parse
from hymate.report.tripod import ITEMS

NAME = "model_card.yaml"


class ModelCard(Frozen):
    """`model_card.yaml` in the run directory; written by the study team, every key may be missing."""

    intended_use: str = ""
    """For whom, by whom, at which moment of care, and what follows from a high score."""
    not_for: str = ""
    """Uses for which the model was not made."""
    contact: str = ""
    tripod: dict[Annotated[str, BeforeValidator(str)], str] = Field(default_factory=dict)
    """Item of TRIPOD+AI (as `3a`; `17` is a number to YAML) -> answer; goes before what the run says."""

    @field_validator("tripod")
    @classmethod
    def _items_exist(cls, tripod: dict[str, str]) -> dict[str, str]:
        known = {item.number for item in ITEMS}
        unknown = sorted(set(tripod) - known)
        if unknown:
            raise ValueError(f"{', '.join(unknown)}: no item of TRIPOD+AI; items are 1, 2, 3a ... 27c")
        return tripod


def read_card(run: Path) -> ModelCard:
    """Raises: InputFault: a file that is not as said above."""
    path = run / NAME
    return parse(ModelCard, load_yaml(path), path) if path.is_file() else ModelCard()
