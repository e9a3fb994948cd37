"""What a site keeps of the sum it takes part in: its private keys, its seed, others' shares, what it masked.

Every message may be answered by a new process, so all of it lies on the disk, for the site's account alone.
There is one sum at a time in a run: a new one takes the place of the last, whose keys are gone with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from client.site import SiteConfig
from hymate.durable import write_bytes, write_text
from hymate.errors import InputFault
from hymate.frozen import Frozen
from hymate.protocol import MaskedReply
from hymate.secure_protocol import KeysRequest, SharesRequest
from strategies.secure.ring import Vector

FOLDER = "secure"
SESSION, MASKED, OPENED = "session.json", "masked.safetensors", "opened.json"
REPLY = "reply"


class KeptSession(Frozen):
    """A site's side of one session; what is None or empty has not come about."""

    asked: KeysRequest
    mask_key: str
    """Private key (hex) for masks; others hold shares of it ..."""
    share_key: str
    """... and the one for sealing shares, of which they hold none."""
    signature: str = ""
    """Of their public halves, as it was sent."""
    agreed: SharesRequest | None = None
    seed: str = ""
    """Of the site's own mask, hex."""
    sealed: dict[str, str] = Field(default_factory=dict)
    """What was sent to each other site."""
    shares: dict[str, tuple[str, str]] = Field(default_factory=dict)
    """Site, itself among them -> the shares it gave to this one, of its seed and of its key for masks."""
    senders: tuple[str, ...] = ()
    """The sites whose masks are in what this one masked, itself among them."""


class SecureMemory:
    """The folder of one run. Every method raises `InputFault` where it cannot be read or written."""

    def __init__(self, site: SiteConfig, study: str, run: str) -> None:
        self._site = site
        self._folder = site.state / study / run / FOLDER

    def begin(self, kept: KeptSession) -> None:
        """Forget the last session and keep this one."""
        with self._usable():
            for name in (SESSION, MASKED):
                (self._folder / name).unlink(missing_ok=True)
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keep(kept)

    def keep(self, kept: KeptSession) -> None:
        with self._usable():
            write_text(self._folder / SESSION, kept.model_dump_json())

    def session(self, wanted: str) -> KeptSession:
        """The session under way, which must be the one that is asked about."""
        known = self.latest()
        if known is None or known.asked.session != wanted:
            raise InputFault(
                f"site {self._site.name}",
                "knows nothing of this sum, or has begun another one since",
                "begin the sum anew, with new keys",
            )
        return known

    def latest(self) -> KeptSession | None:
        path = self._folder / SESSION
        with self._usable():
            return KeptSession.model_validate_json(path.read_bytes()) if path.is_file() else None

    def masked(self) -> tuple[MaskedReply, Vector] | None:
        """What this site sent in the session under way."""
        path = self._folder / MASKED
        with self._usable():
            if not path.is_file():
                return None
            with safe_open(path, framework="np") as file:
                vector = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                return MaskedReply.model_validate_json(file.metadata()[REPLY]), vector

    def keep_masked(self, reply: MaskedReply, vector: Vector) -> None:
        with self._usable():
            write_bytes(self._folder / MASKED, save(vector, metadata={REPLY: reply.model_dump_json()}))

    def opened(self) -> dict[str, list[str]]:
        """Purpose -> the sites whose sum this one helped to open."""
        path = self._folder / OPENED
        with self._usable():
            return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}

    def keep_opened(self, opened: dict[str, list[str]]) -> None:
        with self._usable():
            write_text(self._folder / OPENED, json.dumps(opened))

    @contextmanager
    def _usable(self) -> Iterator[None]:
        try:
            yield
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as fault:
            said = fault.strerror if isinstance(fault, OSError) and fault.strerror else type(fault).__name__
            raise InputFault(
                f"site {self._site.name}",
                f"cannot read or keep what it masks with ({said})",
                "the site frees or mends its `state` folder; nothing is masked without it",
            ) from None
