"""Pictures hold what they are given, at its place, and say it in words."""

from __future__ import annotations

import re

import pytest

from hymate.evaluate.reliability import ReliabilityBin
from hymate.report.calibration_plot import LEFT, SIDE, TOP, calibration_plot
from hymate.report.curves import curves
from hymate.report.forest import Row, forest
from hymate.report.svg import ticks


def numbers(pattern: str, picture: str) -> list[float]:
    return [float(found) for found in re.findall(pattern, picture)]


def test_rows_of_a_forest_stand_where_their_values_are() -> None:
    rows = [
        Row("a", 0.6, (0.5, 0.7), second=0.8),
        Row("b", 0.8, (0.7, 0.9)),
        Row("none", None, words="one class only"),
        Row("all", 0.7, (0.6, 0.8), summary=True, reach=(0.5, 0.9)),
    ]
    picture = forest(rows, "t", "w", (0.0, 1.0))
    a, b = numbers(r'<circle class="first" cx="([\d.]+)"', picture)
    (second,) = numbers(r'<rect class="second" x="([\d.]+)"', picture)
    assert second + 3.5 == pytest.approx(b, abs=0.2)
    lines = re.findall(r'<line class="(interval|reach)" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', picture)
    assert [kind for kind, *_ in lines] == ["interval", "interval", "reach", "interval"]
    assert float(lines[0][2]) == pytest.approx((a + b) / 2, abs=0.2)
    assert float(lines[2][1]) < float(lines[3][1]) < float(lines[3][2]) < float(lines[2][2])
    assert "one class only" in picture
    assert "0.60 (0.50 to 0.70)" in picture
    assert picture.count("<polygon") == 1


def test_figures_are_never_cut_off() -> None:
    assert "-0.03 (-0.11 to -0.05)<" in forest([Row("a", -0.03, (-0.11, -0.05))], "t", "w", (-1.0, 1.0))


def test_an_interval_beyond_the_limits_ends_there() -> None:
    picture = forest([Row("a", 0.02, (-3.0, 5.0))], "t", "w", (-1.0, 1.0), reference=0.0)
    low, high = re.findall(r'class="interval" x1="([\d.]+)" y1="[\d.]+" x2="([\d.]+)"', picture)[0]
    grid = numbers(r'class="grid" x1="([\d.]+)"', picture)
    assert (float(low), float(high)) == (min(grid), max(grid))


def test_a_picture_says_its_title_and_content_without_sight() -> None:
    picture = forest([Row("<a>", 0.5)], "AUROC & more", "a <is> 0.5", (0.0, 1.0))
    assert 'role="img"' in picture
    assert "<title>AUROC &amp; more</title><desc>a &lt;is&gt; 0.5</desc>" in picture
    assert "<a>" not in picture


def test_curves_pass_through_their_points_and_name_the_kept_round() -> None:
    picture = curves({"AUROC": [(0, 0.5), (1, 0.9), (2, 0.7)], "AP": [(0, 0.5), (2, 0.71)]}, "t", "w", kept=1)
    path, _ = re.findall(r'points="([^"]+)"', picture)
    heights = [float(point.split(",")[1]) for point in path.split()]
    assert heights[1] < heights[2] < heights[0], "larger values stand higher"
    assert "kept: 1" in picture
    ends = numbers(r'y="([\d.]+)" text-anchor="start" class="(?:first|second)-name"', picture)
    assert abs(ends[0] - ends[1]) >= 15, "names do not overlap"


def test_no_points_no_curve() -> None:
    assert curves({"x": []}, "t", "w") == ""


def test_calibration_points_and_intervals_are_at_their_risks() -> None:
    bins = [
        ReliabilityBin(0.2, 0.3, 40, 8, 0.25, 0.2, (0.1, 0.35)),
        ReliabilityBin(0.7, 0.8, 10, 9, 0.75, 0.9, (0.6, 0.98)),
    ]
    picture = calibration_plot(bins, "t")
    assert numbers(r'<circle class="first" cx="([\d.]+)"', picture) == pytest.approx(
        [LEFT + 0.25 * SIDE, LEFT + 0.75 * SIDE], abs=0.1
    )
    ends = re.findall(r'class="interval" x1="[\d.]+" y1="([\d.]+)" x2="[\d.]+" y2="([\d.]+)"', picture)
    assert [float(end) for end in ends[0]] == pytest.approx([TOP + 0.9 * SIDE, TOP + 0.65 * SIDE], abs=0.1)
    tall = numbers(r'class="bar"[^>]* height="([\d.]+)"', picture)
    assert tall[0] == pytest.approx(4 * tall[1], abs=0.2)
    assert "predicted 25 %, happened in 20 % of 40 stays (10 to 35 %)" in picture
    assert calibration_plot([], "t") == ""


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.61, 0.64), (-3.0, 900.0)])
def test_ticks_are_round_and_inside(low: float, high: float) -> None:
    found = ticks(low, high)
    assert 2 <= len(found) <= 8
    assert all(low <= tick <= high for tick in found)
