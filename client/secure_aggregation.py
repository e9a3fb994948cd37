"""The site's half of a sum in secret (`hymate.secure_protocol`): four answers, and when it gives none.

What a site refuses does not depend on the coordinator's good will: a sum of fewer sites than its policy
says, a threshold that two different sets of sites could reach, keys that a known site did not sign, other
terms than the others were told, shares of the seed and of the key of the same site, and to open a sum again
for other sites.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from client.secure_memory import KeptSession, SecureMemory
from client.site import SiteConfig
from client.sum_signatures import demand_known, signature_of
from hymate.errors import InputFault
from hymate.protocol import MaskedReply, RoundRequest
from hymate.scoring_protocol import EvaluateRequest
from hymate.secure_protocol import (
    KeysReply,
    KeysRequest,
    Masked,
    PublicKeys,
    SessionOf,
    SharesReply,
    SharesRequest,
    Terms,
    UnmaskReply,
    UnmaskRequest,
)
from strategies.arrays import Weights
from strategies.secure.keys import NotOpened, PrivateKey, opened, parted, sealed
from strategies.secure.ring import OutOfBounds, Vector, masked
from strategies.secure.terms import purpose_of, terms_digest, work_digest

SEED_BYTES = 32


def give_keys(site: SiteConfig, request: KeysRequest) -> KeysReply:
    """Two key pairs for this session alone; the same where it is asked again."""
    least = site.policy.secure_aggregation.min_summed
    if request.threshold < least:
        raise _refused(
            site,
            f"its policy takes part in sums of {least} sites, and {request.threshold} could open this one",
            "raise secure_aggregation.threshold, or have the site lower policy.secure_aggregation.min_summed",
        )
    memory = SecureMemory(site, request.study, request.run)
    kept = memory.latest()
    if kept is None or kept.asked.session != request.session:
        unsigned = KeptSession(
            asked=request,
            mask_key=PrivateKey.make().number.hex(),
            share_key=PrivateKey.make().number.hex(),
        )
        signature = signature_of(site, request, _public_keys(unsigned))
        kept = unsigned.model_copy(update={"signature": signature})
        memory.begin(kept)
    elif kept.asked != request:
        raise _refused(site, "was asked for keys of this sum on other terms", _ANEW)
    return KeysReply(site=site.name, keys=_public_keys(kept))


def give_shares(site: SiteConfig, request: SharesRequest) -> SharesReply:
    """For each other site its share of this one's seed and key, sealed; the same where it is asked again."""
    memory, kept = _session(site, request)
    if kept.agreed is not None:
        if kept.agreed != request:
            raise _refused(site, "was told of this sum on other terms", _ANEW)
        return SharesReply(site=site.name, shares=kept.sealed)
    _check_terms(site, request.terms, kept)
    terms, digest = request.terms, terms_digest(request)
    names = sorted(terms.keys)
    seed = secrets.token_bytes(SEED_BYTES)
    seeds = dict(zip(names, parted(seed, terms.threshold, len(names)), strict=True))
    keys = dict(zip(names, parted(bytes.fromhex(kept.mask_key), terms.threshold, len(names)), strict=True))
    own = PrivateKey(bytes.fromhex(kept.share_key))
    others = {}
    for name in names:
        if name != site.name:
            told = {"from": site.name, "to": name, "terms": digest, "seed": seeds[name], "key": keys[name]}
            with _readable(site):
                others[name] = sealed(own.agreed_with(terms.keys[name].shares), json.dumps(told))
    memory.keep(
        kept.model_copy(
            update={
                "agreed": request,
                "seed": seed.hex(),
                "sealed": others,
                "shares": {site.name: (seeds[site.name], keys[site.name])},
            }
        )
    )
    return SharesReply(site=site.name, shares=others)


def masked_answer(
    site: SiteConfig,
    request: RoundRequest | EvaluateRequest,
    asked: Masked,
    weights: Weights,
    answer: Callable[[Terms], tuple[MaskedReply, Vector]],
) -> tuple[MaskedReply, Vector]:
    """What `answer` gives, masked; what was masked before, where it is asked again: two vectors under the
    same masks would give their difference away.

    Args:
        weights: all arrays as they came with the request.
    """
    memory = SecureMemory(site, request.study, request.run)
    kept = memory.session(asked.session)
    terms = _terms(site, kept)
    if terms.purpose != purpose_of(request) or terms.work != work_digest(request, weights):
        raise _refused(site, "is asked for something else than this sum was agreed on", _ANEW)
    shares = _opened_shares(site, kept, terms, asked)
    senders = tuple(sorted(shares))
    if kept.senders and kept.senders != senders:
        raise _refused(site, "was told of other sites whose masks count", _ANEW)
    before = memory.masked()
    if before is not None:
        return before
    try:
        reply, vector = answer(terms)
    except OutOfBounds as fault:
        raise _refused(site, str(fault), "mend the training settings, or leave the site out") from None
    own = PrivateKey(bytes.fromhex(kept.mask_key))
    with _readable(site):
        pairs = {name: own.seed_with(terms.keys[name].masks) for name in senders if name != site.name}
    hidden = masked(vector, site.name, bytes.fromhex(kept.seed), pairs)
    memory.keep(kept.model_copy(update={"shares": shares, "senders": senders}))
    memory.keep_masked(reply, hidden)
    return reply, hidden


