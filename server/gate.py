"""SuperLink with a gate: over the network it answers sites only; orders come from this machine.

    python -m server.gate ARGUMENTS-OF-FLOWER-SUPERLINK

Flower serves three interfaces on one port: Fleet (sites, each call signed with the node's key),
Control (register keys, submit and stop studies) and Runtime (the process of a study). Without an
account service the last two ask for no credentials, so whoever reached the port could register a
key of their own, or stop the study. The gate lets only callers on this machine through to them.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any

OPEN_TO_SITES = ("/v1/fleet/", "/health")


class Gate:
    """ASGI middleware: 403 for everything but the sites' interface, unless asked from this machine."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if (
            scope["type"] in ("http", "websocket")
            and not scope["path"].startswith(OPEN_TO_SITES)
            and not from_this_machine(scope.get("client"), scope.get("server"))
        ):
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"only from the coordinator's own machine"})
            return
        await self._app(scope, receive, send)


def from_this_machine(client: Any, server: Any) -> bool:
    """Whether a connection began on this machine: over loopback, or both ends are one address."""
    if not client:
        return False
    try:
        caller = ipaddress.ip_address(client[0])
    except ValueError:
        return False
    mapped = getattr(caller, "ipv4_mapped", None)
    return (mapped or caller).is_loopback or bool(server and server[0] == client[0])


def main() -> None:
    from flwr.superlink import extensions
    from flwr.superlink.cli import flower_superlink
    from starlette.middleware import Middleware

    from server.half_sent import give_up_on_return
    from server.redelivery import give_again_on_return

    give_up_on_return()
    give_again_on_return()
    before = extensions.get_middleware
    extensions.get_middleware = lambda: (Middleware(Gate), *before())
    sys.argv[0] = "flower-superlink"
    flower_superlink()


if __name__ == "__main__":
    main()
