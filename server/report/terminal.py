"""The report as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(report: dict[str, Any], console: Console) -> None:
    """Held-out figures per hospital, the hospital's own model beside the federated one."""
    local = report["local"]
    table = Table(title=f"{report['study']}: {report['task']}, held-out stays", title_justify="left")
    table.add_column("hospital", no_wrap=True)
    for name in ("stays", "deaths" if "mortality" in report["task"] else "positive", "AUROC", "AP"):
        table.add_column(name, justify="right", no_wrap=True)
    if local:
        for name in ("alone: AUROC", "AP"):
            table.add_column(name, justify="right", no_wrap=True)
    for name, site in report["sites"].items():
        row = [
            name,
            str(site["n"]),
            _count(site["positives"]),
            _figure(site["auroc"]),
            _figure(site["auprc"]),
        ]
        if local:
            own = local.get(name, {})
            row += [_figure(own.get("auroc")), _figure(own.get("auprc"))]
        table.add_row(*row)
    table.add_section()
    mean = report["mean"]
    row = [
        "mean of hospitals",
        "",
        "",
        _figure(mean["federated"]["auroc"]),
        _figure(mean["federated"]["auprc"]),
    ]
    if local:
        row += [_figure(mean["local"]["auroc"]), _figure(mean["local"]["auprc"])]
    table.add_row(*row)
    pooled = report["pooled"]
    row = [
        "pooled",
        str(pooled["n"]),
        str(pooled["positives"]),
        _bounded(pooled, "auroc"),
        _bounded(pooled, "auprc"),
    ]
    table.add_row(*row, *([""] * 2 if local else []))
    console.print(table)
    console.print(
        "AUROC and AP (average precision) of the federated model, exact at each hospital; pooled ones from\n"
        "counts per score interval, ± the proven error."
        + (" alone: the hospital's own model on the same stays." if local else ""),
        highlight=False,
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: int | None) -> str:
    return "too few" if value is None else str(value)


def _bounded(pooled: dict[str, Any], name: str) -> str:
    """The estimate and half the width of the interval that is proven to hold the exact value."""
    value, bounds = pooled[name], pooled[f"{name}_bounds"]
    if value is None or bounds is None:
        return "-"
    return f"{value:.3f} ±{(bounds[1] - bounds[0]) / 2:.4f}"
