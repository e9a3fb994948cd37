"""`report.html`: the report as one self-contained page, for people who do not read JSON.

Every number shown stands in `report.json`, `metrics.jsonl` or a hospital's `explanation.json`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined

from hymate.evaluate.explanation.palette import DARK, LIGHT
from hymate.report import words
from hymate.report.coverage import shown_coverage
from hymate.report.pictures import (
    calibration_plots,
    group_plots,
    left_out_forest,
    paired_plots,
    site_forest,
    training_curves,
)
from hymate.report.run_directory import FinishedRun
from hymate.report.tripod import OPEN, answers

SHOWN_FEATURES = 15
SHOWN_DRIFT = 15
SHOWN_GAPS = ("auroc", "tpr", "fpr", "ppv", "selection_rate", "base_rate", "observed_to_expected")


@dataclass(frozen=True)
class Section:
    id: str
    title: str

    @property
    def template(self) -> str:
        return f"{self.id}.html.j2"


def render_page(run: FinishedRun) -> str:
    """HTML, pictures and style within; it asks for nothing from outside."""
    report = run.report
    known = [site.auroc for site in report.sites.values() if site.auroc is not None]
    study = yaml.safe_load(run.study) or {}
    generalisation = report.generalisation
    compared = generalisation.comparisons if generalisation else None
    return (
        environment()
        .get_template("page.html.j2")
        .render(
            report=report,
            study=run.study,
            sections=_sections(run),
            lookback=study.get("task", {}).get("lookback_hours"),
            date=_date(run),
            worst=min(known) if known else None,
            findings=words.findings(report),
            limits=words.limits(report),
            titles=words.TITLES,
            forest=site_forest(report),
            calibration=calibration_plots(report),
            plots={
                label: group_plots(label, attribute)
                for label, attribute in (report.fairness.attributes.items() if report.fairness else ())
            },
            pairs=paired_plots(compared.pairs) if compared else [],
            left_out=left_out_forest(report),
            coverage=shown_coverage(report.vocabulary),
            importances=run.importances,
            shown_features=SHOWN_FEATURES,
            shown_drift=SHOWN_DRIFT,
            shown_gaps=SHOWN_GAPS,
            card=run.card,
            open=OPEN,
            answers=answers(report, run.card.tripod),
            **training_curves(report, run.metrics),
        )
    )


def environment() -> Environment:
    """Templates of the report, on the style of all pages; every text is escaped."""
    made = Environment(
        loader=ChoiceLoader(
            [PackageLoader("hymate.report"), PackageLoader("hymate.evaluate.explanation", ".")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
    )
    made.globals.update(light=LIGHT, dark=DARK)
    made.filters.update(
        figure=words.figure,
        estimate=words.estimate,
        percent=words.percent,
        whole_percent=words.whole_percent,
        short=words.short,
        count=words.count,
        duration=words.duration,
        group_name=words.group_name,
        kind_name=lambda kind: words.KINDS.get(kind, kind),
        left_out=words.left_out,
        share=lambda value, most: f"{min(max(value / most, 0.0), 1.0) if most else 0.0:.3f}",
    )
    return made


def _sections(run: FinishedRun) -> list[Section]:
    titles = {
        "summary": "In short",
        "participants": "Who took part",
        "performance": "How well it does",
        "fairness": "For whom",
        "generalisation": "Elsewhere",
        "training": "How training went",
        "privacy": "What left the hospitals",
        "importance": "What the model leans on",
        "vocabulary": "What was agreed",
        "model_card": "Model card",
        "repeat": "How to repeat it",
    }
    return [
        Section(name, title)
        for name, title in titles.items()
        if name != "generalisation" or run.report.generalisation is not None
    ]


def _date(run: FinishedRun) -> str:
    """Day on which the study began; "" where its journal does not tell."""
    began = next((line["time"] for line in run.metrics if "time" in line), None)
    return "" if began is None else time.strftime("%d %B %Y", time.gmtime(began)).lstrip("0")
