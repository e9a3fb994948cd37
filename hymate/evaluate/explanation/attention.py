"""Fusion attention's weights: where the model read when it pooled a stay to one vector.

Caveat, to be shown wherever the weights are: by then the Mamba blocks and the self-attention layers have
mixed every observation with the others, so a weight belongs to a *place* in the record, not to the
observation that stands there; it has no sign, and high weight is no proof of effect (Jain and Wallace
2019, arXiv 1902.10186; Wiegreffe and Pinter 2019, arXiv 1908.04626, on what it does and does not say).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.evaluate.explanation.pathway import members_of
from hymate.model.attention import FusionAttention
from hymate.model.sequence_model import SequenceModel

CAVEAT = (
    "Attention says where the model read, not why: before fusion attention, Mamba blocks and "
    "self-attention have mixed each observation with the others, so the weight belongs to a place in the "
    "record rather than to the observation there, and it has no direction."
)


def fusion_weights(model: SequenceModel, batch: TripletBatch) -> NDArray[np.float64] | None:
    """(B, L), each row's sum 1 (0 without observations); of an ensemble, the members' mean.

    None where the model has no fusion attention.
    """
    found = [_weights(member, batch) for member in members_of(model)]
    known = [each for each in found if each is not None]
    if len(known) < len(found):
        return None
    mean: NDArray[np.float64] = np.mean(known, axis=0)
    return mean


def _weights(model: SequenceModel, batch: TripletBatch) -> NDArray[np.float64] | None:
    fusion = getattr(model, "fusion", None)
    if not isinstance(fusion, FusionAttention):
        return None
    seen: list[tuple[Tensor, Tensor]] = []

    def keep(_: Any, inputs: tuple[Tensor, Tensor]) -> None:
        seen.append(inputs)

    handle = fusion.register_forward_pre_hook(keep)
    try:
        with torch.no_grad():
            model.classify(batch)
            weights = fusion.weights(*seen[-1])
    finally:
        handle.remove()
    found: NDArray[np.float64] = weights.double().cpu().numpy()
    return found
