"""Whole studies in one process: equality with central training, quarantine, refusals, what leaves a site."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest
from flwr.app import Error, Message
from flwr.serverapp import Grid
from safetensors.numpy import load_file

from client.agreed import agreed_store
from client.site import load_site
from hymate.evaluate.histograms import count_scores
from hymate.model.hymate import build_model
from hymate.protocol import AloneReply, FinetuneRequest, TrainReply
from hymate.score_reports import Cells, ScoreReport
from hymate.scoring_protocol import EvaluateReply
from hymate.train.loop import finetune_epochs, make_optimiser, pretrain_epochs
from server.app import run_study
from server.failure import StudyFailure
from server.study import StudyConfig
from strategies.base import Arrays, Update
from strategies.fedavg import FedAvg
from strategies.registry import ALGORITHMS
from strategies.wire import pack, unpack, unpack_weights
from tests.in_process import InProcessGrid, Tamper, lay_out, small_study


def run(
    tmp_path: Path,
    study: StudyConfig,
    *,
    hospitals: int = 2,
    seed: int = 0,
    min_cell: int = 1,
    tamper: Tamper | None = None,
) -> tuple[dict[str, Any], InProcessGrid]:
    sites = lay_out(tmp_path, hospitals, min_cell=min_cell)
    grid = InProcessGrid(tmp_path, sites, seed=seed, tamper=tamper)
    run_study(cast(Grid, grid), study, tmp_path, expected_sites=len(sites), clock=grid.time)
    return json.loads((tmp_path / "report.json").read_text()), grid


def figures(report: dict[str, Any]) -> dict[str, Any]:
    """All of a report but what a clock wrote."""
    return {key: value for key, value in report.items() if key != "timings"}


def last_weights(grid: InProcessGrid, kind: str) -> dict[str, np.ndarray]:
    replies = [m for m in grid.replies if m.metadata.message_type == kind and not m.has_error()]
    return unpack_weights(replies[-1].content)


def test_one_site_alone_equals_central_training_step_for_step(tmp_path: Path) -> None:
    study = small_study(
        pretrain={"rounds": 2, "batch_size": 16},
        finetune={"rounds": 3, "batch_size": 16},
        strategy={"name": "fedavg", "optimiser_state": "keep"},
    )
    _, grid = run(tmp_path, study, hospitals=1)

    site = load_site(next(tmp_path.glob("sites/*/site.yaml")))
    finetunes = [m for m in grid.sent if m.metadata.message_type == "train.finetune"]
    request = unpack(finetunes[0].content, FinetuneRequest)
    store = agreed_store(site, study.task, request.vocabulary_hash)
    model = build_model(
        study.model,
        codes=store.header.codes,
        static_width=len(store.header.static_names),
        time_scale_hours=study.task.lookback_hours,
        seed=study.seed,
    )
    pretrain_epochs(
        model, store, study.pretrain, make_optimiser(model, study.pretrain), seed=0, first_epoch=0, epochs=2
    )
    optimiser = make_optimiser(model, study.finetune)
    for number, message in enumerate(finetunes):
        for name, array in unpack_weights(message.content).items():
            assert array.tobytes() == model.state_dict()[name].numpy().tobytes(), (number, name)
        finetune_epochs(
            model,
            store,
            study.finetune,
            optimiser,
            positive_weight=request.positive_weight,
            seed=0,
            first_epoch=number,
            epochs=1,
        )
    for name, array in last_weights(grid, "train.finetune").items():
        assert array.tobytes() == model.state_dict()[name].numpy().tobytes(), name


def test_forgetting_the_optimiser_changes_the_result(tmp_path: Path) -> None:
    """The equality above is not for free: with `reset` the second round differs."""
    kept, reset = (
        last_weights(
            run(tmp_path / policy, small_study(strategy={"optimiser_state": policy}), hospitals=1)[1],
            "train.finetune",
        )
        for policy in ("keep", "reset")
    )
    assert any(kept[name].tobytes() != reset[name].tobytes() for name in kept)


def test_the_order_of_replies_changes_nothing(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", small_study(), hospitals=3, seed=1)
    second, _ = run(tmp_path / "b", small_study(), hospitals=3, seed=2)
    assert figures(first) == figures(second)
    weights = [(tmp_path / name / "model" / "weights.safetensors").read_bytes() for name in "ab"]
    assert weights[0] == weights[1]


class FirstSite(FedAvg):
    """Takes the first update as it is: whoever comes first decides."""

    name = "first-site"
    of_the_mean = False

    def aggregate(self, server_round: int, current: Arrays, updates: Sequence[Update]) -> Arrays:
        return updates[0].arrays


def test_updates_reach_the_algorithm_in_the_order_of_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ALGORITHMS, FirstSite.name, FirstSite)
    study = small_study(strategy={"name": FirstSite.name}, finetune={"rounds": 1, "batch_size": 16})
    for seed in range(3):
        _, grid = run(tmp_path / str(seed), study, hospitals=3, seed=seed)
        sent = next(m for m in grid.sent if m.metadata.message_type == "train.finetune")
        first = next(m for m in grid.replies if m.metadata.message_type == "train.pretrain")  # hospital_1
        for name, array in unpack_weights(first.content).items():
            assert array.tobytes() == unpack_weights(sent.content)[name].tobytes()


def test_the_round_that_did_best_on_tuning_is_kept(tmp_path: Path) -> None:
    """Reports are replaced: the weights received in round 3 rank perfectly, all others backwards."""
    seen: Counter[str] = Counter()

    def tamper(name: str, reply: Message) -> Message:
        if reply.metadata.message_type not in ("train.finetune", "evaluate.score"):
            return reply
        seen[name] += 1
        good = seen[name] == 3
        labels = np.array([0.0] * 10 + [1.0] * 10)
        cells = Cells.of(count_scores(labels, np.where(labels == good, 0.9, 0.1)))
        score = ScoreReport(n=20, positives=10, auroc=float(good), auprc=0.5, cells=cells)
        if reply.metadata.message_type == "evaluate.score":
            content = pack(EvaluateReply(site=name, split="tuning", report=score))
        else:
            record = unpack(reply.content, TrainReply).model_copy(update={"received": score})
            content = pack(record, unpack_weights(reply.content), record.stays)
        return Message(content, reply_to=reply_origin(reply))

    study = small_study(finetune={"rounds": 9, "patience": 2, "batch_size": 16})
    report, grid = run(tmp_path, study, tamper=tamper)
    assert report["rounds"] == {"pretrain": 1, "finetune": 5, "best": 2}
    finetunes = [m for m in grid.sent if m.metadata.message_type == "train.finetune"]
    kept = load_file(tmp_path / "model" / "weights.safetensors")
    for name, array in unpack_weights(finetunes[2 * 2].content).items():  # two sites: round 3's message
        assert kept[f"weights/{name}"].tobytes() == array.tobytes()


def test_another_seed_is_another_study(tmp_path: Path) -> None:
    first, _ = run(tmp_path / "a", small_study(seed=0))
    second, _ = run(tmp_path / "b", small_study(seed=1))
    assert first["sites"] != second["sites"]


def spoil(site: str, kind: str, value: float) -> Tamper:
    """One site sends weights with one number replaced."""

    def tamper(name: str, reply: Message) -> Message:
        if name != site or reply.metadata.message_type != kind or reply.has_error():
            return reply
        weights = {key: np.array(array) for key, array in unpack_weights(reply.content).items()}
        next(iter(weights.values())).flat[0] = value
        record = unpack(reply.content, TrainReply)
        return Message(pack(record, weights, record.stays), reply_to=cast(Any, reply_origin(reply)))

    return tamper


def reply_origin(reply: Message) -> Message:
    """A message whose reply has the type and partner of `reply`."""
    return Message(reply.content, dst_node_id=1, message_type=reply.metadata.message_type)


def test_a_site_sending_nan_is_set_aside_and_named(tmp_path: Path) -> None:
    study = small_study(participation={"quorum": 2})
    report, _ = run(tmp_path, study, hospitals=3, tamper=spoil("hospital_2", "train.finetune", np.nan))
    troubles = report["participation"]["troubles"]
    assert {trouble["site"] for trouble in troubles} == {"hospital_2"}
    assert {trouble["outcome"] for trouble in troubles} == {"quarantined"}
    assert "not finite" in troubles[0]["reason"]
    assert report["sites"]["hospital_2"]["auroc"] is not None  # it is still evaluated


def test_too_few_usable_replies_end_the_study_with_the_cause(tmp_path: Path) -> None:
    with pytest.raises(
        StudyFailure, match=r"finetune round 1: 2 of 3 sites .* 3 are needed; hospital_2 quarantined"
    ):
        run(tmp_path, small_study(), hospitals=3, tamper=spoil("hospital_2", "train.finetune", np.inf))


def test_a_site_that_drops_out_after_describing_is_left_out_of_every_figure(tmp_path: Path) -> None:
    def tamper(name: str, reply: Message) -> Message:
        kind = reply.metadata.message_type
        if name == "hospital_1" and kind != "query.describe":
            return Message(Error(code=2, reason="site went away"), reply_to=reply_origin(reply))
        return reply

    study = small_study(participation={"quorum": 1}, evaluation={"local_baseline": True})
    report, _ = run(tmp_path, study, hospitals=2, tamper=tamper)
    assert set(report["sites"]) == set(report["local"]) == {"hospital_2"}
    assert report["cohort"]["hospital_1"]["unknown_codes"] is None
    assert report["participation"]["sites"]["hospital_1"]["failed"] >= 5
    page = (tmp_path / "report.html").read_text()
    assert "site went away" in page


def test_a_site_with_too_few_stays_does_not_train(tmp_path: Path) -> None:
    sites = lay_out(tmp_path, 2)
    site = tmp_path / "sites" / "hospital_1" / "site.yaml"
    site.write_text(site.read_text().replace("min_cell: 1", "min_cell: 43"))  # it has 42 training stays
    grid = InProcessGrid(tmp_path, sites)
    study = small_study(participation={"quorum": 1})
    run_study(cast(Grid, grid), study, tmp_path, expected_sites=2, clock=grid.time)
    report = json.loads((tmp_path / "report.json").read_text())
    troubles = report["participation"]["troubles"]
    assert len(troubles) == 3  # every training round
    assert all("fewer training stays than its minimum of 43" in trouble["reason"] for trouble in troubles)
    assert report["sites"]["hospital_1"]["n"] is None
    assert report["pooled"]["sites"] == 1


def test_a_site_refuses_another_vocabulary(tmp_path: Path) -> None:
    _, grid = run(tmp_path, small_study())
    message = next(m for m in grid.sent if m.metadata.message_type == "train.finetune")
    request = unpack(message.content, FinetuneRequest)
    forged = request.model_copy(update={"vocabulary_hash": "f" * 64})
    content = pack(forged, unpack_weights(message.content))
    reply = grid.ask(Message(content, dst_node_id=10, message_type="train.finetune"))
    refusal = json.loads(str(reply.content.config_records["config"]["json"]))
    assert "has not agreed to vocabulary ffffffffffff" in refusal["reason"]


def test_no_count_below_the_minimum_leaves_a_site(tmp_path: Path) -> None:
    """Every record of a whole study, counts below 5 hunted in all of them; a rare code is planted."""
    sites = lay_out(tmp_path, 1, stays=200, min_cell=5)
    plant_rare_code(tmp_path / "data" / sites[0], subjects=4)
    grid = InProcessGrid(tmp_path, sites)
    study = small_study(evaluation={"local_baseline": True})
    run_study(cast(Grid, grid), study, tmp_path, expected_sites=1, clock=grid.time)
    seen, cells = 0, 0
    for reply in grid.replies:
        text = str(reply.content.config_records["config"]["json"])
        assert "RARE" not in text
        cells += text.count('"low":[')
        for count in _counts(json.loads(text)):
            seen += 1
            assert count is None or count == 0 or count >= 5, (reply.metadata.message_type, text[:300])
    assert seen > 100
    assert cells >= 4  # histograms were sent


def plant_rare_code(folder: Path, subjects: int) -> None:
    """Give a few training subjects of a MEDS data set one more code."""
    shard = folder / "data" / "train" / "0.parquet"
    table = pq.read_table(shard)
    events = pl.from_arrow(table)
    assert isinstance(events, pl.DataFrame)
    rare = (
        events.filter(pl.col("time").is_not_null())
        .group_by("subject_id", maintain_order=True)
        .last()
        .head(subjects)
        .with_columns(code=pl.lit("RARE"))
        .select(events.columns)
    )
    planted = pl.concat([events, rare]).sort("subject_id", "time", nulls_last=False, maintain_order=True)
    pq.write_table(planted.to_arrow().cast(table.schema), shard)


COUNT_KEYS = {"stays", "positives", "negatives", "subjects", "numeric_subjects", "count", "numeric", "n"}


def _counts(content: Any, key: str = "") -> list[int | None]:
    """Every number below a key that counts people or their observations."""
    if isinstance(content, dict):
        return [found for name, value in content.items() for found in _counts(value, name)]
    if isinstance(content, list):
        return [found for value in content for found in _counts(value, key)]
    if key == "statistics" and isinstance(content, str):
        return _counts(json.loads(content))
    return [content] if key in COUNT_KEYS else []


def test_no_subject_nor_score_leaves_a_site(tmp_path: Path) -> None:
    """Replies hold only the fields of the protocol, none of which is per patient."""
    _, grid = run(tmp_path, small_study(evaluation={"local_baseline": True}))
    subjects = {
        str(subject)
        for path in tmp_path.glob("sites/*/cache/*/arrays-*/subject_id.npy")
        for subject in np.load(path).tolist()
    }
    assert len(subjects) == 120
    for reply in grid.replies:
        record = reply.content.config_records["config"]
        assert set(record) - {"layout"} == {"kind", "json"}  # names and shapes of arrays
        assert not subjects & set(str(record["json"]).replace(",", " ").replace(":", " ").split())
        if record["kind"] in (EvaluateReply.__name__, AloneReply.__name__):
            assert not reply.content.array_records
