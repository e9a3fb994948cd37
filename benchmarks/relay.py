"""A TCP relay on loopback that counts what passes, so that TLS and all of Flower's framing is in it."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field

CHUNK = 1 << 16


@dataclass
class Relay:
    """Listens on `port` and passes everything on to `target`; `seen` lists (time, bytes) of both ways."""

    port: int
    target: int
    seen: list[tuple[float, int]] = field(default_factory=list)

    def __enter__(self) -> Relay:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for callers
        self._listener.close()

    def between(self, begin: float, end: float) -> int:
        """Bytes that passed from `begin` to `end`, both in seconds of `time.time`."""
        return sum(count for at, count in list(self.seen) if begin < at <= end)

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                called = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                caller.close()
                continue
            for one, other in ((caller, called), (called, caller)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._pump, args=(one, other), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                self.seen.append((time.time(), len(chunk)))
                sink.sendall(chunk)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
