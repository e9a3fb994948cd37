"""The report as a table on the terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table


def print_report(report: dict[str, Any], console: Console) -> None:
    """Held-out figures per hospital, the hospital's own model beside the federated one."""
    local, pooled, mean = report["local"], report["pooled"], report["mean"]
    table = Table(title=f"{report['study']}: {report['task']}, held-out stays", title_justify="left")
    table.add_column("hospital", no_wrap=True)
    names = ["stays", "positive", "AUROC", "AP"] + (["own AUROC", "own AP"] if local else [])
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for name, site in report["sites"].items():
        own = local.get(name, {})
        _row(table, name, _count(site["n"]), _count(site["positives"]), site, own if local else None)
    table.add_section()
    _row(table, "mean", "", "", mean["federated"], mean["local"])
    _row(table, "pooled", str(pooled["n"]), str(pooled["positives"]), pooled, {} if local else None)
    console.print(table)
    lines = [
        "AUROC and AP (average precision): the federated model, exact at each hospital."
        if not report["personal"]
        else "AUROC and AP (average precision): each hospital's own version of the model, exact at each.",
        f"Pooled, from counts per interval of score: AUROC {_bounded(pooled, 'auroc')}, "
        f"AP {_bounded(pooled, 'auprc')}.",
    ]
    if local:
        lines.append("own: the hospital's own model, trained on its stays alone, on the same held-out stays.")
    console.print("\n".join(lines), highlight=False)


def _row(
    table: Table, name: str, stays: str, positives: str, federated: dict[str, Any], own: dict[str, Any] | None
) -> None:
    cells = [name, stays, positives, _figure(federated["auroc"]), _figure(federated["auprc"])]
    if own is not None:
        cells += [_figure(own.get("auroc")), _figure(own.get("auprc"))]
    table.add_row(*cells)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _count(value: int | None) -> str:
    return "too few" if value is None else str(value)


def _bounded(pooled: dict[str, Any], name: str) -> str:
    """The estimate and the interval that is proven to hold the exact value."""
    value, bounds = pooled[name], pooled[f"{name}_bounds"]
    if value is None or bounds is None:
        return "- (a class is missing)"
    return f"{value:.3f} (exact value within {bounds[0]:.3f} to {bounds[1]:.3f})"
