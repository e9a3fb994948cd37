"""Flower ClientApp of a hospital: decode, call one function, encode.

A fault the coordinator or the site can mend goes back as a `Refusal`; nothing of a traceback leaves
the hospital. Every request and its answer stand in the site's own journal.

A deployed site starts a process for every message: what only some requests need (torch above all) is
imported where they are answered.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client.journal import Event, note
from client.policy import check_left_out, check_masked, check_noise, check_study, check_task, check_told
from client.round_limit import count_round
from client.run_kind import demand_no_noise, demand_noisy_figures, demand_same_kind
from client.site import SiteConfig, load_site
from hymate.errors import InputFault
from hymate.joining_protocol import DescribeRequest, PrepareRequest, StatisticsRequest
from hymate.ops.allocator import release_memory, reuse_memory
from hymate.protocol import AloneRequest, FinetuneRequest, PretrainRequest, Refusal, TrainReply
from hymate.scoring_protocol import CompareRequest, EvaluateRequest, RecalibrateRequest
from hymate.secure_protocol import KeysRequest, SharesRequest, UnmaskRequest
from strategies.wire import CONFIG, Weights, apart, pack, unpack, unpack_weights

if TYPE_CHECKING:
    from hymate.data.store import TripletStore
    from hymate.model.hymate import HyMaTE
    from strategies.base import Arrays

app = ClientApp()

Answer = Callable[[SiteConfig, RecordDict], RecordDict]


def site_of(context: Context) -> SiteConfig:
    """The site that this message is for: its node's config names the site file."""
    return load_site(Path(str(context.node_config["site"])))


def answer(respond: Answer, message: Message, context: Context) -> Message:
    """Run one handler for this site; whatever goes wrong becomes a `Refusal`.

    A foreseeable fault is sent in its own words. Of anything else only its kind is sent: an exception's
    text may quote data, so it stays in the site's log.
    """
    site = site_of(context)
    reuse_memory()
    began = time.monotonic()
    asked = _asked(message)
    note(site, Event.ASKED, f"{asked}: working on it")
    reason: str | None = None
    try:
        content = respond(site, message.content)
    except InputFault as fault:
        reason = str(fault)
    except OSError as fault:
        logging.getLogger("hymate").exception("%s", asked)
        cause = os.strerror(fault.errno) if fault.errno else type(fault).__name__
        reason = f"site {site.name}: a file cannot be read or written ({cause}); the site's log says which"
    except Exception as crash:
        logging.getLogger("hymate").exception("%s", asked)
        reason = f"site {site.name}: failed with {type(crash).__name__}; the site's log holds the cause"
    finally:
        release_memory()  # a simulation keeps this process for the next site
    seconds = time.monotonic() - began
    if reason is None:
        note(site, Event.ANSWERED, f"{asked}: {_told(content)}{seconds:.1f} s", seconds=round(seconds, 3))
    else:
        note(site, Event.REFUSED, f"{asked}: refused: {reason}", seconds=round(seconds, 3))
        content = pack(Refusal(site=site.name, reason=reason))
    return Message(content, reply_to=message)


def answering(respond: Answer) -> Callable[[Message, Context], Message]:
    """The handler that Flower calls, of the function that makes its answer."""
    return partial(answer, respond)


def _asked(message: Message) -> str:
    """What a message asks, in a few words."""
    request = _record(message.content)
    words = [message.metadata.message_type.split(".")[-1]]
    if "round" in request:
        words.append(f"round {request['round']}")
    if "study" in request:
        words.append(f"of study {request['study']}")
    if request.get("left_out"):
        words.append(f"without {request['left_out']}")
    return " ".join(words)


def _told(reply: RecordDict) -> str:
    """What a training round came to; nothing of other answers."""
    record = _record(reply)
    if "loss" not in record:
        return ""
    if record["loss"] is None:
        return "trained with noise, "
    return f"loss {record['loss']:.4f} on {record['stays']} stays, "


def _record(content: RecordDict) -> dict[str, Any]:
    """A message's record as plain JSON, whatever its kind; empty where there is none."""
    try:
        return dict(json.loads(str(content.config_records[CONFIG]["json"])))
    except (KeyError, ValueError, TypeError):
        return {}


