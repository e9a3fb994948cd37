"""Flower's strategies under their own names: settings, one-line faults, state bit for bit, same as Flower."""

from __future__ import annotations

import logging
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord
from flwr.serverapp import strategy as flower

from hymate.errors import InputFault
from hymate.strategy_config import StrategyConfig
from server.study import dump_study, load_study
from strategies.base import Round, Update
from strategies.flower import flower_names
from strategies.flower_state import captured, put_back
from strategies.registry import make_algorithm
from tests.in_process import small_study
from tests.strategies.halves import Halves, Hospital

pytestmark = pytest.mark.usefixtures("flower_task")

NEEDED: dict[str, dict[str, Any]] = {
    "flower.QFedAvg": {"client_learning_rate": 0.1},
    "flower.FedAvgM": {"server_momentum": 0.5},
}
"""Settings without which a strategy cannot be made, or has no state."""
HOSPITALS = [
    Hospital("a", [1.0, 2.0, -1.0], [1.0, 0.5, 2.0], stays=30, steps=5),
    Hospital("b", [-1.0, 0.0, 3.0], stays=10, steps=3),
    Hospital("c", [0.5, -2.0, 0.0], 1.5, stays=20),
    Hospital("d", [0.4, 1.0, 0.5], stays=25),
]


def study(name: str) -> Halves:
    return Halves({"name": name, **NEEDED.get(name, {})}, HOSPITALS)


def made(**settings: Any) -> Any:
    return make_algorithm(StrategyConfig.model_validate(settings))


def test_all_of_flower_s_are_there_but_those_that_cannot_be() -> None:
    left_out = {name for name in flower.__all__ if f"flower.{name}" not in flower_names()}
    assert left_out == {
        "DifferentialPrivacyClientSideAdaptiveClipping",
        "DifferentialPrivacyClientSideFixedClipping",
        "DifferentialPrivacyServerSideAdaptiveClipping",
        "DifferentialPrivacyServerSideFixedClipping",
        "FedProx",
        "FedXgbBagging",
        "FedXgbCyclic",
        "Result",
        "Strategy",
    }


@pytest.mark.parametrize("name", flower_names())
def test_state_survives_a_restart_bit_for_bit(name: str, tmp_path: Path) -> None:
    through, stopped = study(name).run(5), study(name)
    for _ in range(5):
        stopped.run(1).restart(tmp_path)
    assert stopped.point.tobytes() == through.point.tobytes()


@pytest.mark.parametrize("name", ["flower.FedAdam", "flower.FedAvgM"])
def test_the_state_matters(name: str) -> None:
    """The equality above is not for free: without its state a strategy ends elsewhere."""
    through, forgetful = study(name).run(5), study(name)
    for _ in range(5):
        forgetful.run(1)
        forgetful.algorithm = make_algorithm(forgetful.strategy)
    assert np.abs(forgetful.point - through.point).max() > 1e-3


@pytest.mark.parametrize("name", ["flower.FedAvg", "flower.FedAvgM"])
def test_flower_s_mean_is_ours(name: str) -> None:
    theirs = Halves({"name": name}, HOSPITALS).run(4)
    np.testing.assert_allclose(theirs.point, Halves({"name": "fedavg"}, HOSPITALS).run(4).point, rtol=1e-12)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"name": "flower.FedTrimedAvg"}, "did you mean 'flower.FedTrimmedAvg'"),
        ({"name": "FedTrimmedAvg"}, "did you mean 'flower.FedTrimmedAvg'"),
        ({"name": "flower.Result"}, "no algorithm is called 'flower.Result'"),
        ({"name": "flower.FedTrimmedAvg", "betta": 0.2}, "'betta' does not exist; did you mean 'beta'"),
        ({"name": "flower.FedTrimmedAvg", "beta": "much"}, "key 'beta': Input should be a valid number"),
        ({"name": "flower.FedTrimmedAvg", "beta": 0.7}, r"`beta` must be in the range"),
        ({"name": "flower.Krum", "num_malicious_nodes": 0.5}, "key 'num_malicious_nodes'"),
        ({"name": "flower.QFedAvg"}, "key 'client_learning_rate' is missing"),
        ({"name": "flower.FedAvg", "fraction_train": 0.5}, "who takes part: participation"),
        ({"name": "flower.FedAvg", "train_metrics_aggr_fn": "f"}, "does not exist"),
        ({"name": "flower.FedProx", "proximal_mu": 1}, "take 'fedprox'"),
        ({"name": "flower.FedXgbBagging"}, "merges trees"),
        ({"name": "flower.DifferentialPrivacyServerSideFixedClipping"}, "wraps another strategy"),
    ],
)
def test_what_is_wrong_is_one_line_when_the_study_is_read(
    settings: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(small_study(strategy=settings)))
    with pytest.raises(InputFault, match=words) as fault:
        load_study(path)
    assert str(path) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_study_file_with_one_of_flower_s_loads_and_is_told_whole(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(small_study(strategy={"name": "flower.FedTrimmedAvg", "beta": 0.25})))
    strategy = load_study(path).strategy.of("finetune")
    assert (strategy.name, strategy.settings) == ("flower.FedTrimmedAvg", {"beta": 0.25})
    request = StrategyConfig.model_validate_json(strategy.model_dump_json())  # as a site gets it
    assert made(**request.model_dump()).name == "flower.FedTrimmedAvg"


