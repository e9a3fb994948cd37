"""What a site refuses in a sum, and that any of its answers may be a new process's."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from client.secure_aggregation import give_keys, give_shares, give_unmasking, masked_answer
from client.secure_memory import FOLDER, SESSION
from hymate.errors import InputFault
from hymate.protocol import MaskedReply
from hymate.secure_protocol import KeysRequest, Terms, UnmaskRequest
from strategies.secure.ring import OutOfBounds, Vector
from strategies.secure.terms import work_digest
from tests.secure_sums import RINGS, WEIGHTS, SecureSum, answering, hospital, hospitals

ZEROS: Vector = {"update": np.zeros(4, np.uint32)}
NOTHING = answering("h00", ZEROS)


@pytest.fixture
def run(tmp_path: Path) -> SecureSum:
    """Four sites, all of which gave shares."""
    made = SecureSum(hospitals(tmp_path, 4), 3)
    made.keys()
    made.shares()
    return made


def _masked(run: SecureSum) -> UnmaskRequest:
    run.masked(dict.fromkeys(run.sites, ZEROS))
    return run.session.unmask_request()


def test_fewer_sites_than_its_own_minimum(tmp_path: Path) -> None:
    site = hospital(tmp_path, "h00", min_summed=3)
    asked = KeysRequest(study="s", run="r", session="0" * 32, purpose="finetune 1", threshold=2)
    with pytest.raises(InputFault, match="sums of 3 sites, and 2"):
        give_keys(site, asked)
    assert not (site.state / "s").exists()
    give_keys(site, asked.model_copy(update={"threshold": 3}))


@pytest.mark.parametrize(("threshold", "accepted"), [(2, False), (3, True), (4, True), (5, False)])
def test_a_threshold_that_two_sets_of_sites_could_reach(
    threshold: int, accepted: bool, tmp_path: Path
) -> None:
    run = SecureSum(hospitals(tmp_path, 4), threshold)
    run.keys()
    if accepted:
        run.shares()
        return
    with pytest.raises(InputFault, match=f"no sum of 4 sites that {threshold} can open"):
        run.shares()


def test_both_secrets_of_one_site(run: SecureSum) -> None:
    asked = _masked(run)
    both = asked.model_copy(update={"dropped": ("h03",)})
    with pytest.raises(InputFault, match="never gives shares of both"):
        give_unmasking(run.sites["h00"], both)


def test_other_sites_than_it_masked_for(run: SecureSum) -> None:
    asked = _masked(run)
    for survivors, dropped in ((("h00", "h01", "h02"), ()), (asked.survivors, ("stranger",))):
        changed = asked.model_copy(update={"survivors": survivors, "dropped": dropped})
        with pytest.raises(InputFault, match="other sites than it masked for"):
            give_unmasking(run.sites["h00"], changed)


def test_fewer_survivors_than_the_threshold_or_without_itself(run: SecureSum) -> None:
    asked = _masked(run)
    few = asked.model_copy(update={"survivors": ("h00", "h01"), "dropped": ("h02", "h03")})
    without = asked.model_copy(update={"survivors": ("h01", "h02", "h03"), "dropped": ("h00",)})
    for changed in (few, without):
        with pytest.raises(InputFault, match="fewer than 3 sites, or without itself"):
            give_unmasking(run.sites["h00"], changed)


def test_a_second_opening_for_other_sites(run: SecureSum, tmp_path: Path) -> None:
    asked = _masked(run)
    site = run.sites["h00"]
    first = give_unmasking(site, asked)
    assert give_unmasking(site, asked) == first  # a lost reply is no second opening
    without = asked.model_copy(update={"survivors": ("h00", "h01", "h02"), "dropped": ("h03",)})
    with pytest.raises(InputFault, match="has helped to open 'held_out 1' for other sites"):
        give_unmasking(site, without)
    again = SecureSum(run.sites, 3, {"h03": "keys"})
    again.keys()
    again.shares()
    with pytest.raises(InputFault, match="has helped to open 'held_out 1' for other sites"):
        give_unmasking(site, _masked(again))
    same = SecureSum(run.sites, 3)
    assert not same.run(dict.fromkeys(run.sites, ZEROS))["update"].any()
    other = SecureSum(run.sites, 3, {"h03": "keys"}, number=2)
    assert not other.run(dict.fromkeys(run.sites, ZEROS))["update"].any()


def test_a_changed_list_of_sites(run: SecureSum) -> None:
    site, asked = run.sites["h00"], run.shares_request
    fewer = {name: keys for name, keys in asked.terms.keys.items() if name != "h03"}
    changed = asked.model_copy(update={"terms": asked.terms.model_copy(update={"keys": fewer})})
    with pytest.raises(InputFault, match="was told of this sum on other terms"):
        give_shares(site, changed)
    assert give_shares(site, asked).shares == run.session._shares["h00"]


def test_a_site_that_was_told_other_terms_than_the_rest(tmp_path: Path) -> None:
    run = SecureSum(hospitals(tmp_path, 3), 2)
    run.keys()
    asked = run.session.shares_request(sorted(run.sites), **RINGS, work=work_digest(run.request, WEIGHTS))
    other = asked.model_copy(update={"terms": asked.terms.model_copy(update={"heaviest": 2.0})})
    for name, site in run.sites.items():
        assert run.session.took_shares(give_shares(site, other if name == "h02" else asked)) is None
    secure = run.session.masked_for("h00", sorted(run.sites))
    with pytest.raises(InputFault, match="other terms of this sum than site h02"):
        masked_answer(run.sites["h00"], run.request, secure, WEIGHTS, NOTHING)
    without = secure.model_copy(update={"shares": {"h01": secure.shares["h01"]}})
    masked_answer(run.sites["h00"], run.request, without, WEIGHTS, NOTHING)


def test_keys_that_are_not_the_site_s_own(run: SecureSum) -> None:
    site = run.sites["h02"]
    (site.state / "s" / "r" / FOLDER / SESSION).unlink()
    give_keys(site, run.session.keys_request())  # new ones, of which nobody was told
    with pytest.raises(InputFault, match="other keys than its own"):
        give_shares(site, run.shares_request)


def test_other_work_or_weights_than_were_agreed_on(run: SecureSum) -> None:
    site, asked = run.sites["h00"], run.asked_of("h00")
    assert asked.secure is not None
    for request, weights in (
        (asked.model_copy(update={"round": 2}), WEIGHTS),
        (asked.model_copy(update={"seed": 1}), WEIGHTS),
        (asked, {"w": np.arange(3.0) + 1e-12}),
    ):
        with pytest.raises(InputFault, match="asked for something else"):
            masked_answer(site, request, asked.secure, weights, NOTHING)
    folded = asked.model_copy(update={"folded": 3})  # in which sites differ
    masked_answer(site, folded, asked.secure, WEIGHTS, NOTHING)


def test_a_sum_under_another_s_name(tmp_path: Path) -> None:
    """Or the same round could be opened under many names, for other sites each time."""
    run = SecureSum(hospitals(tmp_path, 3), 2, purpose="held_out 9")
    run.keys()
    run.shares()
    with pytest.raises(InputFault, match="asked for something else"):
        run.mask("h00", ZEROS)


def test_masks_of_other_sites_than_before_or_of_too_few(run: SecureSum) -> None:
    site, asked = run.sites["h00"], run.asked_of("h00")
    assert asked.secure is not None
    shares = asked.secure.shares
    few = asked.secure.model_copy(update={"shares": {"h01": shares["h01"]}})
    with pytest.raises(InputFault, match="fewer than 3"):
        masked_answer(site, asked, few, WEIGHTS, NOTHING)
    swapped = asked.secure.model_copy(update={"shares": {**shares, "h01": shares["h02"]}})
    with pytest.raises(InputFault, match="a seal under another key"):
        masked_answer(site, asked, swapped, WEIGHTS, NOTHING)
    three = asked.secure.model_copy(update={"shares": {name: shares[name] for name in ("h01", "h02")}})
    masked_answer(site, asked, three, WEIGHTS, NOTHING)
    with pytest.raises(InputFault, match="other sites whose masks count"):
        masked_answer(site, asked, asked.secure, WEIGHTS, NOTHING)


def test_asked_again_it_sends_the_same_and_does_not_work_again(run: SecureSum) -> None:
    first = run.mask("h00", ZEROS)
    second = run.mask("h00", {"update": np.ones(4, np.uint32)})
    np.testing.assert_array_equal(first["update"], second["update"])


def test_what_cannot_be_summed_is_not_masked(run: SecureSum) -> None:
    asked = run.asked_of("h00")
    assert asked.secure is not None

    def fails(terms: Terms) -> tuple[MaskedReply, Vector]:
        raise OutOfBounds("its weights are not finite after training")

    with pytest.raises(InputFault, match="site h00: its weights are not finite"):
        masked_answer(run.sites["h00"], asked, asked.secure, WEIGHTS, fails)
    with pytest.raises(InputFault, match="has masked nothing"):
        give_unmasking(
            run.sites["h00"], run.session.unmask_request().model_copy(update={"survivors": ("h00",)})
        )


def test_a_sum_that_another_one_has_taken_the_place_of(run: SecureSum) -> None:
    asked = _masked(run)
    SecureSum(run.sites, 3).keys()
    with pytest.raises(InputFault, match="begun another one since"):
        give_unmasking(run.sites["h00"], asked)


def test_a_stranger_s_or_a_doubled_key(tmp_path: Path) -> None:
    run = SecureSum(hospitals(tmp_path, 3), 2)
    run.keys()
    keys = run.session._keys
    keys["h02"] = keys["h01"]
    with pytest.raises(InputFault, match="one key under two names"):
        run.shares()
    keys["h02"] = keys["h01"].model_copy(update={"masks": "no key", "shares": "none either"})
    with pytest.raises(InputFault, match="cannot use what it was sent"):
        run.shares()


def test_what_lies_on_the_disk_is_for_its_owner_alone_and_holds_between_processes(run: SecureSum) -> None:
    """Nothing is kept in memory: the halves are functions of the site file. Private keys never leave."""
    folder = run.sites["h00"].state / "s" / "r" / FOLDER
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    kept = (folder / SESSION).read_text()
    sent = run.shares_request.model_dump_json() + str(run.session._shares)
    for name in ("mask_key", "share_key", "seed"):
        secret = kept.split(f'"{name}":"')[1].split('"')[0]
        assert len(secret) >= 64
        assert secret not in sent


def test_its_short_answers_wait_for_no_torch() -> None:
    """Deployed, each of them is a process of its own."""
    loads = "import sys, client.secure_aggregation; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", loads], check=True)


def test_a_state_that_cannot_be_read_or_written_is_said_in_one_line(run: SecureSum) -> None:
    site = run.sites["h00"]
    session = site.state / "s" / "r" / FOLDER / SESSION
    session.write_text("{")
    with pytest.raises(InputFault, match=r"cannot read or keep what it masks with \(ValidationError\)"):
        give_shares(site, run.shares_request)
    session.unlink()
    session.mkdir()
    with pytest.raises(InputFault, match="cannot read or keep what it masks with"):
        give_keys(site, run.session.keys_request())
