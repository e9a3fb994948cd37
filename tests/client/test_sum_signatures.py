"""A coordinator cannot put keys of its own, or of another sum, in the place of a known site's."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.keygen import make_key
from client.secure_aggregation import give_keys, give_shares
from client.site import SecurePolicy, SiteConfig, load_site
from hymate.errors import InputFault
from hymate.secure_protocol import PublicKeys, SharesRequest
from strategies.secure.keys import PrivateKey
from tests.secure_sums import SecureSum, hospitals

NAMES = ("h00", "h01", "h02")


@pytest.fixture
def sites(tmp_path: Path) -> dict[str, SiteConfig]:
    """Three that have keys and know one another."""
    keys = {name: make_key(tmp_path / "keys", name) for name in NAMES}
    known = {name: key.public.read_text().strip() for name, key in keys.items()}
    policy = SecurePolicy(min_summed=2, known_sites=known)
    return {
        name: site.model_copy(
            update={
                "key": keys[name].private,
                "policy": site.policy.model_copy(update={"secure_aggregation": policy}),
            }
        )
        for name, site in hospitals(tmp_path, 3).items()
    }


def asked(sites: dict[str, SiteConfig], number: int = 1) -> tuple[SecureSum, SharesRequest]:
    """What the coordinator tells all sites of the keys that they gave."""
    run = SecureSum(sites, 2, number=number, gone=dict.fromkeys(NAMES, "shares"))
    run.keys()
    run.shares()
    return run, run.shares_request


def with_keys(request: SharesRequest, name: str, keys: PublicKeys) -> SharesRequest:
    told = {**request.terms.keys, name: keys}
    return request.model_copy(update={"terms": request.terms.model_copy(update={"keys": told})})


def test_signed_keys_are_taken_and_the_same_when_asked_again(sites: dict[str, SiteConfig]) -> None:
    run, request = asked(sites)
    assert set(give_shares(sites["h00"], request).shares) == {"h01", "h02"}
    again = give_keys(sites["h01"], run.session.keys_request())
    assert again.keys == request.terms.keys["h01"]
    assert len(bytes.fromhex(again.keys.signature)) > 90


def test_keys_of_the_coordinator_s_own(sites: dict[str, SiteConfig]) -> None:
    _, request = asked(sites)
    true = request.terms.keys["h01"]
    other = PrivateKey.make().public
    for swapped in (
        true.model_copy(update={"masks": other}),
        true.model_copy(update={"shares": other}),
        true.model_copy(update={"signature": ""}),
        true.model_copy(update={"signature": "no hex"}),
        true.model_copy(update={"signature": request.terms.keys["h02"].signature}),
    ):
        with pytest.raises(InputFault, match="under the name of site 'h01' that it did not sign"):
            give_shares(sites["h00"], with_keys(request, "h01", swapped))


def test_keys_that_were_signed_for_another_sum(sites: dict[str, SiteConfig]) -> None:
    _, before = asked(sites, number=1)
    _, request = asked(sites, number=2)
    with pytest.raises(InputFault, match="'h01' that it did not sign"):
        give_shares(sites["h00"], with_keys(request, "h01", before.terms.keys["h01"]))


def test_a_site_that_nobody_knows(sites: dict[str, SiteConfig]) -> None:
    _, request = asked(sites)
    keys = PublicKeys(masks=PrivateKey.make().public, shares=PrivateKey.make().public)
    with pytest.raises(InputFault, match="does not know the site 'invented'"):
        give_shares(sites["h00"], with_keys(request, "invented", keys))


def test_without_a_list_the_coordinator_is_believed(tmp_path: Path) -> None:
    _, request = asked(hospitals(tmp_path, 3))
    assert request.terms.keys["h01"].signature == ""  # a site without a node key
    site = hospitals(tmp_path, 3)["h00"]
    assert set(give_shares(site, request).shares) == {"h01", "h02"}


@pytest.mark.parametrize("line", ["", "ssh-rsa AAAA", "ecdsa-sha2-nistp384 AAAA north"])
def test_a_list_with_something_else_than_keys(line: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(
        f"name: a\ndata: meds\npolicy: {{secure_aggregation: {{known_sites: {{b: '{line}'}}}}}}\n"
    )
    with pytest.raises(InputFault, match=r"copy the line of the site's .pub file"):
        load_site(path)
