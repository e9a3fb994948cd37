"""From finished runs to tables, and into docs/strategies.md between its markers."""

from __future__ import annotations

import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.experiments.report import spread
from benchmarks.strategies.expectations import expectations
from benchmarks.strategies.figures import Figures
from benchmarks.strategies.results import finished, ratio, row_of, scores
from benchmarks.strategies.runs import Run, Table
from hymate.durable import write_text

DOCS = Path(__file__).resolve().parents[2] / "docs" / "strategies.md"
REDUCED = "**Reduced set: it shows that the experiment runs, and says nothing about any algorithm.**"
HEAD = "# Strategies\n"
HEADER = (
    "",
    "AUROC",
    "AP",
    "worst site",
    "spread",
    "of pooled",
    "sites >= alone",
    "rounds to 99 %",
    "MB up a site, round",
    "MB up, all",
    "CPU s",
    "n",
)


def section(table: Table, command: str) -> str:
    """Title, table, expectations and what is needed to repeat it, as Markdown."""
    population = table.population
    lines = [
        f"### {population.title}",
        "",
        *([REDUCED, ""] if table.reduced else []),
        population.about.strip(),
    ]
    body = poisoned(table) if population.attacks else compared(table)
    lines += ["", *body, "", *(f"- {line}" for line in expectations(table))]
    return "\n".join([*lines, "", *_footer(table, command)]) + "\n"


def compared(table: Table) -> list[str]:
    """One line for each row."""
    pooled, alone = row_of(table, "pooled"), row_of(table, "alone")
    best = scores(table, pooled) if pooled else {}
    own = scores(table, alone) if alone else {}
    lines = [_line(HEADER), _line(["---", *["---:"] * (len(HEADER) - 1)])]
    for row, config in table.rows.items():
        runs, found = finished(table, row), scores(table, row)
        ratios = [ratio(each, best[seed]) for seed, each in found.items() if seed in best]
        above = [
            sum(each.known[site] >= own[seed].known.get(site, 0.0) for site in each.known)
            for seed, each in found.items()
            if seed in own
        ]
        federated = config.trained == "federated"
        told = [runs[seed] for seed in found]
        name = f"{row}{_setting(table, row)}"
        cells = [
            name,
            spread([each.auroc for each in found.values()]),
            spread([each.average_precision for each in found.values()]),
            spread([each.worst for each in found.values()]),
            spread([each.spread for each in found.values()]),
            spread(ratios) if row != pooled else "",
            f"{statistics.mean(above):.1f}" if above and row != alone else "",
            _mean(told, lambda run: run.rounds_to_best, 1) if config.trained != "alone" else "",
            _mean(told, lambda run: run.megabytes_a_site_and_round, 3) if federated else "",
            _mean(told, lambda run: run.bytes_up / 1e6, 1) if federated else "",
            _mean(told, lambda run: run.seconds, 0) if config.trained != "alone" else "",
            _count(table, row, len(found)),
        ]
        lines.append(_line(cells))
    return lines


def poisoned(table: Table) -> list[str]:
    """One line for each row, one column for each attack: AUROC of the honest sites' held-out stays."""
    header = ["", *("no attack" if attack == "none" else attack for attack in table.attacks), "n"]
    lines = [_line(header), _line(["---", *["---:"] * (len(header) - 1)])]
    for row in table.rows:
        cells, counts = [row], []
        for attack in table.attacks:
            found = finished(table, row, attack)
            values = [each.held_out.auroc for each in found.values() if each.held_out]
            failed = sum(1 for each in found.values() if each.failed)
            quarantined = sum(each.quarantined for each in found.values())
            trained = sum(each.rounds for each in found.values())
            cell = spread(values) if values or not failed else ""
            if failed:
                cell = f"{cell} {failed} of {len(found)} studies failed".strip()
            if quarantined and trained:
                cell += f" ({quarantined} of {trained} quarantined)"
            cells.append(cell)
            counts.append(len(found))
        seeds = len({run.seed for run in table.runs})
        low = min(counts, default=0)
        lines.append(_line([*cells, str(low) if low == seeds else f"{low} of {seeds}"]))
    return lines


def _setting(table: Table, row: str) -> str:
    """What was chosen on tuning, of several candidates."""
    candidates = table.rows[row].candidates
    runs = table.chosen(row)
    if len(candidates) < 2 or not runs:
        return ""
    told = ", ".join(f"{key} {value}" for key, value in candidates[runs[0].candidate].items())
    others = len(candidates) - 1
    return f" ({told}; chosen on tuning before {others} other{'s' if others > 1 else ''})"


def _mean(runs: Sequence[Figures], of: Callable[[Figures], float | None], digits: int) -> str:
    known = [value for run in runs if (value := of(run)) is not None]
    return f"{statistics.mean(known):.{digits}f}" if known else "-"


def _count(table: Table, row: str, found: int) -> str:
    wanted = len({run.seed for run in table.of(row)})
    return str(found) if found == wanted else f"{found} of {wanted}"


def _footer(table: Table, command: str) -> list[str]:
    done = [run for run in table.runs if run.state() == "finished"]
    commits = list(dict.fromkeys(commit for run in done for commit in run.commits()))
    seeds = ", ".join(dict.fromkeys(str(run.seed) for run in table.runs))
    lines = [f"Model and training: {_size(table.runs[0])}."] if table.runs else []
    lines += [f"Seeds: {seeds}. Commit: {', '.join(commits) or 'none yet'}.", "", f"    {command}"]
    return lines


def _size(run: Run) -> str:
    model, study = run.study.model, run.study
    return (
        f"HyMaTE of width {model.d_model}, {model.mamba_blocks} Mamba block(s), {model.attention_layers} "
        f"attention layer(s); {study.pretrain.rounds} rounds of pretraining (FedAvg, shared by all rows of a "
        f"seed), at most {study.finetune.rounds} of fine-tuning (patience {study.finetune.patience}), "
        f"{study.finetune.local_epochs} local epoch(s) a round"
    )


def write_section(name: str, text: str, path: Path = DOCS) -> None:
    """Put `text` between the markers of `name`; where they are missing, make them at the end."""
    begin, end = f"<!-- measured: {name} -->", f"<!-- end of {name} -->"
    content = path.read_text(encoding="utf-8") if path.is_file() else HEAD
    block = f"{begin}\n{text.strip()}\n{end}"
    found = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if found.search(content):
        write_text(path, found.sub(lambda _: block, content, count=1))
    else:
        write_text(path, f"{content.rstrip()}\n\n{block}\n")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
