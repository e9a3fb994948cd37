"""Flower's SuperNode as this site runs it: the only module that touches flwr's internals.

`run` calls flwr's own `flower-supernode` with three things put around its connection:

- a bundle must be approved by the site (`client.approval`). The site is the node's one *trusted
  entity*: it signs, with a key that lives as long as the process, the bundles it approves, and Flower's
  own verification refuses all others before anything of them is unpacked. What is refused is also
  emptied, so that nothing could run even if that verification were gone.
- it asks for messages more often than every 3 s: the longer it has waited, the less often;
- what becomes of the connection is told in plain lines;
- what a SuperNode that was killed could not do any more, the next one does (`client.unfinished`).

flwr offers no public hook for these. `install` looks for every name it relies on and refuses to start
where one is gone: a site never runs with half of its protection.
"""

from __future__ import annotations

import ctypes
import hashlib
import inspect
import json
import logging
import os
import signal
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ed25519
from flwr.app import Error
from flwr.common.constant import ErrorCode
from flwr.supercore.fab import Fab
from flwr.supercore.primitives.asymmetric_ed25519 import create_message_to_sign
from flwr.supernode import fleet_http_connection as transport
from flwr.supernode import start_client_internal as node

from client import executor
from client.approval import objection_to, release_hash
from client.handing_over import HandingOver
from client.heartbeat import LastingHeartbeat
from client.journal import Event, note
from client.keygen import fingerprint_of, public_key_of
from client.line import Line, telling
from client.site import FLOWER, SiteConfig, connection_of, load_site
from client.unfinished import (
    NOT_TAKEN,
    STARTED_ANEW,
    Unfinished,
    answering,
    leaving_first,
    settle,
    until_awaited,
)
from hymate.errors import InputFault

ENTITY = "site"
LONGEST_WAIT_S = 1.0
SHORTEST_WAIT_S = 0.05

_PARAMETERS = {
    "http_request_response": [
        "server_address",
        "insecure",
        "root_certificates",
        "authentication_keys",
        "max_retries",
        "max_wait_time",
    ],
    "_push_messages": ["state", "object_store", "send", "push_object"],
    "_verify_fab": ["fab", "trusted_entities"],
}
_CLIENT_CALLS = ("ActivateNode", "DeactivateNode")
_RETRY_PARTS = ("on_success", "on_backoff", "should_giveup", "wait_gen_factory")

Connection = tuple[Any, ...]
"""node id, receive, send, get_run, get_fab, pull_object, push_object, confirm_message_received."""


class Approver:
    """The site's signature under the bundles that may run here."""

    def __init__(self, site: SiteConfig) -> None:
        self._site = site
        self._key = ed25519.Ed25519PrivateKey.generate()

    @property
    def public(self) -> str:
        key = self._key.public_key().public_bytes(form.Encoding.OpenSSH, form.PublicFormat.OpenSSH)
        return key.decode("ascii")

    def judge(self, fab: Fab) -> Fab:
        """The bundle with the site's signature; or, where it is refused, emptied and without one."""
        objection = objection_to(fab.content, self._site.policy.approved_app)
        if objection is not None:
            reason = (
                f"site {self._site.name}: does not run this app: {objection}; run the same hymate-federated "
                "release at both ends, or have the site change `policy.approved_app`"
            )
            node.FAB_VERIFICATION_ERROR = Error(ErrorCode.INVALID_FAB, reason)
            note(self._site, Event.REFUSED, f"an app the coordinator sent: {objection}")
            return Fab(fab.hash_str, b"", {})
        signed_at = int(time.time())
        digest = hashlib.sha256(fab.content).digest()
        signature = self._key.sign(create_message_to_sign(digest, signed_at))
        mark = {
            "signed_at": signed_at,
            "signature": urlsafe_b64encode(signature).decode("ascii").rstrip("="),
        }
        return Fab(fab.hash_str, fab.content, {"valid_license": "yes", ENTITY: json.dumps(mark)})


