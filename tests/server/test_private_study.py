"""Studies with differential privacy through the real ClientApp: what is charged, noised, told, refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from flwr.app import ConfigRecord, Message, RecordDict
from safetensors import safe_open
from safetensors.torch import save

import client.noise
from client import cli
from client.ledger import COUNT, Ledger
from client.ledger import FILE as LEDGER
from client.ledger_entry import Entry
from client.site import SiteConfig, load_site
from client.site_secret import FILE as SECRET
from client.solved_noise import FILE as SOLVED
from client.solved_noise import solved_noise
from hymate.command import run_command
from hymate.errors import InputFault
from hymate.privacy.accounting import epsilon_of
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import AloneRequest, Declaration, FinetuneRequest, TrainReply
from hymate.train.checkpoint import load_arrays
from hymate.train.private_optimiser import PrivateOptimiser
from server.rounds import StudyFailure
from server.study import load_study
from strategies.base import Algorithm, Round, SiteHalf
from strategies.registry import demand_under_noise
from strategies.wire import CONFIG, pack, unpack, unpack_weights
from tests.in_process import Tamper, lay_out, small_study
from tests.server.studies import Broken, Study, breaks_after, origin, outcomes

SITES = ["hospital_1", "hospital_2"]
NOISE = {"mode": "dp-sgd", "noise_multiplier": 1.0}
PRETRAIN, FINETUNE = "train.pretrain", "train.finetune"
ROUNDS = (1, 2)


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hospitals") / "run"
    lay_out(folder, 2, stays=40)
    return folder


@pytest.fixture
def study(hospitals: Path, tmp_path: Path) -> Study:
    return Study(hospitals, tmp_path / "run")


@pytest.fixture(scope="module")
def done(hospitals: Path, tmp_path_factory: pytest.TempPathFactory) -> Study:
    """All that a site remembers shapes this study's rounds: moments, own layers, c_i, the adaptive norm."""
    made = Study(hospitals, tmp_path_factory.mktemp("done") / "run")
    made.run(
        rounds=ROUNDS,
        privacy={**NOISE, "clipping": "adaptive"},
        strategy={"name": "scaffold", "local_layers": ["head"]},
    )
    return made


def site_of(study: Study, name: str = SITES[0]) -> SiteConfig:
    return load_site(study.folder / "sites" / name / "site.yaml")


def change_policy(study: Study, name: str, **policy: Any) -> None:
    path = study.folder / "sites" / name / "site.yaml"
    content = yaml.safe_load(path.read_text())
    content["policy"] |= policy
    path.write_text(yaml.safe_dump(content))


def charged(study: Study, name: str = SITES[0]) -> list[Entry]:
    return [each.entry for each in Ledger(site_of(study, name)).entries()]


def replies(study: Study, action: str) -> list[Message]:
    return [reply for reply in study.grid.replies if reply.metadata.message_type == action]


def told(study: Study, action: str) -> list[TrainReply]:
    return [unpack(reply.content, TrainReply) for reply in replies(study, action)]


def asked(study: Study, action: str, site: str = SITES[0]) -> Message:
    """The last message of a kind to a site."""
    node = {name: node for node, name in study.grid.sites.items()}[site]
    found = [message for message in study.grid.sent if message.metadata.message_type == action]
    return [message for message in found if message.metadata.dst_node_id == node][-1]


def ask_again(study: Study, message: Message, content: RecordDict | None = None, action: str = "") -> Message:
    """A message of the study once more, or another in its place; the study's own are left as they were."""
    kind = action or message.metadata.message_type
    asked = Message(content or message.content, dst_node_id=message.metadata.dst_node_id, message_type=kind)
    reply = study.grid.ask(asked)
    study.grid.sent.pop()
    study.grid.replies.pop()
    return reply


def bits(reply: Message) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in unpack_weights(reply.content).items()}


def refusal(reply: Message) -> str:
    record = reply.content.config_records[CONFIG]
    assert record["kind"] == "Refusal", record["kind"]
    return str(json.loads(str(record["json"]))["reason"])


# --- what such a study is


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


# --- a round asked again


@pytest.mark.parametrize("action", [PRETRAIN, FINETUNE])
def test_asked_again_a_round_has_the_same_bits_and_costs_nothing(action: str, done: Study) -> None:
    before = charged(done)
    again = ask_again(done, asked(done, action))
    first = [reply for reply in replies(done, action) if unpack(reply.content, TrainReply).site == SITES[0]]
    assert bits(again) in [bits(reply) for reply in first]
    assert charged(done) == before


