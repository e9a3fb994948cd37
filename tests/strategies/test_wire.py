"""Every record survives the wire, weights bit for bit; strangers are named."""

from __future__ import annotations

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from pydantic import BaseModel

from hymate.config import FinetuneConfig, ModelConfig, PretrainConfig, TaskConfig
from hymate.errors import InputFault
from hymate.evaluate.histograms import count_scores
from hymate.evaluation_config import AttributeConfig
from hymate.joining_protocol import (
    DescribeRequest,
    PrepareReply,
    PrepareRequest,
    SiteDescription,
    SplitCounts,
    StatisticsReply,
    StatisticsRequest,
)
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import AloneReply, AloneRequest, FinetuneRequest, PretrainRequest, Refusal, TrainReply
from hymate.score_reports import Cells, Detail, GroupReport, OwnFit, ScoreReport
from hymate.scoring_protocol import EvaluateReply, EvaluateRequest, RecalibrateReply, RecalibrateRequest
from hymate.strategy_config import StrategyConfig
from strategies.wire import (
    ARRAYS,
    CONFIG,
    LAYOUT,
    SiteRefused,
    joined,
    named,
    pack,
    pack_config,
    pack_weights,
    unpack,
    unpack_weights,
)

TRAINING = {
    "study": "s",
    "task": TaskConfig(),
    "model": ModelConfig(),
    "vocabulary_hash": "ab" * 32,
    "seed": 7,
}
SCORES = count_scores(np.array([0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.61]))
DETAIL = Detail(
    edges=(0.1, 0.5),
    threshold=0.5,
    groups=(AttributeConfig(code="GENDER"), AttributeConfig(code="AGE", name="age", cuts=(65.0,))),
    pairs=(("GENDER", "age"),),
)
GROUP = GroupReport(
    n=3,
    positives=2,
    score_sum=1.1,
    squared_error_sum=0.3,
    squared_error_squares=0.1,
    log_loss_sum=0.7,
    log_loss_squares=0.2,
    cells=Cells.of(SCORES),
)
TOLD = ScoreReport(
    n=3, positives=2, own_fit=OwnFit(slope=0.9), groups={"GENDER//F": GROUP}, held_back=("GENDER//M",)
)
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
    PretrainRequest(
        **TRAINING, round=1, pretrain=PretrainConfig(), strategy=StrategyConfig(), privacy=PrivacyConfig()
    ),
    FinetuneRequest(
        **TRAINING,
        round=2,
        finetune=FinetuneConfig(),
        positive_weight=3.3,
        strategy=StrategyConfig(),
        privacy=PrivacyConfig(),
    ),
    AloneRequest(**TRAINING, pretrain=PretrainConfig(), finetune=FinetuneConfig()),
    EvaluateRequest(**TRAINING, split="held_out"),
    EvaluateRequest(**TRAINING, split="held_out", detail=DETAIL),
    RecalibrateRequest(**TRAINING, split="held_out", detail=DETAIL, points={"": [(0.1, 0.9), (0.2, 1.0)]}),
    RecalibrateReply(site="a", sums={"": [(-1.5, 0.1, 0.2, 3.0, 0.1, 0.2)], "GENDER//F": []}),
    TrainReply(site="a", stays=3, loss=0.1 + 0.2, steps=1, seconds=0.5, received=REPORT),
    AloneReply(site="a", held_out=REPORT, pretrain_epochs=1, finetune_epochs=1, best_epoch=1, seconds=1.0),
    EvaluateReply(site="a", split="tuning", report=REPORT),
    EvaluateReply(site="a", split="held_out", report=TOLD),
]


def over_the_wire(content: RecordDict) -> RecordDict:
    """Through Flower's own serialisation to protobuf bytes and back."""
    proto = recorddict_to_proto(content)
    return recorddict_from_proto(type(proto).FromString(proto.SerializeToString()))


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_records_survive(record: BaseModel) -> None:
    assert unpack(over_the_wire(pack(record)), type(record)) == record


def some_weights() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "z": rng.normal(size=(2, 3)).astype(np.float32),
        "a": np.array([np.float32(1e-42), np.nan, -0.0], dtype=np.float32),
        "count": np.array([2**62 + 1, -1]),
        "scalar": np.array(3.0, dtype=np.float32),
        "empty": np.zeros((0, 4), dtype=np.float32),
        "turned": rng.normal(size=(3, 2)).T,
    }


def test_weights_survive_bit_for_bit() -> None:
    weights = some_weights()
    back = unpack_weights(over_the_wire(pack(RECORDS[0], weights)))
    assert list(back) == list(weights)
    for name, array in weights.items():
        assert back[name].shape == array.shape
        assert back[name].dtype == array.dtype
        assert back[name].tobytes() == array.tobytes()


def test_weights_travel_as_one_array_of_each_type() -> None:
    content = pack(RECORDS[0], some_weights())
    assert sorted(content.array_records[ARRAYS]) == ["float32", "float64", "int64"]
    assert unpack(content, type(RECORDS[0])) == RECORDS[0]


def test_a_strategy_sees_named_arrays_and_what_it_sends_is_joined() -> None:
    weights = some_weights()
    plain = RecordDict({ARRAYS: pack_weights(weights), CONFIG: pack_config(RECORDS[0])})
    back = named(over_the_wire(joined(plain)))
    assert list(back.array_records[ARRAYS]) == list(weights)
    assert back.config_records[CONFIG] == plain.config_records[CONFIG]
    for name, array in weights.items():
        assert back.array_records[ARRAYS][name].numpy().tobytes() == array.tobytes()
    assert named(plain) is plain
    assert joined(pack(RECORDS[0])).keys() == {CONFIG}


@pytest.mark.parametrize(
    "layout",
    [
        "no JSON",
        "7",
        "null",
        "[]",
        '["a"]',
        '[["a", "float32", [3]]]',
        '[["a", "float32", [5]]]',
        '[["a", "float64", [4]]]',
        '[["a", "float32", [2, "2"]]]',
        '[["a", "float32", [2]], ["a", "float32", [2]]]',
        '[["a", "float32", [99999999999999999999]]]',
        '[["a", ["float32"], [4]]]',
    ],
)
def test_a_layout_that_does_not_fit_is_refused(layout: str) -> None:
    content = pack(RECORDS[0], {"a": np.zeros(4, np.float32)})
    content.config_records[CONFIG][LAYOUT] = layout
    with pytest.raises(InputFault, match="cannot be read"):
        unpack_weights(content)


@pytest.mark.parametrize("stored", [b"", b"PK\x03\x04", b"\x80\x04N.", b"\x93NUMPY\x01\x00"])
def test_bytes_that_are_no_array_are_refused(stored: bytes) -> None:
    array = Array("float32", (1,), "numpy.ndarray", stored)
    with pytest.raises(InputFault, match="cannot be read"):
        unpack_weights(RecordDict({ARRAYS: ArrayRecord({"a": array})}))


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
