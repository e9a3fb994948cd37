"""The page in a real browser: desktop, phone and paper, light and dark."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest

from hymate.report.compare import compare_runs
from hymate.report.compare_view import render_comparison
from hymate.report.page import render_page
from hymate.report.run_directory import read_run
from tests.hymate.report.browser import Browser, Page, Scheme, chromium
from tests.hymate.report.example import copied

DESKTOP, PHONE, PAPER = 1280, 390, 695
"""Pixels; paper: A4 within its margins."""

OVERFLOW = """
[...document.querySelectorAll('body *')].filter(element => {
  const box = element.getBoundingClientRect();
  if (box.width === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
  return !element.closest('.wide, pre') || matchMedia('print').matches;
}).map(element => element.outerHTML.slice(0, 120))
"""
WORDLESS = """
[...document.querySelectorAll('svg')].filter(svg =>
  !svg.querySelector(':scope > title')?.textContent || !svg.querySelector(':scope > desc')?.textContent
  || svg.getAttribute('role') !== 'img' || !svg.closest('figure').querySelector('figcaption')?.textContent
).length
"""
CLIPPED = """
[...document.querySelectorAll('svg')].flatMap(svg => {
  const frame = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const box = text.getBoundingClientRect();
    return box.left < frame.left - 1 || box.right > frame.right + 1 || box.bottom > frame.bottom + 1;
  }).map(text => text.textContent);
})
"""
FAINT = """
(() => {
  const light = colour => {
    const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(x => x / 255)
      .map(x => x <= 0.04045 ? x / 12.92 : ((x + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = light(getComputedStyle(document.body).backgroundColor);
  return [...document.querySelectorAll('p, li, th, td, figcaption, caption, a, svg text')].filter(element => {
    const style = getComputedStyle(element);
    const ink = light(element.closest('svg') ? style.fill : style.color);
    return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05) < 4.5;
  }).length;
})()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    run, other = copied(folder / "run"), copied(folder / "other")
    study = (other / "study.yaml").read_text()
    (other / "study.yaml").write_text(study.replace("lookback_hours: 48.0", "lookback_hours: 24.0"))
    made = {
        "report": render_page(read_run(run)),
        "comparison": render_comparison(compare_runs([run, other])),
    }
    pages = {name: folder / f"{name}.html" for name in made}
    for name, path in pages.items():
        path.write_text(made[name], encoding="utf-8")
    return pages


@pytest.mark.parametrize("name", ["report", "comparison"])
@pytest.mark.parametrize(
    ("width", "scheme", "media"),
    [
        (DESKTOP, "light", "screen"),
        (DESKTOP, "dark", "screen"),
        (PHONE, "light", "screen"),
        (PHONE, "dark", "screen"),
        (PAPER, "dark", "print"),
    ],
)
def test_the_page_is_whole(
    name: str,
    width: int,
    scheme: Scheme,
    media: Literal["screen", "print"],
    browser: Browser,
    pages: dict[str, Path],
) -> None:
    page = Page(browser, pages[name], width, scheme, media)
    assert page.run("document.querySelectorAll('svg').length") > (10 if name == "report" else 0)
    assert page.errors == []
    assert page.requests == [pages[name].as_uri()]
    assert page.run("document.documentElement.scrollWidth") <= width
    assert page.run(OVERFLOW) == []
    assert page.run(WORDLESS) == 0
    assert page.run(CLIPPED) == []
    assert page.run(FAINT) == 0
    dark = page.run("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark == (scheme == "dark" and media == "screen"), "paper is white"


def test_it_prints(browser: Browser, pages: dict[str, Path]) -> None:
    assert Page(browser, pages["report"], DESKTOP, "light", "screen").pdf().startswith(b"%PDF-")
