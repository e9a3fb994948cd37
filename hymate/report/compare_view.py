"""Compared runs for a terminal and as a page."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from hymate.report.compare import FIGURES, TESTED, ComparedRuns
from hymate.report.page import environment
from hymate.report.pictures import difference_plot
from hymate.report.words import TITLES, estimate, figure


def print_comparison(compared: ComparedRuns, console: Console) -> None:
    """AUROC by hospital and variant, then what differs from the first one."""
    table = Table(title=f"{compared.task}, AUROC on held-out stays", title_justify="left")
    table.add_column("hospital", no_wrap=True)
    for variant in compared.variants:
        table.add_column(variant.name, justify="right")
    for site in compared.sites:
        found = [variant.sites.get(site, {}).get(TESTED) for variant in compared.variants]
        table.add_row(site, *(estimate(each, 3) for each in found))
    table.add_section()
    table.add_row("within", *(estimate(variant.within_sites, 3) for variant in compared.variants))
    table.add_row("mean", *(figure(variant.mean) for variant in compared.variants))
    if any(variant.over_seeds for variant in compared.variants):
        table.add_row("over seeds", *(estimate(variant.over_seeds, 3) for variant in compared.variants))
    console.print(table)
    for each in compared.differences:
        words = [
            f"{each.variant} less {compared.variants[0].name}: mean over hospitals {estimate(each.mean, 3)}"
        ]
        if each.mean is not None and each.mean.p_adjusted is not None:
            words.append(f"adjusted p {each.mean.p_adjusted:.3f}")
        if each.over_seeds is not None:
            words.append(f"paired by seed {estimate(each.over_seeds, 3)}")
        console.print(", ".join(words), highlight=False, soft_wrap=True, markup=False)
    for line in (*compared.notes, *([compared.multiplicity] if compared.differences else [])):
        console.print(line, highlight=False, soft_wrap=True, markup=False)


def render_comparison(compared: ComparedRuns) -> str:
    """HTML, pictures and style within."""
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            it=compared,
            plots=[
                difference_plot(each.sites, each.mean, each.variant, compared.variants[0].name)
                for each in compared.differences
            ],
            figures=[name for name in FIGURES if name != TESTED],
            titles=TITLES,
        )
    )
