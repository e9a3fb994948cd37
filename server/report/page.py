"""`report.html`: the report as one self-contained page, for people who do not read JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from server.report.charts import dot_plot, line_chart
from server.report.vocabulary import shown_coverage


def render_page(report: dict[str, Any], metrics: Sequence[dict[str, Any]], study_text: str) -> str:
    """HTML of a report. Every number shown stands in `report.json` or `metrics.jsonl`."""
    environment = Environment(
        loader=PackageLoader("server.report", "."), autoescape=True, undefined=StrictUndefined
    )
    environment.filters["figure"] = lambda value: "-" if value is None else f"{value:.3f}"
    environment.filters["short"] = lambda value: "-" if value is None else f"{value:.4g}"
    own = report["local"]
    rows = {
        name: {"federated": site["auroc"], **({"own": own[name]["auroc"]} if name in own else {})}
        for name, site in report["sites"].items()
    }
    known = [site["auroc"] for site in report["sites"].values() if site["auroc"] is not None]
    return environment.get_template("page.html.j2").render(
        report=report,
        study=study_text,
        coverage=shown_coverage(report["vocabulary"]),
        worst=min(known) if known else None,
        forest=dot_plot(rows, "AUROC of each hospital, federated and own model"),
        tuning=line_chart(
            {
                "AUROC": _tuning_curve(metrics, "tuning_auroc"),
                "average precision": _tuning_curve(metrics, "tuning_auprc"),
            },
            "Tuning AUROC and average precision by round of fine-tuning",
        ),
        forecast=line_chart(
            {"loss": _curve(metrics, "loss"), "tuning error": _curve(metrics, "forecast_error", behind=1)},
            "Pretraining loss and tuning error by round",
        ),
    )


def _tuning_curve(metrics: Sequence[dict[str, Any]], key: str) -> list[tuple[int, float]]:
    """Round r's message reports on the weights it received: those after round r - 1."""
    lines = [line for line in metrics if line["phase"] == "finetune" and line["event"] in ("round", "last")]
    return [(number, line[key]) for number, line in enumerate(lines) if line.get(key) is not None]


def _curve(metrics: Sequence[dict[str, Any]], key: str, behind: int = 0) -> list[tuple[int, float]]:
    lines = [line for line in metrics if line["phase"] == "pretrain" and line["event"] == "round"]
    return [(line["round"] - behind, line[key]) for line in lines if line.get(key) is not None]
