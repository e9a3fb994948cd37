"""The coordinator's half of one attempt at one sum (`hymate.secure_protocol`), without any network.

It learns who took part, what they agreed on, and the sum; of what any one site sent it keeps nothing.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import cast

from hymate.secure_protocol import (
    KeysReply,
    KeysRequest,
    Masked,
    PublicKeys,
    SharesReply,
    SharesRequest,
    Terms,
    UnmaskReply,
    UnmaskRequest,
)
from strategies.arrays import Weights
from strategies.secure.keys import NotOpened, PrivateKey, together
from strategies.secure.ring import Vector, added, unmasked


class SecureSession:
    """Stages in this order: keys, shares, masked numbers, unmasking. Sites may drop out before each of them.

    `took_...` take a site's reply into account and say what is wrong with it, if anything.
    """

    def __init__(self, study: str, run: str, purpose: str, threshold: int) -> None:
        self._of = {"study": study, "run": run, "session": secrets.token_hex(16)}
        self._purpose, self._threshold = purpose, threshold
        self._keys: dict[str, PublicKeys] = {}
        self._terms: Terms | None = None
        self._shares: dict[str, dict[str, str]] = {}
        self._senders: tuple[str, ...] = ()
        self._total: Vector = {}
        self._summed: list[str] = []
        self._unmasking: dict[str, UnmaskReply] = {}

    @property
    def survivors(self) -> tuple[str, ...]:
        """Sites whose numbers are in the sum so far, by name."""
        return tuple(sorted(self._summed))

    def enough(self, sites: Collection[object]) -> bool:
        """Whether the session can go on with so many."""
        return len(sites) >= self._threshold

    def keys_request(self) -> KeysRequest:
        return KeysRequest(**self._of, purpose=self._purpose, threshold=self._threshold)

    def took_keys(self, reply: KeysReply) -> str | None:
        self._keys[reply.site] = reply.keys
        return None

    def shares_request(self, sites: Sequence[str], **rings: object) -> SharesRequest:
        """To these sites, all of which gave keys.

        Args:
            rings: the fields of `Terms` that say what is summed, and how it is written.
        """
        keys = {site: self._keys[site] for site in sorted(sites)}
        self._terms = Terms.model_validate(
            {"purpose": self._purpose, "threshold": self._threshold, "keys": keys, **rings}
        )
        return SharesRequest(**self._of, terms=self._terms)

    def took_shares(self, reply: SharesReply) -> str | None:
        others = set(self._agreed.keys) - {reply.site}
        if set(reply.shares) != others:
            return f"gave shares for {len(reply.shares)} sites instead of the {len(others)} others"
        self._shares[reply.site] = reply.shares
        return None

    def masked_for(self, site: str, senders: Sequence[str], weight: float | None = None) -> Masked:
        """What one of the `senders`, the sites whose shares came in time, needs to mask its numbers."""
        self._senders = tuple(sorted(senders))
        own = {sender: self._shares[sender][site] for sender in self._senders if sender != site}
        return Masked(session=self._of["session"], shares=own, weight=weight)

    def took_masked(self, site: str, arrays: Weights, expected: Mapping[str, tuple[int, str]]) -> str | None:
        """Args: expected: part -> size and type, as every site's must be."""
        found = {name: (array.size, array.dtype.name) for name, array in arrays.items()}
        if found != dict(expected) or any(array.ndim != 1 for array in arrays.values()):
            return "masked something else than was asked for"
        vector = cast(Vector, arrays)
        self._total = added(self._total, vector) if self._total else vector
        self._summed.append(site)
        return None

    def unmask_request(self) -> UnmaskRequest:
        dropped = tuple(site for site in self._senders if site not in self.survivors)
        return UnmaskRequest(**self._of, survivors=self.survivors, dropped=dropped)

    def took_unmasking(self, reply: UnmaskReply) -> str | None:
        asked = self.unmask_request()
        if (set(reply.seeds), set(reply.keys)) != (set(asked.survivors), set(asked.dropped)):
            return "gave shares of other sites than it was asked for"
        self._unmasking[reply.site] = reply
        return None

    def total(self) -> Vector:
        """The sum of the survivors' numbers.

        Raises:
            NotOpened: the shares do not fit each other, or not the keys that were announced.
        """
        asked = self.unmask_request()
        seeds = {site: together([giver.seeds[site] for giver in self._givers]) for site in asked.survivors}
        pairs = {}
        for site in asked.dropped:
            key = self._key_of(site)
            for survivor in asked.survivors:
                pairs[survivor, site] = key.seed_with(self._agreed.keys[survivor].masks)
        return unmasked(self._total, seeds, pairs)

    def _key_of(self, dropped: str) -> PrivateKey:
        key = PrivateKey(together([giver.keys[dropped] for giver in self._givers]))
        if key.public != self._agreed.keys[dropped].masks:
            raise NotOpened(f"the shares of {dropped}'s key are of another one")
        return key

    @property
    def _givers(self) -> list[UnmaskReply]:
        """As many as are needed."""
        return [self._unmasking[site] for site in sorted(self._unmasking)][: self._threshold]

    @property
    def _agreed(self) -> Terms:
        assert self._terms is not None  # the stages are in order
        return self._terms
