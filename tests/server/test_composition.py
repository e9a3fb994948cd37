"""What composes with every algorithm, in whole studies through the real ClientApp: compression, weighting,
and the checks before anything is folded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Error, Message
from numpy.typing import NDArray
from safetensors.numpy import load_file

from hymate.protocol import TrainReply
from strategies.compression import SCALE, WHERE
from strategies.wire import BESIDE, pack, unpack, unpack_weights
from tests.in_process import Tamper
from tests.server.studies import Broken, Study, breaks_after, origin, outcomes

Weights = dict[str, NDArray[Any]]
SMALL = ["delta", {"name": "top_k", "share": 0.25}, "int8"]


Change = Callable[[Weights, Weights], None]


def at(study: Study, site: str, action: str, change: Change, from_round: int = 1) -> Tamper:
    """A hospital that changes what it sends in one phase, from one of its rounds on.

    `change` is given the arrays and the weights that the site had received.
    """
    seen = [0]

    def tamper(name: str, reply: Message) -> Message:
        if (name, reply.metadata.message_type) != (site, action):
            return reply
        seen[0] += 1
        if seen[0] < from_round:
            return reply
        node = next(node for node, name in study.grid.sites.items() if name == site)
        asked = [message for message in study.grid.sent if message.metadata.dst_node_id == node][-1]
        arrays = unpack_weights(reply.content)
        change(arrays, unpack_weights(asked.content))
        record = unpack(reply.content, TrainReply)
        return Message(pack(record, arrays, record.stays), reply_to=origin(reply))

    return tamper


@pytest.fixture(scope="module")
def hospitals(small_hospitals: Callable[[int], Path]) -> Path:
    return small_hospitals(3)


# --- compression --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compressed(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    study = Study(hospitals, tmp_path_factory.mktemp("compressed") / "run")
    study.run(rounds=(3, 2), strategy={"compression": SMALL, "local_layers": ["head"]})
    return study


def test_a_compressed_study_sends_less_and_learns_all_the_same(compressed: Study, study: Study) -> None:
    study.run(rounds=(3, 2), strategy={"local_layers": ["head"]})
    for phase in ("pretrain", "finetune"):
        for small, whole in zip(compressed.metrics(phase), study.metrics(phase), strict=True):
            # A quarter of the entries at one byte, and a bit for every entry, in place of four bytes
            # each: 0.094. Three headers of 128 bytes and a scale for each array are much for so small a
            # model.
            assert 0.094 < small["bytes_up"] / whole["bytes_up"] < 0.17
            assert small["bytes_down"] == whole["bytes_down"]
    errors = [[line["loss"] for line in one.metrics("pretrain")] for one in (compressed, study)]
    assert errors[0][0] == errors[1][0]  # the first round trains from the same weights
    assert errors[0][2] != errors[1][2]
    for losses in errors:
        assert losses[2] < losses[0]
    assert {line["outcome"] for line in compressed.lines("participation")} == {"asked", "replied"}


def test_what_was_not_sent_is_kept_at_the_site_with_its_own_layers(compressed: Study) -> None:
    (kept,) = compressed.folder.glob("sites/hospital_1/state/small/*/pretrain/strategy-00003.safetensors")
    arrays = load_file(kept)
    residuals = {name for name in arrays if name.startswith("residual/")}
    layers = {name.removeprefix("layers/") for name in arrays if name.startswith("layers/")}
    model = compressed.weights()
    assert {name.removeprefix("residual/") for name in residuals} == set(model) - layers
    assert layers == {name for name in model if name.startswith("classification_head.")}
    assert max(float(np.abs(arrays[name]).max()) for name in residuals) > 0


@pytest.mark.parametrize("messages", [9 + 5, 9 + 9 + 2])  # pretraining's second round, fine-tuning's first
def test_a_compressed_study_that_broke_off_ends_with_the_same_bits(
    messages: int, study: Study, compressed: Study
) -> None:
    sections: dict[str, Any] = {
        "rounds": (3, 2),
        "strategy": {"compression": SMALL, "local_layers": ["head"]},
    }
    with pytest.raises(Broken):
        study.run(breaks_after(messages), **sections)
    study.run(**sections)
    assert study.bits() == compressed.bits()


def test_what_was_not_sent_is_sent_later(study: Study, hospitals: Path, tmp_path: Path) -> None:
    """The first updates are the same with and without error feedback, the second ones are not."""
    other = Study(hospitals, tmp_path / "other")
    sent: dict[bool, list[bytes]] = {True: [], False: []}
    for feedback, one in ((True, study), (False, other)):

        def looks(name: str, reply: Message, told: list[bytes] = sent[feedback]) -> Message:
            if (name, reply.metadata.message_type) == ("hospital_2", "train.pretrain"):
                arrays = unpack_weights(reply.content)
                told.append(b"".join(array.tobytes() for _, array in sorted(arrays.items())))
            return reply

        top = {"name": "top_k", "share": 0.25, "error_feedback": feedback}
        one.run(looks, rounds=(2, 1), strategy={"compression": ["delta", top]})
    assert sent[True][0] == sent[False][0]
    assert sent[True][1] != sent[False][1]


def test_a_round_asked_again_gives_the_same_bits(study: Study) -> None:
    """A reply is lost on its way: what the site remembered of it must not count twice."""
    told: list[bytes] = []

    def loses_one(name: str, reply: Message) -> Message:
        if (name, reply.metadata.message_type) != ("hospital_2", "train.pretrain"):
            return reply
        arrays = unpack_weights(reply.content)
        told.append(b"".join(array.tobytes() for _, array in sorted(arrays.items())))
        if len(told) != 2:  # of the second round
            return reply
        return Message(Error(code=2, reason="connection lost"), reply_to=origin(reply))

    study.run(loses_one, rounds=(3, 1), strategy={"compression": SMALL})
    assert len(told) == 4
    assert told[1] == told[2]
    assert len(set(told)) == 3


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg", "compression": ["fp16"], "local_layers": ["norms"]},
        {"name": "scaffold", "compression": ["delta"], "local_layers": ["head"]},
        {"name": "median", "compression": ["delta", "int8"]},
        {"name": "flower.FedMedian", "compression": ["delta", "fp16"]},
        {"name": "ditto", "compression": SMALL},
    ],
    ids=lambda strategy: strategy["name"],
)
def test_it_goes_with_layers_algorithms_and_arrays_beside(strategy: dict[str, Any], study: Study) -> None:
    sent: list[Weights] = []

    def looks(name: str, reply: Message) -> Message:
        if reply.metadata.message_type == "train.pretrain":
            sent.append(unpack_weights(reply.content))
        return reply

    lines = study.run(looks, rounds=(2, 1), strategy=strategy)
    assert [line["outcome"] for line in lines if line["outcome"] not in ("asked", "replied")] == []
    kinds = {array.dtype.name for arrays in sent for name, array in arrays.items() if name[0] != "@"}
    step = strategy["compression"][-1]
    assert kinds == {{"fp16": "float16", "int8": "int8", "delta": "float32"}[step]}
    beside = [name for arrays in sent for name in arrays if name.startswith(BESIDE)]
    assert bool(beside) == (strategy["name"] == "scaffold")


def other_scale(arrays: Weights) -> None:
    arrays[SCALE] = arrays[SCALE] * np.float32(np.nan)


def other_places(arrays: Weights) -> None:
    arrays[WHERE] = ~arrays[WHERE]


def other_length(arrays: Weights) -> None:
    name = next(name for name in arrays if name[0] != "@")
    arrays[name] = np.tile(arrays[name], 50)


def longer(arrays: Weights) -> None:
    arrays[SCALE] = arrays[SCALE] * np.float32(100)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_scale, "its compressed update: a scale is negative or not finite; run the same"),
        (other_places, "its compressed update: names no valid entries of"),
        (other_length, "expected int8["),
        (longer, "times as long as the study's median, 20 is the limit"),
    ],
)
def test_a_compressed_update_that_is_none_costs_its_site_the_round(
    change: Callable[[Weights], None], words: str, study: Study
) -> None:
    lines = study.run(
        at(study, "hospital_3", "train.pretrain", lambda arrays, received: change(arrays)),
        rounds=(1, 1),
        strategy={"compression": SMALL},
        participation={"quorum": 2},
    )
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert (told["site"], told["phase"], told["round"]) == ("hospital_3", "pretrain", 1)
    assert words in told["reason"]
    assert "\n" not in told["reason"]
    assert outcomes(lines, "finetune", 1)["hospital_3"][-1] == "replied"


# --- screening ----------------------------------------------------------------------------------------


def scaled(arrays: Weights, received: Weights) -> None:
    for name, array in arrays.items():
        arrays[name] = received[name] + np.float32(100) * (array - received[name])


def random(arrays: Weights, received: Weights) -> None:
    rng = np.random.default_rng(0)
    for name, array in arrays.items():
        arrays[name] = rng.normal(size=array.shape).astype(array.dtype)


def turned(arrays: Weights, received: Weights) -> None:
    for name, array in arrays.items():
        arrays[name] = received[name] - (array - received[name])


@pytest.mark.parametrize("change", [scaled, random])
@pytest.mark.parametrize(("phase", "number"), [("pretrain", 1), ("finetune", 2)])
def test_an_update_far_too_long_is_caught_in_any_round(
    change: Change, phase: str, number: int, study: Study
) -> None:
    tamper = at(study, "hospital_2", f"train.{phase}", change, number)
    lines = study.run(tamper, rounds=(1, 2), participation={"quorum": 2})
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert (told["site"], told["phase"], told["round"]) == ("hospital_2", phase, number)
    assert "times as long as the study's median, 20 is the limit" in told["reason"]
    others = outcomes(lines, phase, number)
    assert others["hospital_1"] == others["hospital_3"] == ["asked", "replied"]


def test_it_is_as_if_the_site_had_not_been_there(study: Study, hospitals: Path, tmp_path: Path) -> None:
    """What was set aside left no trace in the weights: another bad update ends with the same ones."""
    rules: dict[str, Any] = {"rounds": (1, 1), "participation": {"quorum": 2}}
    study.run(at(study, "hospital_2", "train.finetune", scaled), **rules)
    other = Study(hospitals, tmp_path / "other")
    other.run(at(other, "hospital_2", "train.finetune", random), **rules)
    assert study.bits() == other.bits()


def test_two_sites_in_a_first_round(study: Study) -> None:
    """There is no third to ask: the longer update is set aside, since the shorter one can do little."""
    study.sites = study.sites[:2]
    lines = study.run(
        at(study, "hospital_2", "train.pretrain", scaled), rounds=(1, 1), participation={"quorum": 1}
    )
    assert outcomes(lines, "pretrain", 1) == {
        "hospital_1": ["asked", "replied"],
        "hospital_2": ["asked", "replied", "quarantined"],
    }


@pytest.mark.parametrize(
    ("change", "rules"),
    [(scaled, {"norm_factor": float("inf")}), (turned, {})],
    ids=["no such check", "a sign flip has the usual length"],
)
def test_what_is_not_caught(change: Change, rules: dict[str, Any], study: Study) -> None:
    tamper = at(study, "hospital_2", "train.pretrain", change)
    lines = study.run(tamper, rounds=(1, 1), participation=rules)
    assert {line["outcome"] for line in lines} == {"asked", "replied"}


def test_what_is_sent_beside_the_weights_is_checked_too(study: Study) -> None:
    def longer_beside(arrays: Weights, received: Weights) -> None:
        for name in arrays:
            if name.startswith(BESIDE):
                arrays[name] = arrays[name] * np.float32(1000)

    lines = study.run(
        at(study, "hospital_1", "train.pretrain", longer_beside),
        rounds=(1, 1),
        strategy={"name": "scaffold", "local_layers": ["head"]},
        participation={"quorum": 2},
    )
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert told["site"] == "hospital_1"
    assert told["reason"].startswith("what it sends beside its weights is")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"steps": 0}, "says that it took 0 steps"),
        ({"stays": -3}, "weight -3 is not a positive number"),
        ({"facts": {"loss": 0.5, "mood": 1.0}}, "its fact 'mood' is unknown, or not finite"),
        ({"facts": {"loss": float("nan")}}, "facts.loss: Input should be a valid number"),
        ({"facts": {}}, "lacks the fact 'loss'"),
    ],
)
def test_numbers_that_cannot_be_are_set_aside(said: dict[str, Any], words: str, study: Study) -> None:
    def claims(name: str, reply: Message) -> Message:
        if (name, reply.metadata.message_type) != ("hospital_1", "train.pretrain"):
            return reply
        record = unpack(reply.content, TrainReply).model_copy(update=said)
        return Message(pack(record, unpack_weights(reply.content), 1), reply_to=origin(reply))

    lines = study.run(claims, rounds=(1, 1), strategy={"name": "qfedavg"}, participation={"quorum": 2})
    (told,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert told["site"] == "hospital_1"
    assert words in told["reason"]


# --- weighting ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weighting", ["uniform", "positives", {"hospital_1": 1, "hospital_2": 2.5, "hospital_3": 4}]
)
def test_participation_says_what_a_site_counted(weighting: Any, study: Study) -> None:
    lines = study.run(rounds=(1, 1), strategy={"weighting": weighting})
    told = {line["site"]: line["weight"] for line in lines if line.get("weight") is not None}
    report = study.report()
    if weighting == "uniform":
        expected = dict.fromkeys(study.sites, 1.0)
    elif weighting == "positives":
        expected = {site: cohort["splits"]["train"]["positives"] for site, cohort in report["cohort"].items()}
    else:
        expected = weighting
    assert told == expected
    total = sum(expected.values())
    for site, counts in report["participation"]["sites"].items():
        assert counts["weight_share"] == pytest.approx(expected[site] / total)


def test_a_site_that_the_weighting_forgot_is_set_aside_in_its_round(study: Study) -> None:
    """Where names are known only once the sites say them."""
    lines = study.run(
        rounds=(1, 1),
        strategy={"weighting": {"hospital_1": 1, "hospital_2": 1}},
        participation={"quorum": 2},
    )
    told = [line for line in lines if line["outcome"] == "quarantined"]
    assert {line["site"] for line in told} == {"hospital_3"}
    assert (
        told[0]["reason"]
        == "strategy.weighting: gives no number for site 'hospital_3'; give one for every site"
    )
