"""Real processes killed at random moments of one study: it ends with the bits of an undisturbed one."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hymate.data.synthetic import generate_cohort, write_cohort
from tests.faults.federation import SERVER, Federation, until

pytestmark = [pytest.mark.deployment, pytest.mark.timeout(1800)]

SEED = 6
LATEST = 0.8
"""Share of the undisturbed study's replies before which all kills fall."""
LONGEST_PAUSE_S = 2.0
SERVER_PARTS = [(), ("server.server_cli",), ("server.gate",), ("flwr-serverapp",)]
"""Whom SIGKILL meets at the coordinator: all at once, as when its machine stops, or one process."""

Build = Callable[[str], Federation]


@pytest.fixture
def federation(tmp_path: Path) -> Iterator[Build]:
    """Makes a federation in a folder of this test, over the same data as any other."""
    write_cohort(generate_cohort(2, 60, seed=0), tmp_path / "data")
    made: list[Federation] = []

    def build(name: str) -> Federation:
        (tmp_path / name).mkdir()
        made.append(Federation(tmp_path / name, data=tmp_path / "data"))
        return made[-1]

    yield build
    for one in made:
        one.end()


def replies(one: Federation) -> int:
    return sum(line["outcome"] == "replied" for line in one.lines())


def reached(one: Federation, count: int) -> bool:
    return replies(one) >= count


def struck(one: Federation, who: str, parts: tuple[str, ...]) -> bool:
    return one.kill(who, *parts) > 0


def gone(one: Federation) -> bool:
    return not one.processes(SERVER)


def outcome(one: Federation) -> dict[str, Any]:
    """The report without what a clock wrote, and without who had to be asked twice."""
    report = json.loads((one.run / "report.json").read_text())
    return {key: value for key, value in report.items() if key not in ("timings", "participation")}


def kills(draw: random.Random, last: int) -> list[tuple[int, float, str, tuple[str, ...]]]:
    """When (replies so far, seconds after that), at whom, which process: the server twice, a site once."""
    moments = sorted(draw.sample(range(1, last), 3))
    whom = draw.sample([SERVER, SERVER, "hospital_1"], 3)
    return [
        (moment, draw.uniform(0, LONGEST_PAUSE_S), who, draw.choice(SERVER_PARTS) if who == SERVER else ())
        for moment, who in zip(moments, whom, strict=True)
    ]


def test_killed_three_times_at_random_it_ends_with_the_same_bits(federation: Build) -> None:
    quiet = federation("quiet")
    quiet.start_clients()
    assert quiet.finish(quiet.start_server()) == 0, quiet.told()
    quiet.end()

    hit = federation("hit")
    hit.start_clients()
    server = hit.start_server()
    for moment, pause, who, parts in kills(random.Random(SEED), int(LATEST * replies(quiet))):
        until(partial(reached, hit, moment), f"{moment} replies", alive=server)
        time.sleep(pause)
        until(partial(struck, hit, who, parts), f"{who} {parts} runs", alive=server)
        if who == SERVER:
            assert hit.finish(server) != 0, "the study was over before it was killed"
            until(partial(gone, hit), "nothing of the server is left")
            server = hit.start_server("--resume")
        else:
            hit.start_client(who)
    assert hit.finish(server) == 0, hit.told()
    assert hit.weights() == quiet.weights()
    assert outcome(hit) == outcome(quiet)
