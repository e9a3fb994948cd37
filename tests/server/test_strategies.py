"""Strategies through the real ClientApp: what is remembered where, what leaves a site, what each equals."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from flwr.app import Error, Message
from flwr.serverapp import Grid
from torch import nn

from client.agreed import agreed_store
from client.site import load_site
from client.state import KEPT_ROUNDS, StrategyMemory
from hymate.data.store import TripletStore
from hymate.evaluate.histograms import count_scores
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import Cells, EvaluateReply, FinetuneRequest, ScoreReport, TrainReply
from hymate.train.checkpoint import load_arrays
from hymate.train.loop import finetune_epochs, make_optimiser
from hymate.train.saved_model import load_model
from hymate.train.scoring import labelled, score
from server.app import run_study
from server.checkpoint import Checkpoint, Checkpoints
from server.rounds import StudyFailure
from strategies.local_layers import local_names
from strategies.wire import apart, pack, unpack, unpack_weights
from tests.in_process import InProcessGrid, Tamper, VirtualTime, lay_out, small_study

SITES = ["hospital_1", "hospital_2", "hospital_3"]
OWN = ["head", "norms"]
FINETUNE, PRETRAIN, SCORE = "train.finetune", "train.pretrain", "evaluate.score"


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid-out") / "run"
    lay_out(folder, 3, stays=40)
    return folder


@dataclass
class Ran:
    """A study that ended."""

    folder: Path
    grid: InProcessGrid

    @property
    def report(self) -> dict[str, Any]:
        return dict(json.loads((self.folder / "report.json").read_text()))

    def last(self, phase: str = "finetune") -> Checkpoint:
        found = Checkpoints(self.folder).latest(phase)
        assert found is not None
        return found

    def said(self, kind: str, site: str | None = None) -> list[dict[str, np.ndarray]]:
        """Arrays of the replies of a kind."""
        return [
            unpack_weights(reply.content)
            for reply in self.grid.replies
            if reply.metadata.message_type == kind
            and not reply.has_error()
            and (site is None or unpack(reply.content, TrainReply).site == site)
        ]

    def told(self, kind: str) -> list[Message]:
        return [message for message in self.grid.sent if message.metadata.message_type == kind]

    def memory(self, site: str, phase: str = "finetune") -> StrategyMemory:
        return StrategyMemory(
            load_site(self.folder / "sites" / site / "site.yaml"), "small", phase, self.last().study["run"]
        )

    def remembered(self, site: str) -> dict[str, torch.Tensor]:
        """Of the last round in which the site counted."""
        return self.memory(site).recall(self.last().study["sites"][site]["folded"]["finetune"])

    def kept(self, site: str, phase: str = "finetune") -> list[int]:
        """Rounds of which the site has something on its disk."""
        folder = self.folder / "sites" / site / "state" / "small"
        return sorted(int(path.stem.split("-")[1]) for path in folder.glob(f"*/{phase}/strategy-*"))

    def own_model(self, site: str) -> nn.Module:
        (folder,) = (self.folder / "sites" / site).glob("state/small/*/model")
        return load_model(folder).model

    def store(self, site: str) -> TripletStore:
        request = unpack(self.told(FINETUNE)[0].content, FinetuneRequest)
        config = load_site(self.folder / "sites" / site / "site.yaml")
        return agreed_store(config, request.task, request.vocabulary_hash)[0]


def carry(
    laid_out: Path,
    folder: Path,
    strategy: dict[str, Any],
    *,
    hospitals: int = 2,
    rounds: int = 2,
    epochs: int = 1,
    tamper: Tamper | None = None,
    delay: Callable[[str, Message], float] = lambda site, message: 0.0,
    min_cell: int = 1,
    **participation: Any,
) -> Ran:
    """Run a study of so many hospitals, or go on with it."""
    if not folder.exists():
        shutil.copytree(laid_out / "sites", folder / "sites")
        for path in folder.glob("sites/*/site.yaml"):
            path.write_text(path.read_text().replace("min_cell: 1", f"min_cell: {min_cell}"))
    study = small_study(
        strategy=strategy,
        pretrain={"rounds": 1, "batch_size": 16, "local_epochs": epochs},
        finetune={"rounds": rounds, "batch_size": 16, "local_epochs": epochs, "patience": 30},
        participation=participation,
    )
    grid = InProcessGrid(folder, SITES[:hospitals], tamper=tamper, delay=delay, time=VirtualTime())
    run_study(cast(Grid, grid), study, folder, expected_sites=hospitals, clock=grid.time)
    return Ran(folder, grid)


@pytest.fixture(scope="module")
def plain(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """FedAvg."""
    return carry(laid_out, tmp_path_factory.mktemp("plain") / "run", {"name": "fedavg"})


def weights(ran: Ran) -> dict[str, bytes]:
    """Shared weights after the last round."""
    return {name: array.tobytes() for name, array in ran.last().weights.items()}


def test_fedprox_without_a_pull_is_fedavg_bit_for_bit(laid_out: Path, tmp_path: Path, plain: Ran) -> None:
    still = carry(laid_out, tmp_path / "still", {"name": "fedprox", "mu": 0})
    pulled = carry(laid_out, tmp_path / "pulled", {"name": "fedprox", "mu": 50})
    assert weights(still) == weights(plain)
    assert weights(pulled) != weights(plain)


def test_scaffold_with_one_site_is_fedavg_bit_for_bit(laid_out: Path, tmp_path: Path) -> None:
    """With c and c_i as large as gradients, and equal."""
    one = carry(laid_out, tmp_path / "one", {"name": "scaffold"}, hospitals=1, rounds=3)
    other = carry(laid_out, tmp_path / "other", {"name": "fedavg"}, hospitals=1, rounds=3)
    assert weights(one) == weights(other)
    control = one.last().strategy["control/classification_head.out.weight"]
    assert np.abs(control).max() > 1e-3


def request_of(message: Message) -> dict[str, Any]:
    return dict(json.loads(str(message.content.config_records["config"]["json"])))


def origin(reply: Message) -> Message:
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)


def spoilt(reply: Message, number: int, made: Callable[[dict[str, np.ndarray]], None]) -> Message:
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

        return spoilt(reply, self.number, nan)

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


STRATEGIES: dict[str, dict[str, Any]] = {
    "own": {"local_layers": OWN},
    "scaffolded": {"name": "scaffold", "pretrain": {"name": "fedavg"}},
    "fair": {"name": "fairfed", "group": "GENDER//F", "metric": "accuracy", "beta": 0.2},
}


@pytest.fixture(scope="module")
def own(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Head and norms stay at the sites."""
    return carry(laid_out, tmp_path_factory.mktemp("own") / "run", STRATEGIES["own"], rounds=3)


