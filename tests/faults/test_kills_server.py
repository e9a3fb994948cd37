"""SIGKILL at the coordinator, wherever the study stands: restarted with `--resume` it ends in the same bits."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.conftest import Build
from tests.faults.federation import SERVER, Federation, until

pytestmark = pytest.mark.faults

Moment = Callable[[Federation], bool]


def _before_the_first_round(one: Federation) -> bool:
    return one.asked("statistics") and not one.asked("pretrain", 1)


def _while_a_site_trains(one: Federation) -> bool:
    return one.works_on("hospital_1", "finetune round 2")


def _after_the_last_round(one: Federation) -> bool:
    return one.asked("score")


@pytest.mark.parametrize(
    "moment",
    [_before_the_first_round, _while_a_site_trains, _after_the_last_round],
    ids=lambda m: m.__name__[1:],
)
def test_a_killed_coordinator_goes_on(
    moment: Moment, federation: Build, undisturbed: dict[str, bytes]
) -> None:
    """All of it at once: `flower-server`, SuperLink, the study's process. Sites just keep running."""
    one = federation()
    one.start_clients()
    server = one.start_server()
    until(lambda: moment(one), "the moment to kill", alive=server)
    assert one.kill(SERVER) >= 3
    assert not (one.run / "report.json").exists()
    again = one.start_server("--resume")
    assert one.finish(again) == 0, one.told()
    assert "going on" in one.told()
    assert one.weights() == undisturbed
