"""The site's secret: made once, for one pair of eyes, and what comes from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import pytest

from client.site import SiteConfig
from client.site_secret import PURPOSE, key_of, name_of, secret_path, site_secret
from hymate.errors import InputFault


@pytest.fixture
def site(tmp_path: Path) -> SiteConfig:
    return SiteConfig(name="north", data=tmp_path, state=tmp_path / "state")


def test_it_is_made_once_for_its_owner_alone(site: SiteConfig, tmp_path: Path) -> None:
    made = site_secret(site)
    assert len(made) == 32
    assert secret_path(site).stat().st_mode & 0o777 == 0o600
    assert site_secret(site) == made
    assert [path.name for path in site.state.iterdir()] == [secret_path(site).name], (
        "nothing is left beside it"
    )
    assert site_secret(site.model_copy(update={"state": tmp_path / "other"})) != made


def test_of_many_at_once_one_makes_it(site: SiteConfig) -> None:
    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(lambda _: site_secret(site), range(64)))) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601])
def test_a_secret_that_others_may_read_is_none(mode: int, site: SiteConfig) -> None:
    site_secret(site)
    secret_path(site).chmod(mode)
    with pytest.raises(InputFault, match=f"mode {mode:o}.*chmod 600"):
        site_secret(site)


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 33])
def test_what_is_no_secret(content: bytes, site: SiteConfig) -> None:
    site_secret(site)
    secret_path(site).write_bytes(content)
    with pytest.raises(InputFault, match="is no secret of a site"):
        site_secret(site)


def test_a_link_or_a_folder_is_not_followed(site: SiteConfig, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"x" * 32)
    site.state.mkdir()
    secret_path(site).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InputFault, match="cannot be read or made"):
        site_secret(site)
    secret_path(site).unlink()
    secret_path(site).mkdir()
    with pytest.raises(InputFault, match="cannot be read or made"):
        site_secret(site)


def test_keys_are_the_rounds_own() -> None:
    """HMAC-SHA256 (RFC 2104), so that neither secret nor other keys can be told from one."""
    one, other = b"\x01" * 32, b"\x02" * 32
    keys = {key_of(secret, identity) for secret in (one, other) for identity in ("a", "b", "ab")}
    assert len(keys) == 6
    block = one + bytes(32)
    inner = sha256(bytes(b ^ 0x36 for b in block) + PURPOSE + b"a").digest()
    assert key_of(one, "a") == sha256(bytes(b ^ 0x5C for b in block) + inner).digest()
    assert all(len(key) == 32 for key in keys)
    assert name_of(one) != name_of(other)
    assert name_of(one) not in key_of(one, "a").hex()