def install(
    site: SiteConfig, approver: Approver, line: Line, unfinished: Unfinished, connected: Callable[[], None]
) -> None:
    """Put the site's rules around Flower's connection; `connected` is called once, as soon as there is one.

    Raises:
        InputFault: this flwr is not built the way the rules need; nothing is started then.
    """
    demand_known_flwr()
    original, make_retry = transport.http_request_response, vars(transport)["make_simple_http_retry_invoker"]

    def retry() -> Any:
        return telling(make_retry(), line)

    def broken_off() -> None:
        note(site, Event.WAITING, "the process that worked on a message ended before it had answered")
        os._exit(EXIT_LOST)

    over = HandingOver(broken_off)

    @contextmanager
    def connection(*given: Any, **named: Any) -> Iterator[Connection]:
        with original(*given, **named) as (number, receive, send, get_run, get_fab, pull, push, confirm):
            line.up()
            unfinished.joined(number)
            connected()
            settle(unfinished, send, push, STARTED_ANEW)
            yield (
                number,
                _patient(receive, unfinished, partial(settle, unfinished, send, push, NOT_TAKEN), over.over),
                over.around(answering(unfinished, send)),
                get_run,
                lambda fab_hash, run_id: approver.judge(get_fab(fab_hash, run_id)),
                pull,
                over.around(push),
                confirm,
            )

    vars(transport)["make_simple_http_retry_invoker"] = retry
    vars(transport)["HeartbeatSender"] = LastingHeartbeat
    vars(transport)["FleetHttpClient"] = leaving_first(vars(transport)["FleetHttpClient"], unfinished)
    vars(node)["http_request_response"] = connection
    vars(node)["_push_messages"] = until_awaited(unfinished, vars(node)["_push_messages"])
    # The loop looks for a finished answer every 0.5 s; it may look more often.
    vars(node)["time"] = SimpleNamespace(sleep=lambda s: time.sleep(min(s, SHORTEST_WAIT_S)))
    vars(node)["pull_objects"] = partial(vars(node)["pull_objects"], initial_backoff=executor.FIRST_BACKOFF_S)


def demand_known_flwr() -> None:
    """Raise `InputFault` where the installed flwr lacks a part that `install` hooks into."""
    unknown = [
        name
        for name, parameters in _PARAMETERS.items()
        if name not in vars(node) or list(inspect.signature(vars(node)[name]).parameters) != parameters
    ]
    unknown += [name for name in ("FAB_VERIFICATION_ERROR", "time", "pull_objects") if name not in vars(node)]
    unknown += [name for name in ("HeartbeatSender",) if name not in vars(transport)]
    client = vars(transport).get("FleetHttpClient")
    unknown += [f"FleetHttpClient.{name}" for name in _CLIENT_CALLS if not hasattr(client, name)]
    if "make_simple_http_retry_invoker" not in vars(transport):
        unknown.append("make_simple_http_retry_invoker")
    else:
        made = vars(transport)["make_simple_http_retry_invoker"]()
        unknown += [name for name in _RETRY_PARTS if not hasattr(made, name)]
    if unknown:
        raise InputFault(
            "flwr", f"is built otherwise than this release needs ({', '.join(unknown)})", "install flwr 1.41"
        )


def _patient(
    receive: Callable[[], Any],
    unfinished: Unfinished,
    settle_last: Callable[[], None],
    handed_over: Callable[[], None],
) -> Callable[[], Any]:
    """Ask until there is a message: at intervals of a tenth of the time waited so far, 1 s at most.

    Flower asks for the next one without an answer to the last where it could not take that in.
    """

    def wait() -> Any:
        handed_over()
        settle_last()
        began = time.monotonic()
        while (found := receive()) is None:
            waited = time.monotonic() - began
            time.sleep(min(LONGEST_WAIT_S, max(SHORTEST_WAIT_S, waited / 10)))
        unfinished.took(found[0])
        return found

    return wait


def run(path: Path, site: SiteConfig, port: int) -> None:
    """Be the SuperNode of the site file at `path` until stopped; `port`: loopback, for its own parts."""
    from flwr.supernode.cli import flower_supernode

    coordinator, key = connection_of(site, path)
    approver = Approver(site)
    line = Line(site, coordinator.address, fingerprint_of(public_key_of(key)))
    own = site.policy.approved_app in (None, release_hash())
    unfinished = Unfinished(site.state / FLOWER / "unfinished.json")
    install(site, approver, line, unfinished, partial(executor.start, f"127.0.0.1:{port}", own=own))
    trusted = site.state / FLOWER / "trusted-entities.yaml"
    trusted.write_text(json.dumps({ENTITY: approver.public}), encoding="utf-8")
    sys.argv = [
        "flower-supernode",
        *("--superlink", coordinator.address),
        *("--root-certificates", str(coordinator.ca)),
        *("--auth-supernode-private-key", str(key)),
        *("--node-config", f"site={json.dumps(str(path.resolve()))}"),
        *("--isolation", "process"),
        *("--host", "127.0.0.1", "--port", str(port)),
        *("--trusted-entities", str(trusted)),
    ]
    if site.health_address is not None:
        sys.argv += ["--health-server-address", site.health_address]
    flower_supernode()
    # It returns where it lost the connection for good; a thread of its own would keep the process.
    logging.shutdown()
    os._exit(EXIT_LOST)


PR_SET_PDEATHSIG = 1
EXIT_LOST = 3


def main(arguments: list[str]) -> int:
    """`python -m client.supernode SITE PORT PARENT`: `run`, ending when process PARENT does."""
    path, port, parent = Path(arguments[0]), int(arguments[1]), int(arguments[2])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != parent:  # it died before the kernel was told
        return 1
    try:
        run(path, load_site(path), port)
    except InputFault as fault:
        print(fault, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
