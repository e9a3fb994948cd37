"""What a study with noise cannot be: refused at the study file, at the site, at the coordinator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import ConfigRecord, Message, RecordDict

import client.noise
from client.ledger import COUNT
from client.ledger import FILE as LEDGER
from client.site_secret import FILE as SECRET
from hymate.errors import InputFault
from hymate.privacy.accounting import epsilon_of
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import AloneRequest, Declaration, FinetuneRequest, TrainReply
from server.failure import StudyFailure
from server.study import load_study
from strategies.base import Algorithm, Round, SiteHalf
from strategies.registry import demand_under_noise
from strategies.wire import CONFIG, pack, unpack, unpack_weights
from tests.in_process import Tamper, small_study
from tests.server.private.asking import (
    FINETUNE,
    NOISE,
    PRETRAIN,
    ROUNDS,
    SITES,
    ask_again,
    asked,
    change_policy,
    charged,
    replies,
    site_of,
)
from tests.server.studies import Study, origin


def refusal(reply: Message) -> str:
    record = reply.content.config_records[CONFIG]
    assert record["kind"] == "Refusal", record["kind"]
    return str(json.loads(str(record["json"]))["reason"])


@pytest.mark.parametrize(
    ("override", "words"),
    [
        *(
            (f"strategy.name={name}", "which no noise covers")
            for name in ("fednova", "qfedavg", "afl", "flower.QFedAvg strategy.client_learning_rate=0.1")
        ),
        ("finetune.label_smoothing=0.1", "label_smoothing moves labels"),
        ("evaluation.local_baseline=true", "models trained without noise"),
        ("privacy.mode=dp", "privacy.mode"),
        ("privacy.noise_multiplier=2", "one of the two"),
    ],
)
def test_what_cannot_be_covered_ends_at_the_study_file(override: str, words: str, tmp_path: Path) -> None:
    content = {"name": "s", "privacy": {"mode": "dp-sgd", "target_epsilon": 8}}
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    load_study(tmp_path / "study.yaml")
    with pytest.raises(InputFault, match=words) as fault:
        load_study(tmp_path / "study.yaml", tuple(override.split()))
    assert "\n" not in str(fault.value)


def test_fairfed_too_and_whatever_does_not_say_that_it_is_made_for_noise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Unsaid(Algorithm):
        name = "unsaid"

        def aggregate(self, round: Round, current: Any, updates: Any) -> Any:
            return current

        def site_half(self) -> SiteHalf:
            return SiteHalf()

    monkeypatch.setitem(demand_under_noise.__globals__["ALGORITHMS"], "unsaid", Unsaid)
    for strategy in ({"name": "fairfed", "group": "GENDER//F"}, {"name": "unsaid"}):
        with pytest.raises(InputFault, match="which no noise covers"):
            demand_under_noise(small_study(strategy=strategy).strategy)


def edited(message: Message, **keys: Any) -> RecordDict:
    """The same message with other JSON, as no release of ours writes it."""
    config = dict(message.content.config_records[CONFIG])
    config["json"] = json.dumps({**json.loads(str(config["json"])), **keys})
    return RecordDict({**message.content, CONFIG: ConfigRecord(config)})


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"privacy": {"mode": "none"}}, "another `privacy:` section"),
        ({"privacy": {"mode": "dp-sgd", "noise_multiplier": 0.1}}, "another `privacy:` section"),
        ({"privacy": {"mode": "local"}}, "privacy.mode"),
        ({"privacy": {"mode": "dp-sgd", "noise_multiplier": 1.0, "public": True}}, "privacy.public"),
        ({"plan": None}, "without a plan"),
        ({"round": 3}, "round 3 of 2 planned"),
        ({"finetune": {"rounds": 50}}, "another round than the study's plan"),
        ({"strategy": {"name": "qfedavg"}}, "which no noise covers"),
        ({"strategy": {"name": "ditto"}}, "another round than the study's plan"),
    ],
)
def test_a_site_refuses_what_it_cannot_honour_and_is_not_charged(
    keys: dict[str, Any], words: str, done: Study
) -> None:
    before, message = charged(done), asked(done, FINETUNE)
    reason = refusal(ask_again(done, message, edited(message, **keys)))
    assert words in reason
    assert charged(done) == before


def test_nor_does_it_tell_what_a_model_without_noise_would(done: Study) -> None:
    message = asked(done, FINETUNE)
    request = unpack(message.content, FinetuneRequest)
    base = {
        name: getattr(request, name) for name in ("study", "run", "task", "model", "vocabulary_hash", "seed")
    }
    alone = AloneRequest(**base, pretrain=small_study().pretrain, finetune=request.finetune)
    reply = ask_again(done, message, pack(alone, unpack_weights(message.content)), "train.alone")
    assert "trains nothing without noise for a study that asked for it" in refusal(reply)


def test_soft_labels_of_neighbours_and_unknown_layers_are_refused_before_they_cost(
    done: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, message = charged(done), asked(done, FINETUNE)
    content = json.loads(str(message.content.config_records[CONFIG]["json"]))
    smooth = {**content["finetune"], "label_smoothing": 0.1}
    plan = {**content["plan"], "finetune": smooth}
    assert "label_smoothing" in refusal(ask_again(done, message, edited(message, finetune=smooth, plan=plan)))
    monkeypatch.setattr(client.noise, "unknown_layers", lambda model: ["strange"])
    assert "no gradient by patient for 1 layers, strange" in refusal(ask_again(done, message))
    assert charged(done) == before


@pytest.mark.parametrize("spoil", ["database", "count", "secret"])
def test_without_its_ledger_or_secret_a_site_trains_nothing_and_is_named(spoil: str, study: Study) -> None:
    state = site_of(study, SITES[1]).state
    state.mkdir(parents=True)
    if spoil == "secret":
        (state / SECRET).write_bytes(b"short")
    else:
        (state / LEDGER).write_bytes(b"no database at all" * 100)
        (state / COUNT).write_text('{"entries": 3, "chain": "0"}' if spoil == "count" else "{}")
    with pytest.raises(StudyFailure, match=r"hospital_2 refused: .*(ledger|secret)"):
        study.run(rounds=ROUNDS, privacy=NOISE)
    assert [reply.site for reply in told_of(study)] == [SITES[0]]


def told_of(study: Study) -> Iterator[TrainReply]:
    for reply in study.grid.replies:
        if reply.content.config_records[CONFIG]["kind"] == "TrainReply":
            yield unpack(reply.content, TrainReply)


def test_a_spent_budget_ends_a_site_s_rounds_and_the_others_go_on(study: Study) -> None:
    change_policy(study, SITES[1], privacy={"epsilon": 7.0, "delta": 1e-5})
    lines = study.run(rounds=(1, 3), privacy=NOISE, participation={"quorum": 1, "retries": 0})
    refused = [line for line in lines if line["outcome"] == "refused"]
    assert {line["site"] for line in refused} == {SITES[1]}
    assert "its privacy budget does not allow this round: epsilon" in refused[0]["reason"]
    spends = [entry.spend for entry in charged(study, SITES[1])]
    assert 0 < len(spends) < 4
    assert [reply.spent for reply in told_of(study)] == [None] * (4 + len(spends))  # nobody publishes it
    assert epsilon_of(spends, 1e-5) <= 7.0
    assert len(charged(study, SITES[0])) == 4
    assert study.report()["privacy"]["sites"][SITES[1]]["rounds"].get("finetune", 0) == len(spends) - 1


def declares(**update: Any) -> Tamper:
    def tamper(name: str, reply: Message) -> Message:
        if name != SITES[1] or reply.metadata.message_type != PRETRAIN:
            return reply
        record = unpack(reply.content, TrainReply).model_copy(update=update)
        return Message(pack(record, unpack_weights(reply.content)), reply_to=origin(reply))

    return tamper


OTHER = Declaration.of(PrivacyConfig(mode="dp-sgd", noise_multiplier=0.5))

OWN = Declaration.of(PrivacyConfig(mode="dp-sgd", noise_multiplier=1.0))


@pytest.mark.parametrize(
    ("update", "words"),
    [
        ({"noise": None}, "declares no noise"),
        ({"noise": None, "stays": 28, "loss": 0.5, "steps": 2}, "declares no noise"),
        ({"noise": OTHER}, "declares other noise than the study's"),
        ({"loss": 0.5}, "tells its loss, which no noise covers"),
        ({"stays": 28}, "tells its stays"),
        ({"facts": {"loss": 0.5}}, "tells its facts"),
    ],
)
def test_an_update_without_the_study_s_noise_never_counts(
    update: dict[str, Any], words: str, study: Study
) -> None:
    lines = study.run(declares(**update), rounds=(1, 1), privacy=NOISE, participation={"quorum": 1})
    (line,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert (line["site"], line["round"]) == (SITES[1], 1)
    assert words in line["reason"]
    own = unpack_weights(replies(study, PRETRAIN)[0].content)
    shared = unpack_weights(asked(study, FINETUNE).content)
    assert all(shared[name].tobytes() == own[name].tobytes() for name in own)


def test_nor_do_noised_ones_in_a_study_without(study: Study) -> None:
    lines = study.run(declares(noise=OWN), rounds=(1, 1), participation={"quorum": 1})
    (line,) = [line for line in lines if line["outcome"] == "quarantined"]
    assert "declares noise, and the study takes none" in line["reason"]
