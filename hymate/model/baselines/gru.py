"""GRU on an hourly table: values filled forward, masks, times since the last observation.

"GRU-Simple" of Che et al., arXiv 1606.01865, section 2.2 (https://arxiv.org/abs/1606.01865).

    x    (B, T, 3V)   [filled values, masks, times]     grid.py
    h    (B, d)       hidden state after the last interval

Departs from the paper: intervals of `bin_hours` in place of a step at every observation time, and no
dropout between steps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.baselines.baseline import Baseline
from hymate.model.baselines.grid import grid_features, grid_of, intervals
from hymate.model.dropout import Dropout

if TYPE_CHECKING:  # a machine with torch alone has no pydantic, and the model needs none
    from hymate.model.config import GRUConfig


class GRU(Baseline):
    """One layer; the last hidden state is the stay."""

    can_forecast = False
    config: GRUConfig

    def __init__(self, config: GRUConfig, codes: int, static_width: int, time_scale_hours: float) -> None:
        super().__init__(config, codes, static_width, config.d_model)
        self.time_scale_hours = time_scale_hours
        self.steps = intervals(time_scale_hours, config.bin_hours)
        self.gru = nn.GRU(3 * codes, config.d_model, batch_first=True)
        self.dropout = Dropout(config.dropout)

    def summarise(self, batch: TripletBatch) -> Tensor:
        """-> (B, d)."""
        grid = grid_of(batch, self.codes, self.steps, self.config.bin_hours)
        _, h = self.gru(grid_features(grid, self.time_scale_hours))  # (1, B, d)
        last: Tensor = self.dropout(h[0])
        return last
