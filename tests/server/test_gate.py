"""The gate in front of SuperLink: sites from anywhere, orders from this machine."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from server.gate import Gate

HERE, FAR = ("127.0.0.1", 5000), ("203.0.113.7", 5000)
SERVER = ("10.0.0.5", 9092)


def status(path: str, client: Any, server: Any = SERVER, kind: str = "http") -> int:
    sent: list[dict[str, Any]] = []

    async def behind(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200})

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": kind, "path": path, "client": client, "server": server}
    asyncio.run(Gate(behind)(scope, None, send))
    return int(sent[0]["status"])


@pytest.mark.parametrize(
    "path", ["/v1/control/register-node", "/v1/runtime/x", "/docs", "/openapi.json", "/v1/fleetx"]
)
def test_orders_from_elsewhere_are_refused(path: str) -> None:
    assert status(path, FAR) == 403
    assert status(path, None) == 403
    assert status(path, ("testclient", 1)) == 403
    for client in (HERE, ("::1", 1), ("::ffff:127.0.0.1", 1), ("10.0.0.5", 1)):
        assert status(path, client) == 200, client


@pytest.mark.parametrize("path", ["/v1/fleet/activate-node", "/health"])
def test_sites_are_let_through(path: str) -> None:
    assert status(path, FAR) == 200


def test_what_is_no_request_is_let_through() -> None:
    assert status("", None, kind="lifespan") == 200
