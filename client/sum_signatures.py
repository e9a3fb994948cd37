"""Whose the keys of a sum are: each site signs its own with its node key, and checks the others' by a list.

Without it a coordinator that puts keys of its own in another site's place reads what that site was sent, and
with enough such places opens one site's numbers. The list is the site's own (`policy.secure_aggregation.
known_sites`), made of the public keys that the hospitals gave one another past the coordinator.
"""

from __future__ import annotations

import json

from flwr.supercore.primitives.asymmetric import sign_message, verify_signature

from client.keygen import private_key_of, public_key_from
from client.site import SiteConfig
from hymate.errors import InputFault
from hymate.secure_protocol import KeysRequest, PublicKeys


def signature_of(site: SiteConfig, asked: KeysRequest, keys: PublicKeys) -> str:
    """Hex; "" for a site without a node key, as in a simulation."""
    if site.key is None:
        return ""
    return sign_message(private_key_of(site.key), _message(site.name, asked, keys)).hex()


def demand_known(site: SiteConfig, asked: KeysRequest, told: dict[str, PublicKeys]) -> None:
    """Raise `InputFault` unless each other site's keys are signed by the one that the site's list has.

    Args:
        asked: for which sum this site gave its own keys: the others' signatures must be for the same.
    """
    known = site.policy.secure_aggregation.known_sites
    if known is None:
        return
    for name, keys in told.items():
        if name == site.name:
            continue
        if name not in known:
            raise InputFault(
                f"site {site.name}",
                f"does not know the site '{name}' of this sum",
                "leave it out of the study, or have the site add its public key to "
                "`policy.secure_aggregation.known_sites`",
            )
        if not _signed_by(known[name], name, asked, keys):
            raise InputFault(
                f"site {site.name}",
                f"finds keys under the name of site '{name}' that it did not sign",
                f"see that {name} has a `key` and this site its public half; if both are right, somebody "
                "else made those keys",
            )


def _signed_by(line: str, name: str, asked: KeysRequest, keys: PublicKeys) -> bool:
    try:
        signature = bytes.fromhex(keys.signature)
    except ValueError:
        return False
    return verify_signature(public_key_from(line), _message(name, asked, keys), signature)


def _message(name: str, asked: KeysRequest, keys: PublicKeys) -> bytes:
    """What is signed: of which sum, on which terms, by whom; it begins with what nothing else that the node
    key signs begins with."""
    content = {**asked.model_dump(), "site": name, "masks": keys.masks, "shares": keys.shares}
    return b"hymate secure sum 1 " + json.dumps(content, sort_keys=True).encode()
