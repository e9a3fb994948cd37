"""Studies with differential privacy through the real ClientApp: what is charged, noised and told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

import client.noise
from client import cli
from client.ledger import Ledger
from client.ledger_entry import Entry
from hymate.command import run_command
from hymate.privacy.accounting import epsilon_of
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import Declaration, TrainReply
from hymate.train.checkpoint import load_arrays
from hymate.train.private_optimiser import PrivateOptimiser
from strategies.wire import unpack
from tests.server.private.asking import (
    FINETUNE,
    NOISE,
    PRETRAIN,
    ROUNDS,
    SITES,
    bits,
    change_policy,
    charged,
    replies,
    site_of,
    told,
)
from tests.server.studies import Study, outcomes


def test_updates_are_noised_declared_and_charged_and_the_report_says_so(
    study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    change_policy(
        study, SITES[1], privacy={"epsilon": 9.0, "delta": 1e-5, "demand": True, "publish_epsilon": True}
    )
    lines = study.run(rounds=ROUNDS, privacy={"mode": "dp-sgd", "target_epsilon": 8.0})
    for action in (PRETRAIN, FINETUNE):
        for reply in told(study, action):
            assert (reply.stays, reply.loss, reply.steps, reply.facts) == (None, None, None, {})
            assert reply.noise == Declaration.of(PrivacyConfig(mode="dp-sgd", target_epsilon=8.0))
            assert (reply.spent is None) == (reply.site == SITES[0])
        for message in replies(study, action):
            assert "metrics" not in message.content  # no number of stays
    for name in SITES:
        entries = charged(study, name)
        assert [(entry.phase, entry.round) for entry in entries] == [
            ("pretrain", 1),
            ("finetune", 1),
            ("finetune", 2),
        ]
        assert 7.8 < epsilon_of([entry.spend for entry in entries], 1e-5) <= 8.0
    # The secret's noise: alike hospitals, nothing alike in what they sent.
    first, second = (bits(reply) for reply in replies(study, PRETRAIN))
    assert all(first[name] != second[name] for name in first if "mamba" in name)
    # Training stays as described, for nothing else was said.
    weights = {line["weight"] for line in lines if line["outcome"] == "replied" and line["round"]}
    assert weights == {28.0}
    assert [line["loss"] for line in study.metrics("finetune")] == [None, None]
    assert study.metrics("pretrain")[0]["forecast_error"] > 0
    section = study.report()["privacy"]
    assert (section["target_epsilon"], section["noise_multiplier"]) == (8.0, None)
    assert section["sites"][SITES[0]]["rounds"] == {"pretrain": 1, "finetune": 2}
    assert section["sites"][SITES[0]]["spent"] is None
    published = section["sites"][SITES[1]]["spent"]
    spends = [entry.spend for entry in charged(study, SITES[1])]
    assert published == {"epsilon": round(epsilon_of(spends, 1e-5), 4), "delta": 1e-5}
    page = (study.folder / "report.html").read_text()
    assert "noise for epsilon 8.0 at delta 1e-05 over all planned rounds" in page
    assert "not published" in page
    file = str(study.folder / "sites" / SITES[1] / "site.yaml")
    assert run_command(cli.client_app, "hymate-client", ["ledger", "--config", file]) == 0
    said = capsys.readouterr().out
    assert "3 rounds with noise" in said
    assert "Budget: epsilon 9 at delta 1e-05" in said
    assert [line.split()[:3] for line in said.splitlines() if line.startswith("small")] == [
        ["small", "pretrain", "1"],
        ["small", "finetune", "2"],
    ]


@pytest.mark.parametrize(
    ("strategy", "privacy", "trainings"),
    [
        ({"name": "ditto", "local_layers": ["head"]}, {}, 2),
        (
            {
                "name": "fedprox",
                "weighting": {SITES[0]: 1.0, SITES[1]: 2.0},
                "compression": ["delta", {"name": "top_k", "share": 0.2}, "int8"],
            },
            {"clipping": "ghost"},
            1,
        ),
        ({"name": "feddyn", "optimiser_state": "reset"}, {"clipping": "per_layer"}, 1),
    ],
    ids=["ditto", "fedprox", "feddyn"],
)
def test_what_composes_with_noise(
    strategy: dict[str, Any], privacy: dict[str, Any], trainings: int, study: Study
) -> None:
    lines = study.run(
        rounds=ROUNDS, strategy=strategy, privacy={**NOISE, **privacy}, participation={"quorum": 2}
    )
    assert outcomes(lines, "finetune", 2) == {site: ["asked", "replied"] for site in SITES}
    steps = {entry.phase: entry.spend.steps for entry in charged(study)}
    assert steps == {"pretrain": 2, "finetune": 2 * trainings}  # Ditto's own model has noise, and is charged
    assert study.report()["pooled"]["auroc"] is not None


def test_the_adaptive_norm_goes_on_from_round_to_round(done: Study) -> None:
    kept = [
        float(load_arrays(path)["norm/finetune"])
        for path in sorted(site_of(done).state.glob("small/*/finetune/strategy-*.safetensors"))
    ]
    assert len(kept) == 2
    assert len({1.0, *kept}) == 3


@pytest.mark.parametrize("clipping", ["flat", "adaptive"])
def test_nothing_is_trained_before_it_is_charged_and_each_training_has_its_own_noise(
    clipping: str, study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    story: list[str] = []
    keys: list[bytes] = []

    class Watched(Ledger):
        def charge(self, entry: Entry) -> bytes:
            story.append("charged")
            return super().charge(entry)

    def watched(epochs: Callable[..., Any]) -> Callable[..., Any]:
        def training(*given: Any, key: bytes, **named: Any) -> Any:
            story.append("trained")
            keys.append(key)
            return epochs(*given, key=key, **named)

        return training

    monkeypatch.setattr(client.noise, "Ledger", Watched)
    for name in ("private_pretrain_epochs", "private_finetune_epochs"):
        monkeypatch.setattr(client.noise, name, watched(getattr(client.noise, name)))
    study.run(rounds=(1, 2), strategy={"name": "ditto"}, privacy={**NOISE, "clipping": clipping})
    once, twice = ["charged", "trained"], ["charged", "trained", "trained"]
    assert story == [*once * 2, *twice * 4]
    assert len(set(keys)) == len(keys) == 10


@pytest.mark.parametrize(
    "strategy",
    [
        {"name": "fedavg", "compression": ["delta", {"name": "top_k", "share": 0.2}, "fp16"]},
        {"name": "fedprox"},
        {"name": "scaffold"},
        {"name": "feddyn"},
        {"name": "ditto", "local_layers": ["head"]},
    ],
    ids=lambda strategy: strategy["name"],
)
def test_what_leaves_a_site_is_a_function_of_its_noised_gradients_alone(
    strategy: dict[str, Any], study: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two hospitals with other patients and, by force, the same noised gradients send the same bits."""

    def same_for_all(optimiser: PrivateOptimiser) -> None:
        taken = optimiser.__dict__.setdefault("taken", iter(range(1, 10**6)))
        for number, parameter in enumerate(optimiser.params):
            values = torch.arange(parameter.numel(), dtype=torch.float64) + number
            parameter.grad = torch.sin(values * next(taken)).to(parameter.dtype).view_as(parameter)

    monkeypatch.setattr(PrivateOptimiser, "add_noise", same_for_all)
    study.run(rounds=(2, 2), strategy=strategy, privacy=NOISE)
    for action in (PRETRAIN, FINETUNE):
        by_site: dict[str, list[dict[str, bytes]]] = {name: [] for name in SITES}
        for reply in replies(study, action):
            by_site[unpack(reply.content, TrainReply).site].append(bits(reply))
        first, second = by_site.values()
        assert len(first) == 2
        assert first == second
        assert first[0] != first[1]
