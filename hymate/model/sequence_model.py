"""What training, scoring and prediction ask of a model: HyMaTE and every neural baseline are one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor, nn

from hymate.data.batching import TripletBatch


class SequenceModel(nn.Module, ABC):
    """Reads stays as triplets. Padding never changes a result: a stay's output is the same in any batch."""

    can_forecast: ClassVar[bool] = True
    """Whether the model can be pretrained by masked forecasting."""
    value_clip: float | None = None
    """Size of z-score beyond which the model takes no value, and is not asked to forecast any."""

    @abstractmethod
    def classify(self, batch: TripletBatch) -> Tensor:
        """-> logits (B,)."""

    @abstractmethod
    def forecast(self, batch: TripletBatch) -> Tensor:
        """-> (B, V + 1): each code's first value after the batch's last observation, as z-score.

        Raises `InputFault` where `can_forecast` is False.
        """

    def forward(self, batch: TripletBatch) -> Tensor:
        """The same as `classify`."""
        return self.classify(batch)

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())
