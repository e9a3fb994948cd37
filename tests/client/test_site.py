"""The site file, and the hospital's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.journal import Event, Tail, journal_path, note
from client.policy import check_task, publishable
from client.site import Policy, SiteConfig, connection_of, host_of, load_site, port_of
from hymate.config import TaskConfig
from hymate.errors import InputFault


def test_paths_are_seen_from_the_site_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: north\ndata: ../meds\nstate: /var/state\n")
    site = load_site(path)
    assert site.data == tmp_path / ".." / "meds"
    assert site.cache == tmp_path / "cache"
    assert site.state == Path("/var/state")
    assert site.policy.min_cell == 5


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("data: x", "key 'name' is missing"),
        ("name: a\ndata: x\npolicy: {min_cel: 3}", "did you mean 'min_cell'"),
        ("name: a\ndata: x\npolicy: {min_cell: 0}", "greater than or equal to 1"),
        ("name: a/b\ndata: x", "key 'name'"),
    ],
)
def test_a_bad_site_file_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(text)
    with pytest.raises(InputFault, match=words) as fault:
        load_site(path)
    assert str(path) in str(fault.value)


def test_counts_below_the_minimum_stay() -> None:
    policy = Policy(min_cell=5)
    assert [publishable(count, policy) for count in (0, 1, 4, 5, 100)] == [0, None, None, 5, 100]


def test_only_allowed_tasks() -> None:
    site = SiteConfig(name="a", data=Path("x"), policy=Policy(tasks=("length_of_stay",)))
    check_task(site, TaskConfig(name="length_of_stay"))
    with pytest.raises(InputFault, match="does not allow the task 'in_hospital_mortality'"):
        check_task(site, TaskConfig())


def test_the_way_to_the_coordinator_is_seen_from_the_site_file(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("name: n\ndata: x\nkey: n.key\ncoordinator: {address: 'host:9092', ca: ../ca.crt}\n")
    site = load_site(path)
    coordinator, key = connection_of(site, path)
    assert (key, coordinator.ca) == (tmp_path / "n.key", tmp_path / ".." / "ca.crt")
    assert (host_of(coordinator.address), port_of(coordinator.address)) == ("host", 9092)
    assert (host_of("[::1]:9"), port_of("[::1]:9")) == ("::1", 9)


@pytest.mark.parametrize("address", ["host", "host:", "https://host:9092", "host:0", "host:65536", "::1:9"])
def test_an_address_is_host_and_port(address: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"name: n\ndata: x\ncoordinator: {{address: '{address}', ca: ca.crt}}\n")
    with pytest.raises(InputFault, match=r"coordinator\.address"):
        load_site(path)


@pytest.mark.parametrize(
    ("text", "missing"),
    [("key: n.key", "coordinator"), ("coordinator: {address: 'h:1', ca: c}", "key")],
)
def test_what_a_deployed_site_needs_is_named(text: str, missing: str, tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(f"name: n\ndata: x\n{text}\n")
    with pytest.raises(InputFault, match=f"key '{missing}' is missing"):
        connection_of(load_site(path), path)


def test_a_journal_is_read_on_where_one_left_off(tmp_path: Path) -> None:
    site = SiteConfig(name="a", data=tmp_path, state=tmp_path / "state")
    note(site, Event.STARTED, "before")
    tail = Tail(journal_path(site))
    assert list(tail.fresh()) == []
    note(site, Event.ASKED, "one", seconds=1.5)
    with journal_path(site).open("a") as file:
        file.write('{"event": "as')
    (line,) = tail.fresh()
    assert (line["text"], line["seconds"]) == ("one", 1.5)
    with journal_path(site).open("a") as file:
        file.write('ked", "text": "two"}\nno json\n')
    assert [line["text"] for line in tail.fresh()] == ["two"]


def test_a_journal_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("no folder")
    note(SiteConfig(name="a", data=tmp_path, state=tmp_path / "state"), Event.ASKED, "one")
