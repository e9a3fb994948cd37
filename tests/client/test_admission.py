"""What each request is refused for, through the real ClientApp, whatever its data: no site here has any."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from flwr.app import Message

from benchmarks.sites import FIRST_NODE, Sites
from client.admission import Request, admit
from client.site import Policy, PrivacyPolicy, SecurePolicy, SiteConfig
from hymate.config import FinetuneConfig, ModelConfig, PretrainConfig, TaskConfig
from hymate.joining_protocol import DescribeRequest, NoisyCounts, PrepareRequest, StatisticsRequest
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import Action, AloneRequest, FinetuneRequest, PretrainRequest, Refusal
from hymate.scoring_protocol import CompareRequest, EvaluateRequest, KeptScores, RecalibrateRequest
from hymate.secure_protocol import KeysRequest, Masked, SharesRequest, Terms, UnmaskRequest
from hymate.strategy_config import StrategyConfig
from strategies.wire import pack, unpack

TASK = TaskConfig(name="death")
STUDY: dict[str, Any] = {"study": "heart", "run": "first"}
MODEL = {**STUDY, "task": TASK, "model": ModelConfig(), "vocabulary_hash": "0" * 64, "seed": 0}
ROUND = {**MODEL, "round": 1, "strategy": StrategyConfig(), "privacy": PrivacyConfig()}
SESSION = {**STUDY, "session": "0" * 32}
TERMS = Terms(
    purpose="finetune 1",
    threshold=2,
    keys={},
    work="",
    bits=32,
    clipping_range=1.0,
    heaviest=1.0,
    scores="none",
)
COUNTS = NoisyCounts(study="heart", noise_multiplier=4.0, codes={})
NOISY = PrivacyConfig(mode="dp-sgd", noise_multiplier=1.0)
COVERED = PrivacyConfig(mode="dp-sgd", noise_multiplier=1.0, dp_statistics=True)

ASKED: dict[Action, Request] = {
    Action.DESCRIBE: DescribeRequest(task=TASK),
    Action.STATISTICS: StatisticsRequest(task=TASK),
    Action.PREPARE: PrepareRequest(task=TASK, vocabulary="", vocabulary_hash=""),
    Action.PRETRAIN: PretrainRequest(**ROUND, pretrain=PretrainConfig()),
    Action.FINETUNE: FinetuneRequest(**ROUND, finetune=FinetuneConfig(), positive_weight=1.0),
    Action.ALONE: AloneRequest(**MODEL, pretrain=PretrainConfig(), finetune=FinetuneConfig()),
    Action.EVALUATE: EvaluateRequest(**MODEL, split="held_out"),
    Action.RECALIBRATE: RecalibrateRequest(**MODEL, split="held_out", points={}),
    Action.COMPARE: CompareRequest(**STUDY, task=TASK, pairs=()),
    Action.KEYS: KeysRequest(**SESSION, purpose="finetune 1", threshold=3),
    Action.SHARES: SharesRequest(**SESSION, terms=TERMS),
    Action.UNMASK: UnmaskRequest(**SESSION, survivors=(), dropped=()),
}
OF_DATA = (Action.DESCRIBE, Action.STATISTICS, Action.PREPARE)
ROUNDS = (Action.PRETRAIN, Action.FINETUNE)
FIGURES = (Action.EVALUATE, Action.RECALIBRATE, Action.COMPARE)
OF_SUMS = (Action.KEYS, Action.SHARES, Action.UNMASK)
OF_RUNS = (*ROUNDS, Action.ALONE, *FIGURES, *OF_SUMS)

REFUSED: list[tuple[str, dict[str, Any], tuple[Action, ...], dict[str, Any]]] = [
    ("does not allow the study 'heart'", {"studies": ["lung"]}, OF_RUNS, {}),
    ("does not allow the study 'heart'", {"studies": ["lung"]}, OF_DATA, {"noisy": COUNTS}),
    ("a name that no folder may have", {}, OF_RUNS, {"study": "../heart"}),
    ("a name that no folder may have", {}, OF_RUNS, {"run": "../first"}),
    (
        "a name that no folder may have",
        {},
        (Action.EVALUATE, Action.RECALIBRATE),
        {"keep": KeptScores(run="../first", kind="federated")},
    ),
    ("does not allow the task 'death'", {"tasks": ["stay"]}, (*OF_DATA, *ROUNDS, Action.ALONE, *FIGURES), {}),
    (
        "lets no count, statistic or figure leave without noise",
        {"privacy": {"epsilon": 1.0, "demand_statistics": True}},
        (*OF_DATA, Action.ALONE, *FIGURES),
        {},
    ),
    (
        "lets no count, statistic or figure leave without noise",
        {"privacy": {"epsilon": 1.0, "demand_statistics": True}},
        ROUNDS,
        {"privacy": NOISY},
    ),
    (
        "lets no count, statistic or figure leave without noise",
        {"privacy": {"epsilon": 1.0, "demand_statistics": True}},
        (Action.RECALIBRATE,),
        {"noise_multiplier": 4.0},
    ),
    (
        "lets no update leave without noise",
        {"privacy": {"epsilon": 1.0, "demand": True}},
        (*ROUNDS, Action.ALONE),
        {},
    ),
    ("lets no update leave unmasked", {"secure_aggregation": {"demand": True}}, ROUNDS, {}),
    ("because it took no part", {}, ROUNDS, {"left_out": "north"}),
    (
        "no training for models that leave another",
        {"leave_one_site_out": False},
        ROUNDS,
        {"left_out": "south"},
    ),
]


def answer(folder: Path, action: Action, request: Request, policy: dict[str, Any]) -> str:
    """Why the site refuses."""
    home = folder / "sites" / "north"
    home.mkdir(parents=True, exist_ok=True)
    (home / "site.yaml").write_text(yaml.safe_dump({"name": "north", "data": "none", "policy": policy}))
    sites = Sites(folder, ["north"])
    message = Message(pack(request), dst_node_id=FIRST_NODE, message_type=action.value)
    return unpack(sites.answer(message).content, Refusal).reason


@pytest.mark.parametrize(("words", "policy", "actions", "changes"), REFUSED)
def test_each_rule_holds_for_each_request_it_is_for(
    words: str, policy: dict[str, Any], actions: tuple[Action, ...], changes: dict[str, Any], tmp_path: Path
) -> None:
    for action in actions:
        request = ASKED[action].model_copy(update=changes)
        assert words in answer(tmp_path, action, request, policy), action
    assert not (tmp_path / "sites" / "north" / "cache").exists()


@pytest.mark.parametrize("began", ROUNDS)
def test_a_run_keeps_the_noise_it_began_with(began: Action, tmp_path: Path) -> None:
    site = SiteConfig(name="north", data=Path("none"), state=tmp_path / "sites" / "north" / "state")
    admit(site, ASKED[began].model_copy(update={"privacy": COVERED}))
    for words, actions, changes in (
        ("another `privacy:` section", ROUNDS, {}),
        ("another `privacy:` section", ROUNDS, {"privacy": NOISY}),
        ("trains nothing without noise", (Action.ALONE,), {}),
        ("tells no figure without noise", FIGURES, {}),
        ("tells no figure without noise", (Action.RECALIBRATE,), {"noise_multiplier": 4.0}),
    ):
        for action in actions:
            request = ASKED[action].model_copy(update=changes)
            assert words in answer(tmp_path, action, request, {}), action


def test_what_a_policy_asks_for_is_admitted(tmp_path: Path) -> None:
    site = SiteConfig(name="north", data=Path("none"), state=tmp_path / "state")
    for request in ASKED.values():
        admit(site, request)
    strict = SiteConfig(
        name="north",
        data=Path("none"),
        state=tmp_path / "strict",
        policy=Policy(
            tasks=("death",),
            studies=("heart",),
            privacy=PrivacyPolicy(epsilon=1.0, demand=True, demand_statistics=True),
            secure_aggregation=SecurePolicy(demand=True),
        ),
    )
    summed = {"privacy": COVERED, "secure": Masked(session="0" * 32, shares={}), "left_out": "south"}
    for actions, changes in (
        (OF_DATA, {"noisy": COUNTS}),
        (ROUNDS, summed),
        ((Action.EVALUATE,), {"noise_multiplier": 4.0}),
        (OF_SUMS, {}),
    ):
        for action in actions:
            admit(strict, ASKED[action].model_copy(update=changes))
