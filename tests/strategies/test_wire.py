"""Every record survives the wire, weights bit for bit; strangers are named."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from pydantic import BaseModel

from hymate.config import FinetuneConfig, ModelConfig, PretrainConfig, TaskConfig
from hymate.errors import InputFault
from hymate.evaluate.histograms import count_scores
from hymate.protocol import (
    AloneReply,
    AloneRequest,
    Cells,
    DescribeRequest,
    EvaluateReply,
    EvaluateRequest,
    FinetuneRequest,
    PrepareReply,
    PrepareRequest,
    PretrainRequest,
    Refusal,
    ScoreReport,
    SiteDescription,
    SplitCounts,
    StatisticsReply,
    StatisticsRequest,
    StrategyConfig,
    TrainReply,
)
from strategies.wire import SiteRefused, pack, unpack, unpack_weights

TRAINING = {
    "study": "s",
    "task": TaskConfig(),
    "model": ModelConfig(),
    "vocabulary_hash": "ab" * 32,
    "seed": 7,
}
SCORES = count_scores(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.61]))
REPORT = ScoreReport(n=3, positives=2, auroc=1.0, auprc=1.0, log_loss_sum=0.1, cells=Cells.of(SCORES))
RECORDS: list[BaseModel] = [
    DescribeRequest(task=TaskConfig()),
    SiteDescription(
        site="a",
        dataset="d",
        splits={"train": SplitCounts(stays=10, positives=None)},
        left_out={"no split": 7},
        versions={"torch": "2"},
    ),
    StatisticsRequest(task=TaskConfig()),
    StatisticsReply(site="a", statistics="{}"),
    PrepareRequest(task=TaskConfig(), vocabulary="{}", vocabulary_hash="00"),
    PrepareReply(site="a", vocabulary_hash="00", unknown_codes=1, seconds=0.1),
    PretrainRequest(**TRAINING, round=1, pretrain=PretrainConfig(), strategy=StrategyConfig()),
    FinetuneRequest(
        **TRAINING, round=2, finetune=FinetuneConfig(), positive_weight=3.3, strategy=StrategyConfig()
    ),
    AloneRequest(**TRAINING, pretrain=PretrainConfig(), finetune=FinetuneConfig()),
    EvaluateRequest(**TRAINING, split="held_out"),
    TrainReply(site="a", stays=3, loss=0.1 + 0.2, steps=1, seconds=0.5, received=REPORT),
    AloneReply(site="a", held_out=REPORT, pretrain_epochs=1, finetune_epochs=1, best_epoch=1, seconds=1.0),
    EvaluateReply(site="a", split="tuning", report=REPORT),
]


def over_the_wire(content: RecordDict) -> RecordDict:
    """Through Flower's own serialisation to protobuf bytes and back."""
    proto = recorddict_to_proto(content)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_survive(record: BaseModel) -> None:
    assert unpack(over_the_wire(pack(record)), type(record)) == record


def test_weights_survive_bit_for_bit() -> None:
    rng = np.random.default_rng(0)
    weights = {
        "z": rng.normal(size=(2, 3)).astype(np.float32),
        "a": np.array([np.float32(1e-42), np.nan, -0.0], dtype=np.float32),
        "scalar": np.array(3.0, dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
    }
    back = unpack_weights(over_the_wire(pack(RECORDS[0], weights)))
    assert list(back) == list(weights)
    for name, array in weights.items():
        assert back[name].shape == array.shape
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()


def test_a_refusal_is_raised_with_its_reason() -> None:
    with pytest.raises(SiteRefused, match="no data here"):
        unpack(pack(Refusal(site="a", reason="no data here")), TrainReply)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (RecordDict({}), "carries no record"),
        (pack(RECORDS[0]), "holds DescribeRequest where TrainReply was expected"),
        (
            RecordDict({"config": ConfigRecord({"kind": "TrainReply", "json": '{"site": "a"}'})}),
            "stays: Field required",
        ),
    ],
)
def test_strange_content_is_named(content: RecordDict, words: str) -> None:
    with pytest.raises(InputFault, match=words):
        unpack(content, TrainReply)