@pytest.fixture(scope="module")
def scaffolded(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Fine-tuning under SCAFFOLD, pretraining under FedAvg."""
    return carry(laid_out, tmp_path_factory.mktemp("scaffold") / "run", STRATEGIES["scaffolded"], rounds=3)


@pytest.fixture(scope="module")
def fair(laid_out: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """FairFed."""
    return carry(laid_out, tmp_path_factory.mktemp("fair") / "run", STRATEGIES["fair"], rounds=3)


def own_names(ran: Ran) -> frozenset[str]:
    return local_names(OWN, ran.last().weights)


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


def whole(ran: Ran, arrays: dict[str, np.ndarray], layers: dict[str, torch.Tensor]) -> HyMaTE:
    """The study's model under these weights, and a site's layers in their place."""
    request = unpack(ran.told(FINETUNE)[0].content, FinetuneRequest)
    store = ran.store("hospital_1")
    model = build_model(
        request.model,
        codes=store.header.codes,
        static_width=len(store.header.static_names),
        time_scale_hours=request.task.lookback_hours,
        seed=request.seed,
    )
    own = {name.removeprefix("layers/"): x for name, x in layers.items() if name.startswith("layers/")}
    model.load_state_dict({**{name: torch.from_numpy(x) for name, x in arrays.items()}, **own})
    return model


def fine_tuned(
    ran: Ran, site: str, model: HyMaTE, request: FinetuneRequest, epochs: list[int], hook: Any = None
) -> None:
    """These epochs on the site's stays, as a training without a federation has them."""
    optimiser = make_optimiser(model, request.finetune)
    for number in epochs:
        finetune_epochs(
            model,
            ran.store(site),
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            first_epoch=number,
            epochs=1,
            hook=hook,
        )


class BrokenOff(Exception):
    """The coordinator is gone."""


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
                raise BrokenOff
        return reply

    with pytest.raises(BrokenOff):
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


def ranked(best: int) -> Tamper:
    """Tuning says that the weights after round `best` are perfect, and all others useless."""
    seen: dict[str, int] = {}

    def tamper(site: str, reply: Message) -> Message:
        kind = reply.metadata.message_type
        if kind != FINETUNE and (kind != SCORE or unpack(reply.content, EvaluateReply).split != "tuning"):
            return reply
        good = float(seen.setdefault(site, 0) == best)
        seen[site] += 1
        labels = np.array([0.0] * 10 + [1.0] * 10)
        cells = Cells.of(count_scores(labels, np.where(labels == good, 0.9, 0.1)))
        made = ScoreReport(n=20, positives=10, auroc=good, auprc=0.5, cells=cells)
        if kind == SCORE:
            return Message(
                pack(EvaluateReply(site=site, split="tuning", report=made)), reply_to=origin(reply)
            )
        record = unpack(reply.content, TrainReply).model_copy(update={"received": made})
        return Message(pack(record, unpack_weights(reply.content), record.stays), reply_to=origin(reply))

    return tamper


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


class Freeze:
    """A hook that lets some parameters learn."""

    def __init__(self, learns: Callable[[str], bool]) -> None:
        self._learns = learns

    def on_gradient(self, model: nn.Module) -> None:
        for name, parameter in model.named_parameters():
            if not self._learns(name):
                parameter.grad = None

    def before_step(self, model: nn.Module) -> None: ...
    def after_step(self, model: nn.Module, optimiser: torch.optim.Optimizer) -> None: ...
    def after_epoch(self, model: nn.Module) -> None: ...


def test_fedrep_trains_the_head_first_and_the_rest_after(laid_out: Path, tmp_path: Path) -> None:
    strategy = {"local_layers": ["head"], "local_layers_first": 1}
    ran = carry(laid_out, tmp_path / "run", strategy, epochs=2, rounds=1)
    message = ran.told(FINETUNE)[0]
    request, optimiser = unpack(message.content, FinetuneRequest), None
    model = whole(ran, unpack_weights(message.content), {})
    optimiser = make_optimiser(model, request.finetune)

    def head(name: str) -> bool:
        return name.startswith("classification_head.")

    for number, learns in enumerate((head, lambda name: not head(name))):
        finetune_epochs(
            model,
            ran.store("hospital_1"),
            request.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=request.seed,
            first_epoch=number,
            epochs=1,
            hook=Freeze(learns),
        )
    expected = {name: x.numpy().tobytes() for name, x in model.state_dict().items()}
    (reply,) = ran.said(FINETUNE, "hospital_1")
    assert {name: x.tobytes() for name, x in reply.items()} == {
        name: x for name, x in expected.items() if not head(name)
    }
    layers = ran.remembered("hospital_1")
    assert {name.removeprefix("layers/"): x.numpy().tobytes() for name, x in layers.items()} == {
        name: x for name, x in expected.items() if head(name)
    }


def test_pretraining_may_have_a_strategy_of_its_own(scaffolded: Ran, plain: Ran) -> None:
    ran = scaffolded
    beside = {kind: [set(apart(arrays)[1]) for arrays in ran.said(kind)] for kind in (PRETRAIN, FINETUNE)}
    assert beside[PRETRAIN] == [set(), set()]
    assert beside[FINETUNE] == [set(ran.last().weights)] * 6
    assert [ran.kept(SITES[0], phase) for phase in ("pretrain", "finetune")] == [[], [1, 2, 3]]
    assert ran.last("pretrain").strategy == {}
    first = ran.told(FINETUNE)[0].content  # fine-tuning knows no control variate of pretraining
    assert {name: x.tobytes() for name, x in unpack_weights(first).items()} == {
        name: x.tobytes() for name, x in unpack_weights(plain.told(FINETUNE)[0].content).items()
    }


def test_ditto_s_own_models_are_scored_and_kept_and_the_shared_one_is_fedavg_s(
    laid_out: Path, tmp_path: Path, plain: Ran
) -> None:
    """Without a pull, the own model is that of a site that fine-tunes the pretrained weights by itself."""
    ran = carry(laid_out, tmp_path / "run", {"name": "ditto", "lambda": 0}, tamper=ranked(2))
    assert weights(ran) == weights(plain)
    assert [set(apart(arrays)[1]) for arrays in ran.said(FINETUNE)] == [set()] * 4
    assert ran.kept(SITES[0], "pretrain") == []
    message = ran.told(FINETUNE)[0]
    for site in SITES[:2]:
        alone = whole(ran, unpack_weights(message.content), {})
        fine_tuned(ran, site, alone, unpack(message.content, FinetuneRequest), [0, 1])
        own = ran.own_model(site).state_dict()
        for name, tensor in alone.state_dict().items():
            assert own[name].numpy().tobytes() == tensor.numpy().tobytes(), (site, name)
    assert ran.report["personal"] is True


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


def test_what_a_site_remembers_of_an_algorithm_is_pruned(laid_out: Path, tmp_path: Path) -> None:
    ran = carry(laid_out, tmp_path / "run", {"name": "feddyn"}, rounds=6, tamper=ranked(0))
    assert ran.kept("hospital_1") == list(range(7 - KEPT_ROUNDS, 7))
    (file,) = (ran.folder / "sites/hospital_1/state").rglob("finetune/strategy-00006.safetensors")
    assert set(load_arrays(file)) == {f"algorithm/{name}" for name in ran.last().weights}
