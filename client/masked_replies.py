"""A site's answers as parts of a sum: its round, or its report, masked (`client.secure_aggregation`)."""

from __future__ import annotations

from collections.abc import Callable

from flwr.app import RecordDict

from client.policy import publishable
from client.secure_aggregation import masked_answer
from client.site import SiteConfig
from hymate.data.store import TripletStore
from hymate.evaluate.histograms import BINS
from hymate.protocol import FinetuneRequest, MaskedReply, PretrainRequest, RoundRequest, TrainReply
from hymate.score_reports import ScoreReport
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_protocol import Masked, Terms
from strategies.arrays import Weights
from strategies.base import Arrays
from strategies.secure.contents import Rings, SiteRound, report_vector, round_vector
from strategies.secure.ring import OutOfBounds, Vector
from strategies.weighting import weight_of
from strategies.wire import pack


def masked_round(
    site: SiteConfig,
    request: PretrainRequest | FinetuneRequest,
    asked: Masked,
    arrays: Weights,
    store: TripletStore,
    train: Callable[[], tuple[TrainReply, Arrays]],
) -> RecordDict:
    """What `train` comes to, masked.

    Args:
        arrays: as they came with the request.
    """

    def answer(terms: Terms) -> tuple[MaskedReply, Vector]:
        reply, trained = train()
        found = SiteRound(
            trained=trained,
            weight=asked.weight or _weight(site, request, reply, store),
            stays=reply.stays or 0,
            loss=reply.loss or 0.0,
            forecast_error=reply.received_error,
            received=reply.received,
        )
        received = {name: arrays[name] for name in trained}
        told = MaskedReply(
            site=site.name,
            seconds=reply.seconds,
            noise=reply.noise,
            spent=reply.spent,
            received=reply.received if terms.scores == "told" else None,
        )
        return told, round_vector(found, received, Rings.of(terms), BINS if terms.scores == "summed" else 0)

    return pack(*masked_answer(site, request, asked, arrays, answer))


def masked_report(
    site: SiteConfig,
    request: EvaluateRequest,
    asked: Masked,
    arrays: Weights,
    report: Callable[[], ScoreReport],
) -> RecordDict:
    """What `report` says, masked."""

    def answer(terms: Terms) -> tuple[MaskedReply, Vector]:
        bins = BINS if request.detail is None else len(request.detail.edges) + 1
        return MaskedReply(site=site.name, seconds=0.0), report_vector(report(), len(terms.keys), bins)

    return pack(*masked_answer(site, request, asked, arrays, answer))


def _weight(site: SiteConfig, request: RoundRequest, reply: TrainReply, store: TripletStore) -> float:
    """How much the site counts by what it trained on.

    Raises:
        OutOfBounds: the round takes noise, which covers no number of stays, and came without a weight.
    """
    if reply.stays is None:
        raise OutOfBounds("a round with noise has no weight of its own")
    positives = publishable(int((store.label[store.rows("train")] > 0.5).sum()), site.policy)
    return weight_of(request.strategy, site.name, reply.stays, positives)