def give_unmasking(site: SiteConfig, request: UnmaskRequest) -> UnmaskReply:
    """Shares of the seeds of sites in the sum and of the keys of those that are not, written down before."""
    memory, kept = _session(site, request)
    terms = _terms(site, kept)
    survivors, dropped = set(request.survivors), set(request.dropped)
    if not kept.senders or memory.masked() is None:
        raise _refused(site, "has masked nothing in this sum", _ANEW)
    if survivors & dropped:
        raise _refused(site, "never gives shares of both secrets of one site", _ANEW)
    if survivors | dropped != set(kept.senders):
        raise _refused(site, "is asked to open a sum of other sites than it masked for", _ANEW)
    if site.name not in survivors or len(survivors) < terms.threshold:
        raise _refused(site, f"opens no sum of fewer than {terms.threshold} sites, or without itself", _ANEW)
    known = memory.opened()
    before = known.setdefault(terms.purpose, sorted(survivors))
    if before != sorted(survivors):
        raise _refused(
            site,
            f"has helped to open '{terms.purpose}' for other sites: the two sums would give one site away",
            "begin the study anew",
        )
    memory.keep_opened(known)
    return UnmaskReply(
        site=site.name,
        seeds={name: kept.shares[name][0] for name in sorted(survivors)},
        keys={name: kept.shares[name][1] for name in sorted(dropped)},
    )


_ANEW = "begin the sum anew, with new keys"


def _session(site: SiteConfig, request: SessionOf) -> tuple[SecureMemory, KeptSession]:
    memory = SecureMemory(site, request.study, request.run)
    return memory, memory.session(request.session)


def _terms(site: SiteConfig, kept: KeptSession) -> Terms:
    if kept.agreed is None:
        raise _refused(site, "has given no shares in this sum", _ANEW)
    return kept.agreed.terms


def _check_terms(site: SiteConfig, terms: Terms, kept: KeptSession) -> None:
    asked, sites = kept.asked, len(terms.keys)
    if (terms.purpose, terms.threshold) != (asked.purpose, asked.threshold):
        raise _refused(site, "gave its keys for a sum on other terms", _ANEW)
    if terms.keys.get(site.name) != _public_keys(kept):
        raise _refused(site, "finds other keys than its own under its name", _ANEW)
    public = [key for keys in terms.keys.values() for key in (keys.masks, keys.shares)]
    if len(set(public)) != len(public):
        raise _refused(site, "finds one key under two names", _ANEW)
    demand_known(site, asked, terms.keys)
    if not sites / 2 < terms.threshold <= sites:
        raise _refused(
            site,
            f"takes part in no sum of {sites} sites that {terms.threshold} can open",
            "a threshold is more than half of the sites, and not more than all",
        )


def _opened_shares(
    site: SiteConfig, kept: KeptSession, terms: Terms, asked: Masked
) -> dict[str, tuple[str, str]]:
    """Site -> the shares it gave to this one, its own among them."""
    strangers = set(asked.shares) - set(terms.keys)
    if strangers or site.name in asked.shares or len(asked.shares) + 1 < terms.threshold:
        raise _refused(site, f"masks nothing for fewer than {terms.threshold} of the sites agreed on", _ANEW)
    assert kept.agreed is not None  # it has terms
    digest = terms_digest(kept.agreed)
    own = PrivateKey(bytes.fromhex(kept.share_key))
    shares = {site.name: kept.shares[site.name]}
    for name, token in asked.shares.items():
        with _readable(site):
            told = json.loads(opened(own.agreed_with(terms.keys[name].shares), token))
        if (told["from"], told["to"], told["terms"]) != (name, site.name, digest):
            raise _refused(site, f"was told other terms of this sum than site {name}", _ANEW)
        shares[name] = (told["seed"], told["key"])
    return shares


def _public_keys(kept: KeptSession) -> PublicKeys:
    return PublicKeys(
        masks=PrivateKey(bytes.fromhex(kept.mask_key)).public,
        shares=PrivateKey(bytes.fromhex(kept.share_key)).public,
        signature=kept.signature,
    )


@contextmanager
def _readable(site: SiteConfig) -> Iterator[None]:
    try:
        yield
    except NotOpened as fault:
        raise _refused(site, f"cannot use what it was sent: {fault}", _ANEW) from None


def _refused(site: SiteConfig, what: str, remedy: str) -> InputFault:
    return InputFault(f"site {site.name}", what, remedy)
