"""Several models of one kind as one: what it says is the mean of what they say.

Members differ by their seed alone. Their mean is steadier than any of them, and usually better: the
errors that come from the draw of first weights and batches cancel (Lakshminarayanan et al., arXiv
1612.01474).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.sequence_model import SequenceModel


class Ensemble(SequenceModel):
    """`of_probabilities`: their mean, as log odds; else, of a number, the mean of the outputs."""

    def __init__(self, members: Sequence[SequenceModel], *, of_probabilities: bool = True) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        self.of_probabilities = of_probabilities
        self.value_clip = members[0].value_clip

    def classify(self, batch: TripletBatch) -> Tensor:
        """-> logits (B,) or (B, K)."""
        said = torch.stack([member(batch) for member in self.members])
        if not self.of_probabilities:
            return said.mean(dim=0)
        # log of the mean of p, less that of 1 - p; the number of members cancels.
        logits: Tensor = F.logsigmoid(said).logsumexp(dim=0) - F.logsigmoid(-said).logsumexp(dim=0)
        return logits

    def forecast(self, batch: TripletBatch) -> Tensor:
        """-> (B, V + 1), the members' mean."""
        forecasts = [member.forecast(batch) for member in self.members if isinstance(member, SequenceModel)]
        return torch.stack(forecasts).mean(dim=0)
