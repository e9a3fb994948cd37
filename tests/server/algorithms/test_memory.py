"""What a site remembers under a strategy: what never leaves it, what it goes on from, what is forgotten."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from flwr.app import Error, Message

from client.state import KEPT_ROUNDS
from hymate.protocol import FinetuneRequest, TrainReply
from hymate.train.checkpoint import load_arrays
from strategies.wire import pack, unpack, unpack_weights
from tests.in_process import Tamper
from tests.server.algorithms.runs import (
    FINETUNE,
    OWN,
    PRETRAIN,
    SCORE,
    SITES,
    STRATEGIES,
    Ran,
    carry,
    fine_tuned,
    own_names,
    ranked,
    request_of,
    weights,
    whole,
)
from tests.server.studies import Broken, origin


def spoilt(reply: Message, made: Callable[[dict[str, np.ndarray]], None]) -> Message:
    arrays = {name: np.array(array) for name, array in unpack_weights(reply.content).items()}
    made(arrays)
    record = unpack(reply.content, TrainReply)
    return Message(pack(record, arrays, record.stays), reply_to=origin(reply))


class NotCounted:
    """hospital_2's reply to one round of fine-tuning does not count: in one of three ways."""

    def __init__(self, how: str, number: int) -> None:
        self.how, self.number, self._seen = how, number, 0

    def tamper(self, site: str, reply: Message) -> Message:
        if site != "hospital_2" or reply.metadata.message_type != FINETUNE:
            return reply
        self._seen += 1
        if self._seen != self.number or self.how == "late":
            return reply
        if self.how == "lost":
            return Message(Error(code=2, reason="connection lost"), reply_to=origin(reply))

        def nan(arrays: dict[str, np.ndarray]) -> None:
            next(iter(arrays.values())).flat[0] = np.nan

        return spoilt(reply, nan)

    def delay(self, site: str, message: Message) -> float:
        if message.metadata.message_type != FINETUNE:
            return 0.0
        late = site == "hospital_2" and request_of(message)["round"] == self.number
        return 80.0 if self.how == "late" and late else 30.0


@pytest.mark.parametrize(
    ("name", "how"),
    [("scaffold", "quarantined"), ("scaffold", "lost"), ("scaffold", "late"), ("feddyn", "late")],
)
def test_a_round_that_did_not_count_leaves_both_halves_in_step(
    name: str, how: str, laid_out: Path, tmp_path: Path
) -> None:
    """The server's sum over all sites is that of what the sites remember, though one trained in vain."""
    fault = NotCounted(how, 2)
    rules = {"quorum": 1, "retries": 0, "deadline_minutes": 1}
    ran = carry(
        laid_out,
        tmp_path / "run",
        {"name": name},
        rounds=3,
        tamper=fault.tamper,
        delay=fault.delay,
        **rules,
    )
    outcomes = [
        (line["site"], line["round"], line["outcome"])
        for line in map(json.loads, (ran.folder / "participation.jsonl").read_text().splitlines())
        if line["phase"] == "finetune" and line["outcome"] in ("quarantined", "failed", "late")
    ]
    assert outcomes == [("hospital_2", 2, {"lost": "failed"}.get(how, how))]
    assert [request_of(m)["folded"] for m in ran.told(FINETUNE) if m.metadata.dst_node_id == 11] == [
        0,
        1,
        1,
    ]
    assert ran.kept("hospital_2") == [1, 3]  # round 2 is gone

    group = {"scaffold": "control/", "feddyn": "gradient/"}[name]
    state = {key.removeprefix(group): x for key, x in ran.last().strategy.items() if key.startswith(group)}
    assert set(state) == set(ran.last().weights)
    moved = 0.0
    for key, summed in state.items():
        sites = [ran.remembered(site)[f"algorithm/{key}"].double().numpy() for site in SITES[:2]]
        np.testing.assert_allclose(summed, np.mean(sites, axis=0), atol=1e-7)  # equally many stays
        moved = max(moved, float(np.abs(summed).max()))
    assert moved > 1e-4


def test_own_layers_never_leave_a_site(own: Ran) -> None:
    names = own_names(own)
    assert "classification_head.out.weight" in names
    assert "norm.weight" in names
    for kind in (PRETRAIN, FINETUNE):
        for reply in own.grid.replies:
            if reply.metadata.message_type == kind:
                sent = {
                    name for name, _, _ in json.loads(str(reply.content.config_records["config"]["layout"]))
                }
                assert sent == set(own.last().weights) - names
    for message in own.told(FINETUNE) + own.told(SCORE):  # nor does one site's reach another
        for name in names:
            first = unpack_weights(own.told(PRETRAIN)[0].content)[name]
            assert unpack_weights(message.content)[name].tobytes() == first.tobytes()


def test_own_layers_are_each_site_s_own_and_it_goes_on_from_them(own: Ran) -> None:
    """Every message is answered by a process that knows only what is on the disk."""
    norm, head = "layers/norm.weight", "layers/classification_head.out.weight"
    first, second = (own.remembered(site) for site in SITES[:2])
    assert not torch.equal(first[norm], second[norm])
    assert not torch.equal(first[head], second[head])
    rounds = [own.memory("hospital_1").recall(number)[head] for number in (1, 2, 3)]
    steps = [float((after - before).norm()) for before, after in pairwise(rounds)]
    begun = unpack_weights(own.told(FINETUNE)[0].content)["classification_head.out.weight"]
    assert float((rounds[-1] - torch.from_numpy(begun)).norm()) > max(steps) > 0


