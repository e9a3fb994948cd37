"""The site file, and the hospital's own rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from client.policy import check_task, publishable
from client.site import Policy, SiteConfig, load_site
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
