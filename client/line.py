"""The connection to the coordinator in plain words: each change once, an outage again now and then."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import httpx

from client.journal import Event, note
from client.site import SiteConfig

REMIND_S = 300.0
"""An outage is told again after this long."""


class Line:
    """Tells what becomes of one connection."""

    def __init__(self, site: SiteConfig, address: str, fingerprint: str) -> None:
        self._site = site
        self._address = address
        self._fingerprint = fingerprint
        self._up = False
        self._down: str | None = None
        self._told = 0.0

    def up(self) -> None:
        if not self._up:
            note(self._site, Event.CONNECTED, f"connected to {self._address}; waiting for work")
        self._up, self._down = True, None

    def works(self) -> None:
        """A call came through."""
        if self._down is not None:
            self.up()

    def fails(self, fault: BaseException | None) -> None:
        cause = self._in_words(fault)
        self._up = False
        if cause != self._down or time.monotonic() - self._told > REMIND_S:
            note(self._site, Event.WAITING, f"waiting for {self._address}: {cause}")
            self._down, self._told = cause, time.monotonic()

    def _in_words(self, fault: BaseException | None) -> str:
        text = " ".join(str(fault).split())
        if isinstance(fault, httpx.HTTPStatusError):
            if fault.response.status_code == httpx.codes.UNAUTHORIZED:
                return (
                    "it does not accept this site's signature; its state was begun anew, or the clocks "
                    "differ ('hymate-client check' tells)"
                )
            if "activate-node" in str(fault.request.url) and fault.response.is_client_error:
                return (
                    f"it does not know this site's key ({self._fingerprint}); send the public key to the "
                    "coordinator"
                )
            return f"it answers with HTTP status {fault.response.status_code}"
        if "certificate" in text.lower():
            reason = text.split("certificate verify failed:")[-1].split(" (_ssl")[0].strip()
            return f"its certificate is not accepted ({reason}); 'hymate-client check' says more"
        return f"not reachable ({text or type(fault).__name__}); trying again"


def telling(invoker: Any, line: Line) -> Any:
    """The same retries, for ever, at most 10 s apart, and every change told."""
    on_backoff, on_success, gives_up = invoker.on_backoff, invoker.on_success, invoker.should_giveup

    def backoff(state: Any) -> None:
        on_backoff(state)
        line.fails(state.exception)

    def success(state: Any) -> None:
        on_success(state)
        line.works()

    def giveup(fault: Exception) -> bool:
        answered = isinstance(fault, httpx.HTTPStatusError)
        if not answered and "certificate" not in str(fault).lower():
            return False  # flwr takes a handshake that was cut off for a fault of the certificate
        unauthorised = (
            isinstance(fault, httpx.HTTPStatusError)
            and fault.response.status_code == httpx.codes.UNAUTHORIZED
        )
        if unauthorised:  # flwr ends the process in the next call
            line.fails(fault)
        final = bool(gives_up(fault))
        if final:
            line.fails(fault)
        return final

    def delays() -> Iterator[float]:
        yield from (0.5, 1.0, 2.0, 5.0)
        while True:
            yield 10.0

    invoker.on_backoff, invoker.on_success, invoker.should_giveup = backoff, success, giveup
    invoker.wait_gen_factory = delays
    return invoker