def test_fine_tuning_begins_with_the_layers_of_pretraining(own: Ran) -> None:
    """Only the norms learn there; the head has its first weights."""
    pretrained = own.memory("hospital_2", "pretrain").recall(1)
    first = unpack_weights(own.told(PRETRAIN)[0].content)
    assert pretrained["layers/norm.weight"].numpy().tobytes() != first["norm.weight"].tobytes()
    assert pretrained["layers/classification_head.out.weight"].numpy().tobytes() == (
        first["classification_head.out.weight"].tobytes()
    )
    received = unpack(own.told(FINETUNE)[0].content, FinetuneRequest)
    model = whole(own, unpack_weights(own.told(FINETUNE)[0].content), pretrained)
    fine_tuned(own, "hospital_2", model, received, [0])
    remembered = own.memory("hospital_2").recall(1)
    for name in own_names(own):
        assert remembered[f"layers/{name}"].numpy().tobytes() == model.state_dict()[name].numpy().tobytes()


@pytest.mark.parametrize("which", ["own", "scaffolded", "fair"])
def test_all_that_is_remembered_survives_a_restart_of_the_coordinator(
    which: str, laid_out: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """It broke off where one site had trained the second round, and nobody knows: the same bits."""
    undisturbed: Ran = request.getfixturevalue(which)
    left = [3]

    def tamper(site: str, reply: Message) -> Message:
        if reply.metadata.message_type == FINETUNE:
            left[0] -= 1
            if not left[0]:
                raise Broken
        return reply

    with pytest.raises(Broken):
        carry(laid_out, tmp_path / "run", STRATEGIES[which], rounds=3, tamper=tamper)
    again = carry(laid_out, tmp_path / "run", STRATEGIES[which], rounds=3)
    assert weights(again) == weights(undisturbed)
    assert again.report["sites"] == undisturbed.report["sites"]
    for site in SITES[:2]:
        before, after = undisturbed.remembered(site), again.remembered(site)
        assert {name: x.numpy().tobytes() for name, x in before.items()} == {
            name: x.numpy().tobytes() for name, x in after.items()
        }
    for name, array in undisturbed.last().strategy.items():
        assert again.last().strategy[name].tobytes() == array.tobytes()


def test_evaluation_goes_back_to_the_layers_of_the_best_round(laid_out: Path, tmp_path: Path) -> None:
    """Kept for it while the rounds after it were forgotten, but for the last."""
    ran = carry(laid_out, tmp_path / "run", {"local_layers": OWN}, rounds=7, tamper=ranked(1))
    assert ran.report["rounds"]["best"] == 1
    for site in SITES[:2]:
        assert ran.kept(site) == [1, *range(8 - KEPT_ROUNDS, 8)]
        model, best = ran.own_model(site).state_dict(), ran.memory(site).recall(1)
        last = ran.memory(site).recall(7)
        for name in own_names(ran):
            assert torch.equal(model[name], best[f"layers/{name}"]), name
        assert not torch.equal(last["layers/norm.weight"], best["layers/norm.weight"])
        shared = ran.last().best["embedding.feature.weight"]
        assert model["embedding.feature.weight"].numpy().tobytes() == shared.tobytes()


@pytest.mark.parametrize("phase", [FINETUNE, PRETRAIN])
def test_layers_of_a_last_round_that_did_not_count_are_not_used(
    phase: str, laid_out: Path, tmp_path: Path
) -> None:
    """Of fine-tuning: not in evaluation. Of pretraining: not as the beginning of fine-tuning."""
    seen = [0]

    def tamper(site: str, reply: Message) -> Message:
        if site != "hospital_2" or reply.metadata.message_type != phase:
            return reply
        seen[0] += 1
        if seen[0] != (2 if phase == FINETUNE else 1):
            return reply
        return Message(Error(code=2, reason="connection lost"), reply_to=origin(reply))

    ran = carry(
        laid_out,
        tmp_path / "run",
        {"local_layers": OWN},
        tamper=_both(tamper, ranked(2)),
        quorum=1,
        retries=0,
    )
    assert ran.report["rounds"]["best"] == 2
    if phase == FINETUNE:
        assert ran.kept("hospital_2") == [1, 2]
        model, counted = ran.own_model("hospital_2").state_dict(), ran.memory("hospital_2").recall(1)
        for name in own_names(ran):
            assert torch.equal(model[name], counted[f"layers/{name}"]), name
        return
    assert ran.kept("hospital_2", "pretrain") == [1]
    message = next(m for m in ran.told(FINETUNE) if m.metadata.dst_node_id == 11)
    model = whole(ran, unpack_weights(message.content), {})
    fine_tuned(ran, "hospital_2", model, unpack(message.content, FinetuneRequest), [0])
    kept = ran.memory("hospital_2").recall(1)["layers/norm.weight"]
    assert kept.numpy().tobytes() == model.state_dict()["norm.weight"].numpy().tobytes()


def _both(first: Tamper, second: Tamper) -> Tamper:
    def tamper(site: str, reply: Message) -> Message:
        changed = first(site, reply)
        return changed if changed.has_error() else second(site, changed)

    return tamper


def test_what_a_site_remembers_of_an_algorithm_is_pruned(laid_out: Path, tmp_path: Path) -> None:
    ran = carry(laid_out, tmp_path / "run", {"name": "feddyn"}, rounds=6, tamper=ranked(0))
    assert ran.kept("hospital_1") == list(range(7 - KEPT_ROUNDS, 7))
    (file,) = (ran.folder / "sites/hospital_1/state").rglob("finetune/strategy-00006.safetensors")
    assert set(load_arrays(file)) == {f"algorithm/{name}" for name in ran.last().weights}
