"""Around every answer of a site: which site it is, its journal, and a refusal in place of a fault.

A fault the coordinator or the site can mend goes back as a `Refusal`; nothing of a traceback leaves
the hospital. Every request and its answer stand in the site's own journal.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict

from client.journal import Event, note
from client.site import SiteConfig, load_site
from client.unchanged import Look, look
from hymate.errors import InputFault
from hymate.ops.allocator import release_memory, reuse_memory
from hymate.protocol import Refusal
from strategies.wire import CONFIG, pack

Answer = Callable[[SiteConfig, RecordDict], RecordDict]


def site_of(context: Context) -> SiteConfig:
    """The site that this message is for: its node's config names the site file."""
    path = Path(str(context.node_config["site"]))
    return _site(path, look(path))


@lru_cache(maxsize=1024)
def _site(path: Path, file: Look) -> SiteConfig:
    return load_site(path)


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
