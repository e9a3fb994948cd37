"""Flower ClientApp of a hospital: decode, call one function, encode.

A fault the coordinator or the site can mend goes back as a `Refusal`; nothing of a traceback leaves
the hospital.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import evaluation, queries, training
from client.site import SiteConfig, load_site
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.model.hymate import HyMaTE
from hymate.ops.allocator import release_memory, reuse_memory
from hymate.protocol import (
    AloneRequest,
    DescribeRequest,
    EvaluateRequest,
    FinetuneRequest,
    PrepareRequest,
    PretrainRequest,
    Refusal,
    StatisticsRequest,
    TrainReply,
)
from hymate.train.loop import LocalHook
from strategies.registry import make_algorithm
from strategies.wire import pack, unpack, unpack_weights

app = ClientApp()

Answer = Callable[[SiteConfig, RecordDict], RecordDict]


def site_of(context: Context) -> SiteConfig:
    """The site this process speaks for.

    Deployed, the SuperNode's node config names the site file. Simulated, the run config names the
    run directory and the partition says which of its sites.
    """
    if "site" in context.node_config:
        return load_site(Path(str(context.node_config["site"])))
    sites = sorted(Path(str(context.run_config["run"])).glob("sites/*/site.yaml"))
    return load_site(sites[int(context.node_config["partition-id"])])


def answer(message: Message, context: Context, respond: Answer) -> Message:
    """Run one handler for this site; a foreseeable fault becomes a `Refusal`."""
    site = site_of(context)
    # Fixed per site, not per machine: the number of threads decides the order of sums.
    torch.set_num_threads(site.threads)
    reuse_memory()
    try:
        content = respond(site, message.content)
    except InputFault as fault:
        content = pack(Refusal(site=site.name, reason=str(fault)))
    finally:
        release_memory()  # a simulation keeps this process for the next site
    return Message(content, reply_to=message)


@app.query("describe")
def describe(message: Message, context: Context) -> Message:
    return answer(
        message, context, lambda site, content: pack(queries.describe(site, unpack(content, DescribeRequest)))
    )


@app.query("statistics")
def statistics(message: Message, context: Context) -> Message:
    return answer(
        message,
        context,
        lambda site, content: pack(queries.statistics(site, unpack(content, StatisticsRequest))),
    )


@app.query("prepare")
def prepare(message: Message, context: Context) -> Message:
    return answer(
        message, context, lambda site, content: pack(queries.prepare(site, unpack(content, PrepareRequest)))
    )


Request = TypeVar("Request", PretrainRequest, FinetuneRequest)
Train = Callable[[SiteConfig, Request, HyMaTE, TripletStore, LocalHook | None], TrainReply]


def train_round(kind: type[Request], train: Train[Request]) -> Answer:
    """The handler of one kind of training round: weights in, local epochs, weights out."""

    def respond(site: SiteConfig, content: RecordDict) -> RecordDict:
        request = unpack(content, kind)
        model, store = training.received_model(site, request, unpack_weights(content))
        hook = make_algorithm(request.strategy.name, request.strategy.settings).local_hook()
        reply = train(site, request, model, store, hook)
        return pack(reply, training.sent_weights(model), examples=reply.stays)

    return respond


@app.train("pretrain")
def pretrain(message: Message, context: Context) -> Message:
    return answer(message, context, train_round(PretrainRequest, training.pretrain))


@app.train("finetune")
def finetune(message: Message, context: Context) -> Message:
    return answer(message, context, train_round(FinetuneRequest, training.finetune))


@app.train("alone")
def alone(message: Message, context: Context) -> Message:
    def respond(site: SiteConfig, content: RecordDict) -> RecordDict:
        request = unpack(content, AloneRequest)
        model, store = training.received_model(site, request, unpack_weights(content))
        return pack(training.train_by_itself(site, request, model, store))

    return answer(message, context, respond)


@app.evaluate("score")
def evaluate(message: Message, context: Context) -> Message:
    def respond(site: SiteConfig, content: RecordDict) -> RecordDict:
        request = unpack(content, EvaluateRequest)
        model, store = training.received_model(site, request, unpack_weights(content))
        return pack(evaluation.evaluate(site, request, model, store))

    return answer(message, context, respond)
