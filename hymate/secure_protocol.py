"""What coordinator and sites say to each other to sum in secret (`strategies.secure`), as typed records.

coordinator                                     each site
KeysRequest                                -->  makes two key pairs for this session alone
                      public keys          <--  KeysReply
SharesRequest         everybody's keys     -->  makes its own mask's seed; parts seed and key into shares
                      sealed shares        <--  SharesReply, one for each other site
any request + Masked  the shares for it    -->  does what is asked, and masks it
                      masked numbers       <--  MaskedReply (`hymate.protocol`)
UnmaskRequest         who is in the sum    -->  of a site in it a share of its seed, of one that is not a
                                                share of its key; never both
                                           <--  UnmaskReply
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hymate.frozen import Frozen, Positive

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class SessionOf(Frozen):
    """Which attempt at which sum of which run of a study; each attempt has keys of its own."""

    study: str
    run: str
    session: Id


class KeysRequest(SessionOf):
    purpose: str
    """What is summed (`finetune 3`): once opened, it is opened again for the same sites alone."""
    threshold: Annotated[int, Field(ge=2)]
    """Shares that open it."""


class PublicKeys(Frozen):
    """A site's public keys (PEM), for the masks it has in common with each other site, and for shares."""

    masks: str
    shares: str
    signature: str = ""
    """By the site's node key, hex, of the request for them and both; "": the site has none."""


class KeysReply(Frozen):
    site: str
    keys: PublicKeys


class Terms(Frozen):
    """What all sites of a sum must have been told alike: each compares it with every other by a digest."""

    purpose: str
    threshold: int
    keys: dict[str, PublicKeys]
    """Of every site that takes part."""
    work: str
    """Digest of the request and the weights that are sent (`strategies.secure.terms`)."""
    bits: Literal[16, 32, 64]
    clipping_range: Positive
    heaviest: Positive
    """The largest weight that a site may have."""
    scores: Literal["summed", "told", "none"]
    """Whether a round's report on the weights received is part of the sum, told beside it, or not wanted."""


class SharesRequest(SessionOf):
    terms: Terms


class SharesReply(Frozen):
    site: str
    shares: dict[str, str]
    """For each other site what only it can read: sealed shares of the sender's seed and key."""


class Masked(Frozen):
    """Beside a request: its answer is to be masked."""

    session: Id
    shares: dict[str, str]
    """By sender: the sites whose masks count, but for the one that is asked."""
    weight: Positive | None = None
    """How much the site counts, where it may not tell by its own number of stays: in rounds with noise."""


class UnmaskRequest(SessionOf):
    survivors: tuple[str, ...]
    """Sites whose masked numbers are in the sum ..."""
    dropped: tuple[str, ...]
    """... and those that shared keys and sent none."""


class UnmaskReply(Frozen):
    site: str
    seeds: dict[str, str]
    """Shares (hex) of the survivors' own seeds."""
    keys: dict[str, str]
    """Shares (hex) of the dropped sites' keys for masks."""