def test_settings_reach_flower() -> None:
    """Of five values, a beta of 0.2 cuts one at each end, one of 0.4 two."""
    updates = [Update({"w": np.array([value])}, 1.0, str(value)) for value in (0.0, 1.0, 2.0, 6.0, 100.0)]
    for beta, mean in ((0.0, 21.8), (0.2, 3.0), (0.4, 2.0)):
        algorithm = made(name="flower.FedTrimmedAvg", beta=beta)
        assert algorithm.aggregate(Round(1, 5), {"w": np.zeros(1)}, updates)["w"] == pytest.approx([mean])


def test_float32_stays_float32_and_scalars_stay_scalars() -> None:
    current = {"w": np.zeros((2, 3), np.float32), "s": np.zeros((), np.float32)}
    updates = [
        Update({name: array + number for name, array in current.items()}, 1.0, str(number))
        for number in (np.float32(1), np.float32(3))
    ]
    for name in flower_names():
        if name not in ("flower.QFedAvg", "flower.Bulyan"):
            after = made(name=name).aggregate(Round(1, 2), current, updates)
            assert {k: (x.shape, x.dtype) for k, x in after.items()} == {
                k: (x.shape, x.dtype) for k, x in current.items()
            }


def test_one_site_is_enough_and_none_is_waited_for() -> None:
    alone = Halves({"name": "flower.FedAvg"}, [Hospital("a", [1.0])]).run(1)
    assert alone.point == pytest.approx([1 - 0.9**4])


def test_where_flower_gives_up_the_study_ends_in_one_line() -> None:
    update = Update({"w": np.ones(1)}, 1.0, "a")
    with pytest.raises(InputFault, match=r"flower.Bulyan made no weights of the 1 updates of round 3"):
        made(name="flower.Bulyan").aggregate(Round(3, 1), {"w": np.zeros(1)}, [update])
    with pytest.raises(InputFault, match=r"flower.QFedAvg failed in round 2: .*training loss") as fault:
        made(name="flower.QFedAvg", client_learning_rate=0.1).aggregate(
            Round(2, 1), {"w": np.zeros(1)}, [update]
        )
    assert "\n" not in str(fault.value)


def test_q_fedavg_gets_the_sites_losses() -> None:
    fair = study("flower.QFedAvg").run(1)
    assert fair.algorithm.facts_needed() == {"loss"}
    assert all(update.facts["loss"] > 0 for update in fair.updates)


def test_compression_that_starves_a_vote_is_refused() -> None:
    with pytest.raises(InputFault, match="top_k leaves most out"):
        made(name="flower.FedMedian", compression=["delta", "top_k"])
    made(name="flower.FedMedian", compression=["delta", "int8"])
    made(name="flower.FedAvg", compression=["delta", "top_k"])
    with pytest.raises(InputFault, match="weighting makes no difference"):
        made(name="flower.Krum", weighting="positives")


def test_flower_s_lines_and_draws_leave_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    logging.getLogger("flwr").addHandler(caplog.handler)
    random.seed(3)
    expected = random.random()
    random.seed(3)
    study("flower.FedAvg").run(1)
    logging.getLogger("flwr").removeHandler(caplog.handler)
    assert random.random() == expected
    assert caplog.records == []
    assert logging.getLogger("flwr").level != logging.WARNING


def test_whatever_a_strategy_remembers_comes_back() -> None:
    rng = np.random.default_rng(0)
    kept = {
        "number": 0.1 + 0.2,
        "words": "é",
        "nothing": None,
        "switch": True,
        "infinite": float("inf"),
        "scalar": np.float32(0.1),
        "zero_d": np.array(3, np.int64),
        "transposed": rng.normal(size=(2, 3)).T,
        "tree": {"a": [rng.normal(size=2).astype(np.float32), (1, {2: np.float64(0.3)})]},
        "record": ArrayRecord({"z": Array(rng.normal(size=3)), "a": Array(np.zeros(()))}),
    }
    back = SimpleNamespace(number=0.0, function=len)
    put_back(back, captured(SimpleNamespace(**kept, function=print), "x"))
    assert back.function is len
    again = vars(back)
    for key in ("number", "words", "nothing", "switch", "infinite"):
        assert again[key] == kept[key]
        assert type(again[key]) is type(kept[key])
    assert (again["scalar"], type(again["scalar"])) == (np.float32(0.1), np.float32)
    assert (again["zero_d"].shape, again["zero_d"].dtype, int(again["zero_d"])) == ((), np.int64, 3)
    np.testing.assert_array_equal(again["transposed"], kept["transposed"])
    tree: Any = kept["tree"]
    assert again["tree"]["a"][0].tobytes() == tree["a"][0].tobytes()
    assert again["tree"]["a"][1] == (1, {2: 0.3})
    assert type(again["tree"]["a"][1][1][2]) is np.float64
    record: Any = kept["record"]
    assert list(again["record"]) == ["z", "a"]
    assert [x.numpy().tobytes() for x in again["record"].values()] == [
        x.numpy().tobytes() for x in record.values()
    ]


def test_what_cannot_be_kept_is_told() -> None:
    with pytest.raises(InputFault, match=r"flower.X keeps set as 'seen'"):
        captured(SimpleNamespace(seen={1}), "flower.X")
