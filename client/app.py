"""Flower ClientApp of a hospital: decode, call one function, encode.

A deployed site starts a process for every message: what only some requests need (torch above all) is
imported where they are answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

from flwr.app import RecordDict
from flwr.clientapp import ClientApp

from client.admission import Request, admit
from client.answering import answering
from client.round_limit import count_round
from client.site import SiteConfig
from hymate.joining_protocol import DescribeRequest, PrepareRequest, StatisticsRequest
from hymate.protocol import AloneRequest, FinetuneRequest, PretrainRequest, TrainReply
from hymate.scoring_protocol import CompareRequest, EvaluateRequest, RecalibrateRequest
from hymate.secure_protocol import KeysRequest, SharesRequest, UnmaskRequest
from strategies.arrays import Weights
from strategies.wire import apart, pack, unpack, unpack_weights

if TYPE_CHECKING:
    from hymate.data.store import TripletStore
    from hymate.model.hymate import HyMaTE
    from strategies.base import Arrays

app = ClientApp()
Asked = TypeVar("Asked", bound=Request)


def admitted(site: SiteConfig, content: RecordDict, kind: type[Asked]) -> Asked:
    """The request that a message holds, once the site may answer it."""
    request = unpack(content, kind)
    admit(site, request)
    return request


def _fix_threads(site: SiteConfig) -> None:
    """Fixed per site, not per machine: the number of threads decides the order of sums."""
    import torch

    torch.set_num_threads(site.threads)


@app.query("describe")
@answering
def describe(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    return pack(queries.describe(site, admitted(site, content, DescribeRequest)))


@app.query("statistics")
@answering
def statistics(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    return pack(queries.statistics(site, admitted(site, content, StatisticsRequest)))


@app.query("prepare")
@answering
def prepare(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    return pack(queries.prepare(site, admitted(site, content, PrepareRequest)))


def train_round(site: SiteConfig, request: PretrainRequest | FinetuneRequest, arrays: Weights) -> RecordDict:
    """One training round: weights in, local epochs, weights out."""
    from client import training
    from client.local_round import phase_of

    _fix_threads(site)
    weights, beside = apart(arrays)
    with training.received_model(site, request, weights) as (model, store):
        phase, _ = phase_of(request)
        count_round(site, request.study, phase, request.round, weights, request.vocabulary_hash)

        def train() -> tuple[TrainReply, Arrays]:
            if isinstance(request, PretrainRequest):
                return training.pretrain(site, request, model, store, beside)
            return training.finetune(site, request, model, store, beside)

        if request.secure is not None:
            from client.masked_replies import masked_round

            return masked_round(site, request, request.secure, arrays, store, train)
        reply, sent = train()
        return pack(reply, sent, examples=reply.stays)


@app.query("secure_keys")
@answering
def secure_keys(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client.secure_aggregation import give_keys

    return pack(give_keys(site, admitted(site, content, KeysRequest)))


@app.query("secure_shares")
@answering
def secure_shares(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client.secure_aggregation import give_shares

    return pack(give_shares(site, admitted(site, content, SharesRequest)))


@app.query("secure_unmask")
@answering
def secure_unmask(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client.secure_aggregation import give_unmasking

    return pack(give_unmasking(site, admitted(site, content, UnmaskRequest)))


@app.train("pretrain")
@answering
def pretrain(site: SiteConfig, content: RecordDict) -> RecordDict:
    return train_round(site, admitted(site, content, PretrainRequest), unpack_weights(content))


@app.train("finetune")
@answering
def finetune(site: SiteConfig, content: RecordDict) -> RecordDict:
    return train_round(site, admitted(site, content, FinetuneRequest), unpack_weights(content))


@app.train("alone")
@answering
def alone(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import training

    request = admitted(site, content, AloneRequest)
    _fix_threads(site)
    with training.received_model(site, request, unpack_weights(content)) as (model, store):
        return pack(*training.train_by_itself(site, request, model, store))


@contextmanager
def asked_about(
    site: SiteConfig, request: EvaluateRequest, content: RecordDict
) -> Iterator[tuple[HyMaTE, TripletStore]]:
    """The model that a question is about, as this site uses it, and the site's stays; the question counts."""
    from client import evaluation, training
    from client.local_round import own_model
    from client.question_limit import check_question

    _fix_threads(site)
    with training.received_model(site, request, unpack_weights(content)) as (received, store):
        model = own_model(site, request, received)
        check_question(site, request, evaluation.arrays_of(model))
        yield model, store


@app.evaluate("score")
@answering
def evaluate(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import evaluation
    from client.local_round import keep_own_model

    request = admitted(site, content, EvaluateRequest)
    with asked_about(site, request, content) as (model, store):
        if request.personal is not None and request.split == "held_out":
            keep_own_model(site, request, model)
        if request.secure is not None:
            from client.masked_replies import masked_report

            arrays = unpack_weights(content)
            return masked_report(
                site,
                request,
                request.secure,
                arrays,
                lambda: evaluation.evaluate(site, request, model, store).report,
            )
        return pack(evaluation.evaluate(site, request, model, store))


@app.evaluate("recalibrate")
@answering
def recalibrate(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import evaluation

    request = admitted(site, content, RecalibrateRequest)
    with asked_about(site, request, content) as (model, store):
        return pack(evaluation.recalibrate(site, request, model, store))


@app.evaluate("compare")
@answering
def compare(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import kept_scores

    return pack(kept_scores.compare(site, admitted(site, content, CompareRequest)))
