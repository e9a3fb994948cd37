"""A TCP relay between a site and its coordinator that can be cut, or stop in the middle of a message.

What is cut is silent, as a pulled cable is: nothing is refused or reset, bytes just do not arrive.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field

CHUNK = 1 << 18
UP, DOWN = "up", "down"
"""From the site to the coordinator, and back."""


@dataclass
class Wire:
    """Listens on `port` and passes everything on to `target`."""

    port: int
    target: int
    held: threading.Event = field(default_factory=threading.Event)
    """Set once a message is half through."""

    def __enter__(self) -> Wire:
        self._open = threading.Event()
        self._open.set()
        self._hold: tuple[str, int] | None = None
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.mend()

    def cut(self) -> None:
        """From now on nothing arrives, in either direction."""
        self._open.clear()

    def hold(self, direction: str, at_least: int) -> None:
        """Pass on half of the next piece of so many bytes in this direction, then nothing any more."""
        self.held.clear()
        self._hold = (direction, at_least)

    def mend(self) -> None:
        """New connections pass again; those that were cut are gone, as after a long outage."""
        self._hold = None
        with self._lock:
            old, self._sockets = self._sockets, set()
        if not self._open.is_set():
            for end in old:
                _close(end)
        self._open.set()

    def _accept(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._connect, args=(caller,), daemon=True).start()

    def _connect(self, caller: socket.socket) -> None:
        self._open.wait()
        try:
            called = socket.create_connection(("127.0.0.1", self.target))
        except OSError:
            _close(caller)
            return
        with self._lock:
            self._sockets |= {caller, called}
        for source, sink, direction in ((caller, called, UP), (called, caller, DOWN)):
            with contextlib.suppress(OSError):  # it has gone while the wire was cut
                source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(target=self._pump, args=(source, sink, direction), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, direction: str) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(CHUNK):
                if self._hold is not None and self._hold[0] == direction and len(chunk) >= self._hold[1]:
                    self._hold = None
                    sink.sendall(chunk[: len(chunk) // 2])
                    self.cut()
                    self.held.set()
                    chunk = chunk[len(chunk) // 2 :]
                self._open.wait()
                sink.sendall(chunk)
        for end in (source, sink):
            _close(end)


def _close(end: socket.socket) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