def _fix_threads(site: SiteConfig) -> None:
    """Fixed per site, not per machine: the number of threads decides the order of sums."""
    import torch

    torch.set_num_threads(site.threads)


@app.query("describe")
@answering
def describe(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    request = unpack(content, DescribeRequest)
    check_told(site, noisy=request.noisy is not None)
    return pack(queries.describe(site, request))


@app.query("statistics")
@answering
def statistics(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    request = unpack(content, StatisticsRequest)
    check_told(site, noisy=request.noisy is not None)
    return pack(queries.statistics(site, request))


@app.query("prepare")
@answering
def prepare(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import queries

    request = unpack(content, PrepareRequest)
    check_told(site, noisy=request.noisy is not None)
    return pack(queries.prepare(site, request))


def train_round(site: SiteConfig, request: PretrainRequest | FinetuneRequest, arrays: Weights) -> RecordDict:
    """One training round: the policy first, then weights in, local epochs, weights out."""
    from client import training
    from client.local_round import phase_of

    check_study(site, request.study, request.run)
    check_task(site, request.task)
    check_left_out(site, request.left_out)
    check_noise(site, noisy=request.privacy.mode == "dp-sgd")
    check_told(site, noisy=request.privacy.dp_statistics)
    check_masked(site, masked=request.secure is not None)
    demand_same_kind(site, request)
    _fix_threads(site)
    weights, beside = apart(arrays)
    model, store = training.received_model(site, request, weights)
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

    return pack(give_keys(site, unpack(content, KeysRequest)))


@app.query("secure_shares")
@answering
def secure_shares(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client.secure_aggregation import give_shares

    return pack(give_shares(site, unpack(content, SharesRequest)))


@app.query("secure_unmask")
@answering
def secure_unmask(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client.secure_aggregation import give_unmasking

    return pack(give_unmasking(site, unpack(content, UnmaskRequest)))


@app.train("pretrain")
@answering
def pretrain(site: SiteConfig, content: RecordDict) -> RecordDict:
    return train_round(site, unpack(content, PretrainRequest), unpack_weights(content))


@app.train("finetune")
@answering
def finetune(site: SiteConfig, content: RecordDict) -> RecordDict:
    return train_round(site, unpack(content, FinetuneRequest), unpack_weights(content))


@app.train("alone")
@answering
def alone(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import training

    request = unpack(content, AloneRequest)
    check_study(site, request.study, request.run)
    check_noise(site, noisy=False)  # its figures are of a model trained without
    check_told(site, noisy=False)
    demand_no_noise(site, request)
    _fix_threads(site)
    model, store = training.received_model(site, request, unpack_weights(content))
    return pack(*training.train_by_itself(site, request, model, store))


def asked_about(
    site: SiteConfig, request: EvaluateRequest, content: RecordDict, *, noisy: bool
) -> tuple[HyMaTE, TripletStore]:
    """The model that a question is about, as this site uses it, and the site's stays; the question counts.

    `noisy`: the answer will be.
    """
    from client import evaluation, training
    from client.local_round import own_model
    from client.question_limit import check_question

    check_study(site, request.study, request.run)
    check_told(site, noisy=noisy)
    demand_noisy_figures(site, request, noisy)
    _fix_threads(site)
    model, store = training.received_model(site, request, unpack_weights(content))
    model = own_model(site, request, model)
    check_question(site, request, evaluation.arrays_of(model))
    return model, store


@app.evaluate("score")
@answering
def evaluate(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import evaluation
    from client.local_round import keep_own_model

    request = unpack(content, EvaluateRequest)
    if request.keep is not None:
        check_study(site, request.study, request.keep.run)
    model, store = asked_about(site, request, content, noisy=request.noise_multiplier is not None)
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

    request = unpack(content, RecalibrateRequest)
    model, store = asked_about(site, request, content, noisy=False)
    return pack(evaluation.recalibrate(site, request, model, store))


@app.evaluate("compare")
@answering
def compare(site: SiteConfig, content: RecordDict) -> RecordDict:
    from client import kept_scores

    request = unpack(content, CompareRequest)
    check_study(site, request.study, request.run)
    check_told(site, noisy=False)
    demand_noisy_figures(site, request, noisy=False)
    check_task(site, request.task)
    return pack(kept_scores.compare(site, request))
