"""From finished runs to tables, and into docs/strategies.md between its markers."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.strategies.expectations import expectations
from benchmarks.strategies.figures import Figures
from benchmarks.strategies.results import finished, ratio, row_of, scores
from benchmarks.strategies.runs import Run, Table
from benchmarks.tables import counted, head, line, put_between, spread

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
    lines = head(HEADER)
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
            counted(len(found), len({run.seed for run in table.of(row)})),
        ]
        lines.append(line(cells))
    return lines


def poisoned(table: Table) -> list[str]:
    """One line for each row, one column for each attack: AUROC of the honest sites' held-out stays."""
    lines = head(["", *("no attack" if attack == "none" else attack for attack in table.attacks), "n"])
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
        lines.append(line([*cells, counted(min(counts, default=0), seeds)]))
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
    put_between((f"<!-- measured: {name} -->", f"<!-- end of {name} -->"), text, path, HEAD)
