"""What most parts of `report.json` are made of: figures with bound and interval, of named stays."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import Estimate

Figures = dict[str, Estimate | None]
"""By name (`hymate.evaluate.federated.NAMES`); null: these stays do not define it."""
Comparisons = dict[str, Comparison | None]


class Content(BaseModel):
    """A part of the report. Unknown keys are ignored: a newer coordinator may say more."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)


class Described(Content):
    """How well a model does on some stays."""

    n: int | None
    """Stays; null: too few to tell."""
    positives: int | None
    figures: Figures | None
    """Null: the site told too little."""
    note: str
    """Why figures are missing; "" where none is."""

    def figure(self, name: str) -> Estimate | None:
        """The named figure, where there is one."""
        return None if self.figures is None else self.figures.get(name)
