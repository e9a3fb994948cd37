"""The page is self-contained, shows every hospital, and says what is missing and why."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser
from typing import Any

import pytest

from hymate.report.card import ModelCard
from hymate.report.page import render_page
from hymate.report.run_directory import FinishedRun, read_run
from hymate.report.tripod import ITEMS, OPEN
from tests.hymate.report.example import RUN, changed, content


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.opened: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href", "srcset")]
        self.ids += [str(value) for name, value in attrs if name == "id"]


def words(page: str) -> str:
    """What a reader reads."""
    shown = re.sub(r"<(style|title|desc).*?</\1>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", shown)).split())


@pytest.fixture(scope="module")
def page() -> str:
    return render_page(read_run(RUN))


def test_the_page_stands_alone(page: str) -> None:
    tags = Tags()
    tags.feed(page)
    assert "script" not in tags.opened
    assert "http" not in page.replace("https://doi.org", "")
    assert "@import" not in page
    assert "url(" not in page
    assert {link.removeprefix("#") for link in tags.links} == set(tags.ids)
    assert len(tags.ids) == 11


def test_every_hospital_every_group_and_every_figure_is_there(page: str) -> None:
    report, text = content(), words(page)
    for name, site in report["performance"]["sites"].items():
        assert text.count(name) > 5
        if site["figures"] is not None:
            assert f"{site['figures']['auroc']['value']:.2f} (" in text
    for label, attribute in report["fairness"]["attributes"].items():
        assert label in text
        for group in attribute["groups"]:
            assert group.replace("//", " ") in text
    low, high = report["performance"]["pooled"]["figures"]["auroc"]["bound"]
    assert f"prove the exact figure to lie between {low:.3f} and {high:.3f}" in text
    for word in ("nan", "None", "inf "):
        assert not re.search(rf"\b{word}\b", text), word


def test_a_hospital_of_few_stays_has_a_reason_and_no_figure(page: str) -> None:
    silent = [name for name, site in content()["performance"]["sites"].items() if site["figures"] is None]
    assert silent, "the example has a hospital that may tell nothing"
    text = words(page)
    for name in silent:
        assert "fewer of a class than the site's minimum" in text
        assert f"Too few stays of a class to tell: {name}" in text


def test_groups_that_were_held_back_are_named(page: str) -> None:
    held_back = {
        site: names
        for attribute in content()["fairness"]["attributes"].values()
        for site, names in attribute["held_back"].items()
    }
    assert held_back, "the example has groups that were held back"
    text = words(page)
    for site, names in held_back.items():
        assert f"{', '.join(name.replace('//', ' ') for name in names)} at {site}" in text


def test_text_from_outside_is_escaped() -> None:
    def evil(report: dict[str, Any]) -> None:
        report["study"] = "<b>study</b>"
        report["participation"]["troubles"] = [
            {"phase": "x", "round": 1, "site": "<i>s", "outcome": "failed", "reason": "disk <full>"}
        ]
        report["performance"]["sites"]["<i>new"] = report["performance"]["sites"]["hospital_1"]

    run = changed(evil)
    page = render_page(FinishedRun(run.report, run.metrics, run.study + "\n# <script>", ModelCard()))
    assert "disk &lt;full&gt;" in page
    for raw in ("<b>study", "<i>", "<script>", "disk <full>"):
        assert raw not in page


def test_what_a_study_did_not_ask_for_is_said_or_left_out() -> None:
    def plain(report: dict[str, Any]) -> None:
        report |= {"local": {}, "fairness": None, "privacy": None}
        report["mean"]["local"] = None
        del report["generalisation"]

    run = changed(plain)
    text = words(render_page(FinishedRun(run.report, [], run.study)))
    for missing in ("own AUROC", "hollow square", "Elsewhere"):
        assert missing not in text
    for said in (
        "The study names no groups",
        "Whether the model serves some groups of patients worse was not asked",
        "Updates of weights left without noise",
        "No hospital has explained this model yet",
        "No figures of training were sent",
    ):
        assert said in text


def test_a_study_in_which_nobody_could_tell_anything_has_a_page() -> None:
    def silent(report: dict[str, Any]) -> None:
        for site in report["performance"]["sites"].values():
            site |= {"n": None, "positives": None, "figures": None, "reliability": [], "note": "too few"}
        for site in report["sites"].values():
            site.update(dict.fromkeys(site))
        report["performance"]["within_site"] = {"auroc": None, "sites": 0}
        report["performance"]["random_effects"]["auroc"] = None
        report["performance"]["operating_point"]["threshold"] = None
        report["performance"]["pooled"] |= {"n": 0, "positives": 0, "figures": {}, "reliability": []}
        report["mean"]["federated"] = {"auroc": None, "auprc": None}
        for attribute in report["fairness"]["attributes"].values():
            attribute |= {"groups": {}, "gaps": {}, "against_others": {}, "within_sites": {}}

    text = words(render_page(changed(silent)))
    assert "No hospital had enough stays" in text
    assert "No threshold could be set" in text
    assert "No hospital could tell figures of these groups" in text


def test_where_only_sums_over_hospitals_are_known_they_are_told() -> None:
    def summed(report: dict[str, Any]) -> None:
        report["secure_aggregation"] = {"threshold": 3, "histograms": True}
        report["performance"]["within_site"] = {"auroc": None, "sites": 0}

    run = changed(summed)
    pooled = run.report.performance.pooled.figure("auroc")
    assert pooled is not None
    text = words(render_page(run))
    assert "Of two patients of any of the hospitals" in text
    assert f"the higher score in {100 * pooled.value:.0f} of 100" in text
    assert "Figures were summed in secret" in text


def test_noise_and_what_it_spent_is_told_by_hospital() -> None:
    def noised(report: dict[str, Any]) -> None:
        report["privacy"] = {
            "mode": "dp-sgd",
            "noise_multiplier": None,
            "target_epsilon": 8.0,
            "delta": 1e-5,
            "max_grad_norm": 1.0,
            "clipping": "flat",
            "sites": {
                "hospital_1": {
                    "declared": {},
                    "rounds": {"pretrain": 3, "finetune": 8},
                    "spent": {"epsilon": 7.93, "delta": 1e-5},
                },
                "hospital_2": {"declared": None, "rounds": {}, "spent": None},
            },
        }

    text = words(render_page(changed(noised)))
    assert "noise for epsilon 8.0 at delta 1e-05" in text
    assert "hospital_1 3 8 7.93 at delta 1e-05" in text
    assert "hospital_2 0 0 not published" in text


def test_the_team_s_words_go_before_the_run_s() -> None:
    run = read_run(RUN)
    card = ModelCard(intended_use="For ward rounds.", tripod={"3a": "Sepsis is common.", "13": "None done."})
    text = words(render_page(FinishedRun(run.report, run.metrics, run.study, card)))
    assert "For ward rounds." in text
    assert "Healthcare context and rationale Sepsis is common." in text
    assert "Class imbalance None done." in text
    before = words(render_page(run))
    assert before.count(OPEN) == text.count(OPEN) + 2


def test_tripod_has_27_items_and_52_parts() -> None:
    assert len(ITEMS) == len({item.number for item in ITEMS}) == 52
    assert {int(re.sub(r"\D", "", item.number)) for item in ITEMS} == set(range(1, 28))


def test_a_difference_beyond_chance_is_named_first() -> None:
    def gap(report: dict[str, Any]) -> None:
        of = report["fairness"]["attributes"]["GENDER"]["against_others"]["GENDER//F"]
        of["tpr"] |= {"value": -0.21, "p": 0.0, "p_adjusted": 0.01}

    assert "these are beyond chance: sensitivity of GENDER F (-0.21)" in words(render_page(changed(gap)))


def test_importances_of_a_hospital_are_shown_with_their_limits(page: str) -> None:
    text = words(page)
    assert "Mean absolute attribution (log odds)" in text
    assert "not what causes the outcome" in text
    assert 'class="heat hour" style="--share: 1.000"' in page, "the largest cell is the darkest"
