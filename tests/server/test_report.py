"""The report: charts hold what they are given, the page is self-contained, a missing figure is a dash."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from hymate.evaluate.histograms import count_scores
from hymate.protocol import Cells, ScoreReport
from server.pooled import pooled_figures
from server.report.charts import dot_plot, line_chart
from server.report.page import render_page
from server.report.vocabulary import shown_coverage


def report(**changes: Any) -> dict[str, Any]:
    site = {"n": 50, "positives": 10, "auroc": 0.81, "auprc": 0.4, "brier": 0.1, "log_loss": 0.3}
    counts = {"stays": 50, "positives": 10}
    content: dict[str, Any] = {
        "study": "<b>study</b>",
        "seed": 0,
        "task": "in_hospital_mortality",
        "strategy": "fedavg",
        "personal": False,
        "sites": {
            "north": site,
            "south": {**site, "positives": None, "auroc": None, "auprc": None, "brier": None},
        },
        "local": {"north": {"auroc": 0.7, "auprc": 0.3}, "south": {"auroc": None, "auprc": None}},
        "pooled": {
            "n": 50,
            "positives": 10,
            "brier": 0.1,
            "auroc": 0.81,
            "auroc_bounds": [0.8, 0.82],
            "auprc": 0.4,
            "auprc_bounds": [0.39, 0.41],
        },
        "mean": {"federated": {"auroc": 0.81, "auprc": 0.4}, "local": {"auroc": 0.7, "auprc": 0.3}},
        "rounds": {"pretrain": 1, "finetune": 2, "best": 2},
        "cohort": {
            name: {"splits": dict.fromkeys(("train", "tuning", "held_out"), counts)}
            for name in ("north", "south")
        },
        "vocabulary": {
            "hash": "ab" * 32,
            "codes": 3,
            "static": ["AGE"],
            "dropped": [{"code": "X", "reason": "rare"}],
            "scaling": "standard",
            "outside": "clip",
            "clip_z": 10.0,
            "features": [
                {
                    "code": "<i>HR",
                    "static": False,
                    "unit": "bpm",
                    "count": 9,
                    "subjects": 5,
                    "mean": 80.0,
                    "std": 12.345678,
                    "low": None,
                    "high": 250.0,
                }
            ],
            "coverage": {
                "dynamic": {"<i>HR": {"north": 1.0, "south": 0.98}, "pH": {"north": 0.251, "south": None}},
                "static": {"AGE": {"north": 1.0, "south": 1.0}},
            },
            "units": {"pH": {"unit": "pH", "converted": {"south": "nmol/L"}, "undeclared": ["north"]}},
            "unusual": [{"code": "pH", "site": "south", "median": 7.4, "others": 40.0}],
            "encoding": {
                "north": {
                    "triplets": 900,
                    "unknown_codes": 2,
                    "unknown_triplets": 100,
                    "unknown_share": 0.1,
                    "outside": {"<i>HR": 7, "pH": 4},
                },
                "south": {
                    "triplets": 500,
                    "unknown_codes": None,
                    "unknown_triplets": None,
                    "unknown_share": None,
                    "outside": {},
                },
            },
        },
        "participation": {
            "sites": {"north": {"replied": 5}, "south": {"replied": 4, "failed": 1}},
            "troubles": [
                {
                    "phase": "finetune",
                    "round": 1,
                    "site": "south",
                    "outcome": "failed",
                    "reason": "disk <full>",
                }
            ],
        },
        "timings": {"total": 3.0},
        "versions": {"torch": "2"},
    }
    return {**content, **changes}


METRICS = [
    {"phase": "pretrain", "event": "round", "round": 1, "loss": 1.0, "forecast_error": 1.1},
    {"phase": "finetune", "event": "round", "round": 1, "tuning_auroc": 0.6, "tuning_auprc": 0.3},
    {"phase": "finetune", "event": "last", "tuning_auroc": 0.7, "tuning_auprc": None},
]  # fmt: skip


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.opened: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.opened.append(tag)
        self.links += [str(value) for name, value in attrs if name in ("src", "href")]


def test_the_page_stands_alone_and_shows_every_hospital() -> None:
    page = render_page(report(), METRICS, "name: x")
    tags = Tags()
    tags.feed(page)
    assert not tags.links
    assert "script" not in tags.opened
    assert "http" not in page
    for word in ("north", "south", "0.810", "0.700", "too few", "ab" * 32, "X (rare)"):
        assert word in page
    assert "nan" not in page.lower()


def test_text_from_outside_is_escaped() -> None:
    page = render_page(report(), METRICS, "name: <script>")
    assert "<b>study" not in page
    assert "disk &lt;full&gt;" in page
    assert "<script>" not in page
    assert "<i>" not in page


def test_the_page_tells_who_has_what_and_what_was_done_to_values() -> None:
    page = " ".join(re.sub(r"<[^>]*>", " ", render_page(report(), METRICS, "")).split())
    for words in (
        "pH 25 % -",  # the code that differs most comes first
        "&lt;i&gt;HR 100 % 98 %",
        "for the 2 of 3 codes that differ most",  # AGE is the same everywhere
        "pH in pH; converted from nmol/L (south); no unit declared at north",
        "its median is 7.4, the others' 40",
        "values out of range, clipped",
        "north 900 10.00 % (2 codes) 11",
        "south 500 too few 0",
        "&lt;i&gt;HR bpm 9 80 12.35 - 250",
    ):
        assert words in page, words
    assert page.index("pH 25 %") < page.index("HR 100 %")


def test_of_many_hospitals_those_that_lack_most_are_shown() -> None:
    names = [f"site {number:03}" for number in range(40)]
    section = {
        "coverage": {
            "static": {},
            "dynamic": {
                f"code {code}": {
                    name: 1.0 - 0.01 * place * (code + 1) / 40 for place, name in enumerate(names)
                }
                for code in range(40)
            },
        }
    }
    shown = shown_coverage(section)
    assert shown["sites"] == names[-12:]
    assert [code for code, _ in shown["rows"]] == [f"code {code}" for code in range(39, 27, -1)]
    assert shown["rows"][0][1][-1] == pytest.approx(1.0 - 0.39)
    assert (shown["all_sites"], shown["all_codes"]) == (40, 40)
    assert shown_coverage({"coverage": {"static": {}, "dynamic": {}}})["rows"] == []


def test_a_report_without_local_models_has_no_empty_columns() -> None:
    page = render_page(
        report(local={}, mean={"federated": {"auroc": 0.8, "auprc": 0.4}, "local": None}), METRICS, ""
    )
    assert "own AUROC" not in page


def test_dots_stand_where_their_values_are() -> None:
    chart = dot_plot({"a": {"x": 0.5, "y": None}, "b": {"x": 1.0, "y": 0.75}}, "t")
    at = [float(x) for x in re.findall(r'<circle class="first" cx="([\d.]+)"', chart)]
    middle = float(re.findall(r'<rect class="second" x="([\d.]+)"', chart)[0]) + 5
    assert len(at) == 2
    assert middle == pytest.approx((at[0] + at[1]) / 2, abs=0.2)


def test_a_line_without_points_is_no_chart() -> None:
    assert line_chart({"x": []}, "t") == ""


def test_lines_pass_through_their_points() -> None:
    chart = line_chart({"x": [(0, 1.0), (1, 3.0), (2, 2.0)]}, "t")
    (points,) = re.findall(r'points="([^"]+)"', chart)
    ys = [float(point.split(",")[1]) for point in points.split()]
    assert ys[1] < ys[2] < ys[0]  # larger values stand higher


def test_pooled_figures_leave_out_sites_that_could_not_say() -> None:
    import numpy as np

    labels, scores = np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.1, 0.6, 0.4, 0.9])
    full = ScoreReport(
        n=4,
        positives=2,
        log_loss_sum=2.0,
        squared_error_sum=1.0,
        cells=Cells.of(count_scores(labels, scores)),
    )
    figures = pooled_figures([full, ScoreReport(n=3, positives=None), None])
    assert (figures.sites, figures.n, figures.positives) == (1, 4, 2)
    assert figures.auroc is not None
    assert figures.auroc.estimate == pytest.approx(0.75)
    assert figures.log_loss == pytest.approx(0.5)
    nothing = pooled_figures([None])
    assert nothing.auroc is None
    assert nothing.criterion is None
