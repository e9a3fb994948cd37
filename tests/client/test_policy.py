"""The hospital's rules, whatever the coordinator asks: rounds counted on disk, studies, tasks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.policy import check_noise, check_study, check_told, in_words
from client.round_limit import count_round, rounds_given, rounds_path
from client.site import Policy, PrivacyPolicy, SiteConfig, load_site
from hymate.errors import InputFault

WEIGHTS = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros(2, dtype=np.float32)}
OTHER = {**WEIGHTS, "b": np.ones(2, dtype=np.float32)}


def site_of(folder: Path, limit: int | None = 2) -> SiteConfig:
    return SiteConfig(
        name="north", data=folder, state=folder / "state", policy=Policy(max_rounds_per_study=limit)
    )


def test_rounds_are_counted_and_end(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    assert count_round(site, "a", "pretrain", 1, WEIGHTS) == 1
    assert count_round(site, "a", "finetune", 1, OTHER) == 2
    with pytest.raises(InputFault, match="allows study 'a' 2 training rounds, and it has had them"):
        count_round(site, "a", "finetune", 2, WEIGHTS)
    assert count_round(site, "b", "pretrain", 1, WEIGHTS) == 1, "another study has its own count"
    assert rounds_given(site) == {"a": 2, "b": 1}, "a refused round was not given"


def test_a_round_asked_again_is_the_same_round(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    copied = {name: array.copy() for name, array in reversed(WEIGHTS.items())}
    assert [count_round(site, "a", "pretrain", 1, w) for w in (WEIGHTS, copied)] == [1, 1]
    assert count_round(site, "a", "pretrain", 2, OTHER) == 2
    assert count_round(site, "a", "pretrain", 1, WEIGHTS) == 2, "also once the limit is reached"


def test_a_round_under_another_vocabulary_is_another_round(tmp_path: Path) -> None:
    """Two models that leave another site out may begin with the same weights."""
    site = site_of(tmp_path)
    assert [count_round(site, "a", "pretrain", 1, WEIGHTS, agreed) for agreed in ("x", "y", "x")] == [1, 2, 2]


def test_other_weights_under_an_old_number_are_another_round(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    for weights in (WEIGHTS, OTHER):
        count_round(site, "a", "pretrain", 1, weights)
    with pytest.raises(InputFault, match="it has had them"):
        count_round(site, "a", "pretrain", 1, {"w": np.zeros(6, np.float32)})


def test_a_lowered_limit_holds_for_what_was_given_before(tmp_path: Path) -> None:
    for number in range(3):
        count_round(site_of(tmp_path, None), "a", "pretrain", number, WEIGHTS)
    assert count_round(site_of(tmp_path, 2), "a", "pretrain", 1, WEIGHTS) == 3, "known: asked again"
    with pytest.raises(InputFault, match="it has had them"):
        count_round(site_of(tmp_path, 2), "a", "pretrain", 9, WEIGHTS)


def test_a_count_that_cannot_be_kept_gives_no_round(tmp_path: Path) -> None:
    site = site_of(tmp_path)
    rounds_path(site).parent.mkdir()
    rounds_path(site).write_bytes(b"not a database, and long enough to be seen as none" * 40)
    with pytest.raises(InputFault, match="cannot keep count"):
        count_round(site, "a", "pretrain", 1, WEIGHTS)
    with pytest.raises(InputFault, match="no readable count"):
        rounds_given(site)


@pytest.mark.parametrize("name", ["../a", "a/b", "", ".hidden", "a" * 64, "a\n"])
def test_names_that_no_folder_may_have_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputFault, match="no folder may have"):
        check_study(site_of(tmp_path), name)
    if name:
        with pytest.raises(InputFault, match="no folder may have"):
            check_study(site_of(tmp_path), "study", name)
    check_study(site_of(tmp_path), "study", "0123abcd")


def test_only_allowed_studies(tmp_path: Path) -> None:
    site = site_of(tmp_path).model_copy(update={"policy": Policy(studies=("mortality",))})
    check_study(site, "mortality")
    with pytest.raises(InputFault, match=r"does not allow the study 'other'; allowed: mortality"):
        check_study(site, "other")


def test_the_policy_in_words_names_every_rule() -> None:
    app = "ab" * 32
    policy = Policy(min_cell=7, tasks=("x",), studies=("y",), max_rounds_per_study=33, approved_app=app)
    words = " ".join(in_words(policy))
    assert len(in_words(policy)) == len(Policy.model_fields)
    for said in ("fewer than 7", "tasks: x", "studies: y", "33", app):
        assert said in words


def with_privacy(**keys: float | bool) -> SiteConfig:
    policy = Policy(privacy=PrivacyPolicy.model_validate(keys) if keys else None)
    return SiteConfig(name="north", data=Path("none"), policy=policy)


def test_the_policy_says_what_it_asks_of_noise() -> None:
    said = [
        next(line for line in in_words(with_privacy(**keys).policy) if line.startswith("privacy"))
        for keys in ({}, {"epsilon": 8.0}, {"epsilon": 8.0, "demand": True})
    ]
    assert "no budget" in said[0]
    assert "at most epsilon 8 at delta 1e-05 for all studies together" in said[1]
    assert "without noise are given" in said[1]
    assert "without noise are never given" in said[2]


def test_a_site_that_demands_noisy_figures_tells_none_without() -> None:
    site = with_privacy(epsilon=8.0, demand_statistics=True)
    assert any("figures without noise never told" in line for line in in_words(site.policy))
    check_noise(site, noisy=False)  # of updates it says nothing
    check_told(site, noisy=True)
    check_told(with_privacy(epsilon=8.0, demand=True), noisy=False)
    with pytest.raises(InputFault, match=r"no count, statistic or figure .*dp_statistics: true"):
        check_told(site, noisy=False)


def test_a_site_that_demands_noise_gives_nothing_without() -> None:
    for site in (with_privacy(), with_privacy(epsilon=8.0)):
        check_noise(site, noisy=False)
    demanding = with_privacy(epsilon=8.0, demand=True)
    check_noise(demanding, noisy=True)
    with pytest.raises(InputFault, match="lets no update leave without noise"):
        check_noise(demanding, noisy=False)


@pytest.mark.parametrize(
    "given", ["{epsilon: 0}", "{epsilon: 8, delta: 1}", "{delta: 1e-5}", "{epsilon: 8, delt: 0.1}"]
)
def test_a_privacy_policy_that_cannot_be(given: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"name: north\ndata: meds\npolicy: {{privacy: {given}}}\n")
    with pytest.raises(InputFault, match=r"privacy"):
        load_site(path)


def test_a_refused_training_round_is_a_refusal_in_reply_and_journal(tmp_path: Path) -> None:
    """Through the real ClientApp: the second training round is more than the policy allows."""
    from tests.in_process import lay_out

    lay_out(tmp_path, 1, stays=40)
    home = tmp_path / "sites" / "hospital_1"
    text = (home / "site.yaml").read_text().replace("min_cell: 1", "min_cell: 1\n  max_rounds_per_study: 1")
    (home / "site.yaml").write_text(text)
    replies = ask_two_rounds(home / "site.yaml")
    assert [kind for kind, _ in replies] == ["TrainReply", "Refusal"]
    assert "allows study 'small' 1 training rounds" in replies[1][1]["reason"]
    lines = [json.loads(line) for line in (home / "state" / "journal.jsonl").read_text().splitlines()]
    assert [line["event"] for line in lines[-4:]] == ["asked", "answered", "asked", "refused"]
    assert "pretrain round 1 of study small: loss" in lines[-3]["text"]
    assert "it has had them" in lines[-1]["text"]


def test_a_crash_tells_its_kind_and_none_of_its_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from client import training
    from tests.in_process import lay_out

    def crash(*_: object) -> None:
        raise ValueError("subject 4711 has creatinine 9.9")

    lay_out(tmp_path, 1, stays=40)
    monkeypatch.setattr(training, "received_model", crash)
    replies = ask_two_rounds(tmp_path / "sites" / "hospital_1" / "site.yaml")
    for kind, record in replies:
        assert kind == "Refusal"
        assert record["reason"] == "site hospital_1: failed with ValueError; the site's log holds the cause"
    journal = (tmp_path / "sites" / "hospital_1" / "state" / "journal.jsonl").read_text()
    assert "4711" not in journal


def ask_two_rounds(site_file: Path) -> list[tuple[str, dict[str, object]]]:
    """Vocabulary phase and two pretraining rounds at one site; the rounds' replies by kind."""
    from flwr.app import Context, Message, RecordDict
    from flwr.supercore.task_identity import TaskIdentity

    from client.app import app
    from hymate.config import PretrainConfig, VocabularyConfig
    from hymate.data.statistics import SiteStatistics
    from hymate.data.vocabulary import build_vocabulary
    from hymate.joining_protocol import PrepareRequest, StatisticsRequest
    from hymate.model.hymate import build_model
    from hymate.privacy_config import PrivacyConfig
    from hymate.protocol import PretrainRequest
    from hymate.strategy_config import StrategyConfig
    from strategies.wire import pack
    from tests.in_process import small_study

    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 1
    study = small_study()
    context = Context(1, 10, {"site": str(site_file)}, RecordDict(), {})

    def ask(kind: str, content: RecordDict) -> tuple[str, dict[str, object]]:
        reply = app(Message(content, dst_node_id=10, message_type=kind), context)
        config = reply.content.config_records["config"]
        return str(config["kind"]), json.loads(str(config["json"]))

    _, told = ask("query.statistics", pack(StatisticsRequest(task=study.task)))
    name = load_site(site_file).name
    vocabulary = build_vocabulary(
        {name: SiteStatistics.from_json(str(told["statistics"]))}, VocabularyConfig(min_count=1)
    )
    prepared = PrepareRequest(
        task=study.task, vocabulary=vocabulary.to_json(), vocabulary_hash=vocabulary.hash
    )
    assert ask("query.prepare", pack(prepared))[0] == "PrepareReply"
    model = build_model(
        study.model,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=study.task.lookback_hours,
        seed=0,
    )
    weights = {key: tensor.numpy() for key, tensor in model.state_dict().items()}
    replies = []
    for number in (1, 2):
        request = PretrainRequest(
            study="small",
            task=study.task,
            model=study.model,
            vocabulary_hash=vocabulary.hash,
            seed=0,
            round=number,
            pretrain=PretrainConfig(batch_size=16),
            strategy=StrategyConfig(),
            privacy=PrivacyConfig(),
        )
        replies.append(ask("train.pretrain", pack(request, weights)))
    return replies
