"""What all sites of a sum compare: that each was asked the same, of the same weights, with the same others.

A coordinator that sends one site other weights than the rest could read its update out of the sum (Pasquini
et al. 2022, https://doi.org/10.1145/3548606.3560557).
"""

from __future__ import annotations

import hashlib

from hymate.protocol import PretrainRequest, RoundRequest
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_protocol import SharesRequest
from strategies.arrays import Weights
from strategies.wire import weights_digest

OWN = {"folded", "pretrained", "secure"}
"""Fields of a request in which sites differ."""


def purpose_of(request: RoundRequest | EvaluateRequest) -> str:
    """What a sum of answers to this request is of: one that was opened is opened for no other sites."""
    if isinstance(request, EvaluateRequest):
        return f"{request.split} {request.round}"
    return f"{'pretrain' if isinstance(request, PretrainRequest) else 'finetune'} {request.round}"


def work_digest(request: RoundRequest | EvaluateRequest, weights: Weights) -> str:
    """SHA-256 (hex) of a request, but for what each site is told by itself, and of the arrays beside it."""
    asked = f"{type(request).__name__} {request.model_dump_json(exclude=OWN)} {weights_digest(weights)}"
    return hashlib.sha256(asked.encode()).hexdigest()


def terms_digest(request: SharesRequest) -> str:
    """SHA-256 (hex) of a session's terms, as each site was told them."""
    return hashlib.sha256(request.model_dump_json().encode()).hexdigest()
