"""What a site that means harm sends in place of its update. It does so in fine-tuning, every round.

The product knows nothing of it: the reply is changed on its way. A site with flipped labels trains and
reports as an honest one would, on a data set whose labels are the opposite of what happened.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

import numpy as np
from flwr.app import Message, RecordDict
from numpy.typing import NDArray

from hymate.protocol import Action
from strategies.wire import ARRAYS, CONFIG, apart, joined, named, pack_weights, unpack_weights, with_beside

Attack = Literal["none", "sign flip", "scaling by 100", "random weights", "label flip"]

SCALE = 100.0


def tampered(attack: Attack, request: Message, reply: Message, seed: int) -> Message:
    """The reply to a round of fine-tuning with its weights changed; any other reply as it is.

    sign flip: received - (trained - received); scaling by 100: received + 100 (trained - received);
    random weights: each array drawn anew from a normal distribution of its own mean and spread.
    """
    if attack in ("none", "label flip") or request.metadata.message_type != Action.FINETUNE:
        return reply
    if not reply.has_content() or ARRAYS not in reply.content.array_records:
        return reply
    content = named(reply.content)
    received, _ = apart(unpack_weights(request.content))
    trained, beside = apart(unpack_weights(content))
    number = json.loads(str(content_of(request)["json"]))["round"]
    rng = np.random.default_rng([seed, number])
    changed = {name: _changed(attack, received[name], array, rng) for name, array in trained.items()}
    arrays = pack_weights(with_beside(changed, beside))
    return Message(joined(RecordDict({**content, ARRAYS: arrays})), reply_to=request)


def content_of(message: Message) -> Mapping[str, object]:
    """The record of a message as it travels."""
    return message.content.config_records[CONFIG]


def _changed(
    attack: Attack, received: NDArray[np.generic], trained: NDArray[np.generic], rng: np.random.Generator
) -> NDArray[np.generic]:
    before, after = received.astype(np.float64), trained.astype(np.float64)
    if attack == "sign flip":
        sent = 2.0 * before - after
    elif attack == "scaling by 100":
        sent = before + SCALE * (after - before)
    else:
        sent = rng.normal(before.mean(), before.std(), before.shape)
    return sent.astype(trained.dtype)
