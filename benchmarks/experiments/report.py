"""From finished runs to a table, and into docs/results.md between its markers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence
from pathlib import Path

from benchmarks.experiments.files import TABLES, TableConfig
from benchmarks.experiments.runs import Run
from benchmarks.tables import counted, head, line, put_between, spread

RESULTS = Path(__file__).resolve().parents[2] / "docs" / "results.md"
REDUCED = (
    "**Reduced set, on made-up data: it shows that the experiment runs, and says nothing about the model.**"
)
HEAD = """# Results

Written by `python -m benchmarks.experiments TABLE --write`; what stands between two markers is never edited
by hand. The rows of every table are in `deploy/configs/experiments/`. ± is the standard deviation over seeds
or folds, of n runs; a difference is taken run by run, under the same seed and on the same data. A row
without a figure has not been run.
"""
FIGURES = ("auroc", "average_precision")


def section(
    name: str,
    table: TableConfig,
    runs: Sequence[Run],
    finished: Sequence[Run],
    *,
    command: str,
    reduced: bool,
) -> str:
    """Title, table and what is needed to repeat it, as Markdown; `runs` are all that were wanted."""
    done = {run.id for run in finished}
    rows = list(dict.fromkeys(run.row for run in runs))
    against = table.against if table.against in rows else ""
    lines = [f"## {table.title}", "", *([REDUCED, ""] if reduced else []), table.about.strip(), ""]
    lines += _header(against)
    for row in rows:
        wanted = [run for run in runs if run.row == row]
        lines.append(_row(row, wanted, [run for run in wanted if run.id in done], runs, done, against))
    lines += ["", *_footer(runs, [run for run in runs if run.id in done], command)]
    return "\n".join(lines) + "\n"


def _header(against: str) -> list[str]:
    difference = [f"AUROC - {against}", f"AP - {against}"] if against else []
    names = ["", "AUROC", "average precision", *difference, "epochs", "seconds", "n"]
    return head(names)


def _row(
    row: str, wanted: Sequence[Run], found: Sequence[Run], runs: Sequence[Run], done: set[str], against: str
) -> str:
    figures = [run.figures() for run in found]
    cells = [row, *(spread([each[name] for each in figures]) for name in FIGURES)]
    if against:
        others = {_pair(run): run.figures() for run in runs if run.row == against and run.id in done}
        pairs = [(run.figures(), others[_pair(run)]) for run in found if _pair(run) in others]
        for name in FIGURES:
            both = [(ours[name], theirs[name]) for ours, theirs in pairs]
            known = [ours - theirs for ours, theirs in both if ours is not None and theirs is not None]
            cells.append("" if row == against else spread(known, sign=True))
    epochs = "-"
    if figures:
        before = round(statistics.mean(each["pretrained_for"] for each in figures))
        after = round(statistics.mean(each["epochs"] for each in figures))
        epochs = f"{before} + {after}"
    if figures and found[0].summary:
        epochs = "-"
    seconds = f"{statistics.mean(each['seconds'] for each in figures):.0f}" if figures else "-"
    return line([*cells, epochs, seconds, counted(len(found), len(wanted))])


def _footer(runs: Sequence[Run], found: Sequence[Run], command: str) -> list[str]:
    commits = list(dict.fromkeys(commit for run in found for commit in run.commits()))
    seeds = ", ".join(dict.fromkeys(str(run.config.seed) for run in runs))
    told = "; ".join(dict.fromkeys(run.place.told for run in runs))
    sizes = sorted({run.figures()["stays"] for run in found})
    held_out = f" ({sizes[0]:,}{f' to {sizes[-1]:,}' if len(sizes) > 1 else ''} stays)" if sizes else ""
    lines = [
        f"Data: {told}{held_out}. Seeds: {seeds}. Commit: {', '.join(commits) or 'none yet'}. "
        "Epochs: pretraining + fine-tuning. Seconds: of a run, without pretraining taken from another.",
        "",
        f"    {command}",
    ]
    return lines


def write_section(name: str, text: str, path: Path = RESULTS) -> None:
    """Put `text` between the markers of `name`; where they are missing, make them, in the tables' order."""

    def place(content: str) -> int:
        others = re.finditer(r"<!-- experiments: (\S+) -->", content)
        return next((other.start() for other in others if _place(other[1]) > _place(name)), len(content))

    put_between((f"<!-- experiments: {name} -->", f"<!-- end of {name} -->"), text, path, HEAD, place)


def _place(name: str) -> tuple[bool, int]:
    """Whole tables first, then the reduced ones."""
    plain = name.removesuffix("-reduced")
    return name != plain, TABLES.index(plain) if plain in TABLES else len(TABLES)


def _pair(run: Run) -> tuple[str, int]:
    return run.place.key, run.config.seed
