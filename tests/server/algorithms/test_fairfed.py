"""FairFed through the real ClientApp: which counts are sent, and which stay."""

from __future__ import annotations

from pathlib import Path

import pytest

from hymate.protocol import TrainReply
from hymate.train.scoring import labelled, score
from server.failure import StudyFailure
from strategies.wire import unpack, unpack_weights
from tests.server.algorithms.runs import FINETUNE, PRETRAIN, SITES, Ran, carry, whole


def test_fairfed_sends_counts_of_the_weights_received(fair: Ran) -> None:
    ran = fair
    for reply in ran.grid.replies:
        if reply.metadata.message_type == PRETRAIN:
            assert unpack(reply.content, TrainReply).facts == {}
    replies = [unpack(r.content, TrainReply) for r in ran.grid.replies if r.metadata.message_type == FINETUNE]
    message = ran.told(FINETUNE)[-1]
    model = whole(ran, unpack_weights(message.content), {})
    for reply in replies[-2:]:
        store = ran.store(reply.site)
        rows = labelled(store, "train")
        right = (score(model, store, rows) >= 0.5) == (store.label[rows] == 1)
        member = store.static[rows, store.header.static_names.index("GENDER//F")] == 1
        assert reply.facts == {
            "right": right.sum(),
            "wrong": (~right).sum(),
            "member_right": (right & member).sum(),
            "member_wrong": (~right & member).sum(),
            "other_right": (right & ~member).sum(),
            "other_wrong": (~right & ~member).sum(),
        }
    state = ran.last().strategy
    moved = [float(state[f"moved/{site}"]) for site in SITES[:2]]
    assert moved[0] == pytest.approx(-moved[1], abs=1e-12)
    assert moved[0] != 0


def test_fairfed_keeps_small_counts_at_the_site(laid_out: Path, tmp_path: Path) -> None:
    strategy = {"name": "fairfed", "group": "GENDER//F"}
    ran = carry(laid_out, tmp_path / "run", strategy, rounds=2, min_cell=5)
    said = [
        unpack(reply.content, TrainReply).facts
        for reply in ran.grid.replies
        if reply.metadata.message_type == FINETUNE
    ]
    assert all(count == 0 or count >= 5 for facts in said for count in facts.values())
    assert any("right" in facts for facts in said)


def test_a_group_that_nobody_knows_ends_the_study_in_one_line(laid_out: Path, tmp_path: Path) -> None:
    with pytest.raises(StudyFailure, match=r"no static code 'GENDER//X'; name one of: .*GENDER//F"):
        carry(laid_out, tmp_path / "run", {"name": "fairfed", "group": "GENDER//X"}, rounds=1)