def changed(
    message: Message, kind: Any, weights: Callable[[Any], Any] = lambda arrays: arrays, **update: Any
) -> RecordDict:
    request = unpack(message.content, kind).model_copy(update=update)
    return pack(request, weights(unpack_weights(message.content)))


def _numbers(array: Any) -> Any:
    return np.asarray(array, np.float64)


def test_with_other_weights_or_on_another_backend_it_is_another_round(
    done: Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same noise over other bits would show a little of what it covers."""
    before, message = len(charged(done)), asked(done, FINETUNE)

    def moved(arrays: dict[str, Any]) -> dict[str, Any]:
        """One number of one layer: nothing of what comes beside the weights."""
        own = {name: np.array(array) for name, array in arrays.items()}
        own["norm.weight"][0] += 1e-6
        return own

    first = unpack_weights(ask_again(done, message).content)
    second = unpack_weights(ask_again(done, message, changed(message, FinetuneRequest, moved)).content)
    assert len(charged(done)) == before + 1
    monkeypatch.setenv("HYMATE_SCAN", "torch")
    third = unpack_weights(ask_again(done, message).content)
    assert len(charged(done)) == before + 2
    for other in (second, third):  # fresh noise moves far more than what was changed
        assert max(np.abs(_numbers(first[name]) - _numbers(other[name])).max() for name in first) > 1e-4


@pytest.mark.parametrize("part", ["layers/", "algorithm/", "norm/", "optimiser/", "residual/"])
def test_with_anything_else_that_it_remembers_too(
    part: str, done: Study, hospitals: Path, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"privacy": {**NOISE, "clipping": "adaptive"}}
    study = done
    if part == "residual/":
        study = Study(hospitals, tmp_path / "run")
        study.run(rounds=ROUNDS, strategy={"compression": ["delta", "top_k"]}, **settings)
    before, message = charged(study), asked(study, FINETUNE)
    files = sorted(site_of(study).state.glob("small/*/finetune/*-00001.safetensors"))
    for path in files:
        whole = path.read_bytes()
        arrays = load_arrays(path)
        names = [name for name in arrays if name.startswith(part) and not name.endswith("/step")]
        if names:
            arrays[names[0]] = arrays[names[0]] + 1e-3
            with safe_open(path, "pt") as file:
                header = file.metadata()
            path.write_bytes(save(arrays, header))
            assert "TrainReply" in str(ask_again(study, message).content.config_records[CONFIG]["kind"])
            path.write_bytes(whole)
            break
    else:
        raise AssertionError(f"nothing is remembered of {part}")
    assert len(charged(study)) == len(before) + 1
    ask_again(study, message)
    assert len(charged(study)) == len(before) + 1


def test_a_study_that_broke_off_goes_on_to_the_same_bits_and_charges_no_round_twice(
    hospitals: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.app.secrets.token_hex", lambda length: "run")
    settings: dict[str, Any] = {"rounds": (2, 2), "privacy": NOISE}
    whole, broken = Study(hospitals, tmp_path / "whole"), Study(hospitals, tmp_path / "broken")
    for name in SITES:  # the same secrets, or their noise would differ
        for run in (whole, broken):
            state = site_of(run, name).state
            state.mkdir()
            (state / SECRET).write_bytes(name.encode().ljust(32))
            (state / SECRET).chmod(0o600)
    whole.run(**settings)
    for messages in (7, 3, 3):  # in a round whose first site has trained, and again
        with pytest.raises(Broken):
            broken.run(breaks_after(messages), **settings)
    broken.run(**settings)
    assert broken.bits() == whole.bits()
    for name in SITES:
        assert charged(broken, name) == charged(whole, name)
        assert len(charged(whole, name)) == 4


def test_noise_is_solved_once(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    site, planned, solved = site_of(study), [(0.5, 4), (0.25, 8)], []

    def solve(*asked: Any) -> float:
        solved.append(asked)
        return float(len(solved))

    monkeypatch.setattr("client.solved_noise.noise_for", solve)
    assert solved_noise(site, 5.0, 1e-5, planned) == 1.0
    assert solved_noise(site, 5.0, 1e-5, planned[::-1]) == 1.0
    assert solved_noise(site, 5.0, 1e-6, planned) == 2.0
    assert solved_noise(site, 4.0, 1e-5, planned) == 3.0
    assert solved_noise(site, 5.0, 1e-5, [*planned, (0.1, 1)]) == 4.0
    assert solved_noise(site, 5.0, 1e-5, planned) == 1.0
    (site.state / SOLVED).write_text("{")
    assert solved_noise(site, 5.0, 1e-5, planned) == 5.0


# --- refused: at the study, at the site, at the coordinator


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


# --- what algorithms make of it


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
