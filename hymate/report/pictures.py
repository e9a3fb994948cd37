"""Which pictures a report has: each from its own part of the content, with what it says in words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import Estimate
from hymate.report.calibration_plot import calibration_plot
from hymate.report.content import Attribute, Report
from hymate.report.curves import Points, curves
from hymate.report.forest import Row, Span, forest
from hymate.report.generalisation_content import PairedModels
from hymate.report.words import KINDS, NOTHING, figure, group_name

SHARES: Span = (0.0, 1.0)
DIFFERENCES: Span = (-1.0, 1.0)


@dataclass(frozen=True)
class Captioned:
    picture: Markup
    caption: str


def site_forest(report: Report) -> Markup:
    """AUROC of every hospital, and the three ways to sum them up."""
    performance = report.performance
    rows = [
        _row(
            name,
            site.figure("auroc"),
            second=report.local[name].auroc if name in report.local else None,
            words="too few to tell" if site.figures is None else "one class only",
        )
        for name, site in performance.sites.items()
    ]
    rows.append(_row("within hospitals", performance.within_site.auroc, summary=True))
    rows.append(_row("pooled", performance.pooled.figure("auroc"), summary=True))
    across = performance.random_effects.auroc
    if across is not None:
        rows.append(
            Row("a hospital like these", across.mean, across.interval, reach=across.prediction, summary=True)
        )
    return _forest(rows, "AUROC by hospital")


def calibration_plots(report: Report) -> dict[str, Markup]:
    """Every hospital's and the pooled one, where there are stays to draw."""
    parts = {"all hospitals": report.performance.pooled.reliability}
    parts |= {name: site.reliability for name, site in report.performance.sites.items()}
    return {name: calibration_plot(bins, f"Calibration, {name}") for name, bins in parts.items() if bins}


def group_plots(label: str, attribute: Attribute) -> list[Captioned]:
    """The groups' AUROCs over all hospitals, and against others of the same hospital."""
    named = {group_name(name): group for name, group in attribute.groups.items()}
    rows = [_row(name, group.figures.get("auroc")) for name, group in named.items()]
    within = [_row(group_name(name), found.auroc.mean) for name, found in attribute.within_sites.items()]
    plots = []
    if any(row.value is not None for row in rows):
        plots.append(
            Captioned(
                _forest(rows, f"AUROC by {label}"),
                "AUROC by group over all hospitals. The interval covers what the counts leave open, too.",
            )
        )
    if any(row.value is not None for row in within):
        plots.append(
            Captioned(
                _forest(within, f"AUROC by {label}, within hospitals", DIFFERENCES, reference=0.0),
                "The group's AUROC less that of all other patients of the same hospital, exact, mean over "
                "hospitals: left of the dashed line the model serves the group worse.",
            )
        )
    return plots


def training_curves(report: Report, metrics: Iterable[Mapping[str, Any]]) -> dict[str, Markup]:
    """`tuning`, `loss` and `forecast`; empty where nothing was told.

    Round r's message reports on the weights it received: those after round r - 1.
    """
    lines = list(metrics)
    tuned = [line for line in lines if line["phase"] == "finetune" and line["event"] in ("round", "last")]
    trained = [line for line in tuned if line["event"] == "round"]
    pretrained = [line for line in lines if line["phase"] == "pretrain" and line["event"] == "round"]
    tuning = {
        name: [(number, line[key]) for number, line in enumerate(tuned) if line.get(key) is not None]
        for name, key in (("AUROC", "tuning_auroc"), ("AP", "tuning_auprc"))
    }
    forecast = {
        "loss": _by_round(pretrained, "loss", 0),
        "tuning error": _by_round(pretrained, "forecast_error", 1),
    }
    return {
        "tuning": _curves(tuning, "AUROC and average precision on tuning stays", kept=report.rounds.best),
        "loss": _curves({"loss": _by_round(trained, "loss", 0)}, "Loss of fine-tuning"),
        "forecast": _curves(forecast, "Pretraining: loss and tuning error"),
    }


def paired_plots(pairs: Iterable[PairedModels]) -> list[Captioned]:
    """Difference of two models' AUROCs on the same stays, by hospital."""
    return [
        difference_plot(
            pair.sites,
            pair.mean,
            KINDS.get(pair.a, pair.a),
            KINDS.get(pair.b, pair.b),
            pair.question,
            pair.notes,
        )
        for pair in pairs
    ]


def difference_plot(
    sites: Mapping[str, Comparison | None],
    mean: Comparison | None,
    a: str,
    b: str,
    question: str = "",
    notes: Mapping[str, str] | None = None,
) -> Captioned:
    """AUROC of `a` less that of `b`, by hospital and over them. notes: site -> why it has none."""
    rows = [_row(site, found, words=(notes or {}).get(site, NOTHING)) for site, found in sites.items()]
    rows.append(_row("mean", mean, summary=True))
    stand = [
        f"{site} (adjusted p {found.p_adjusted:.3f})"
        for site, found in sites.items()
        if found is not None and found.p_adjusted is not None and found.p_adjusted < 0.05
    ]
    beyond = f"Beyond chance at {', '.join(stand)}." if stand else "At no hospital beyond chance."
    asked = f"{question[:1].upper()}{question[1:]}: " if question else ""
    return Captioned(
        _forest(rows, f"{a} less {b}: AUROC by hospital", DIFFERENCES, reference=0.0),
        f'{asked}AUROC of "{a}" less that of "{b}": right of the dashed line "{a}" ranks better. {beyond}',
    )


def left_out_forest(report: Report) -> Markup:
    """AUROC of the model trained without each hospital, on it."""
    folds = (report.generalisation and report.generalisation.leave_one_site_out) or {}
    return _forest(
        [
            _row(
                name,
                None if fold.held_out is None else fold.held_out.figure("auroc"),
                second=report.sites[name].auroc if name in report.sites else None,
                words="no figures",
            )
            for name, fold in folds.items()
        ],
        "AUROC of models trained without each hospital",
    )


def _row(
    label: str,
    found: Estimate | Comparison | None,
    *,
    second: float | None = None,
    summary: bool = False,
    words: str = NOTHING,
) -> Row:
    if found is None:
        return Row(label, None, second=second, summary=summary, words=words)
    upper = None if found.interval is None else found.interval[1]
    interval = None if found.interval is None or upper is None else (found.interval[0], upper)
    return Row(label, found.value, interval, second=second, summary=summary)


def _forest(rows: list[Row], title: str, limits: Span = SHARES, *, reference: float | None = None) -> Markup:
    words = "; ".join(f"{row.label} {row.told}" for row in rows)
    return forest(rows, title, words, limits, reference=reference)


def _by_round(lines: Iterable[Mapping[str, Any]], key: str, behind: int) -> Points:
    return [(line["round"] - behind, line[key]) for line in lines if line.get(key) is not None]


def _curves(series: Mapping[str, Points], title: str, *, kept: int | None = None) -> Markup:
    words = "; ".join(
        f"{name} from {figure(points[0][1])} (round {points[0][0]}) to {figure(points[-1][1])} "
        f"(round {points[-1][0]})"
        for name, points in series.items()
        if points
    )
    return curves(series, title, words, kept=kept)
