"""TRIPOD+AI: what a report of a clinical prediction model should say, and where this run says it.

Items (numbers and subjects, in our words): Collins et al., BMJ 2024;385:e078378,
https://doi.org/10.1136/bmj-2023-078378.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hymate.report.content import Report

OPEN = "To be filled in by the study team."


@dataclass(frozen=True)
class Item:
    number: str
    subject: str


@dataclass(frozen=True)
class Answer:
    """`open`: nobody has answered it yet."""

    item: Item
    words: str
    open: bool


ITEMS = tuple(
    Item(number, subject)
    for number, subject in (
        ("1", "Title: development or evaluation, population, outcome"),
        ("2", "Abstract"),
        ("3a", "Healthcare context and rationale"),
        ("3b", "Target population, purpose, intended users"),
        ("3c", "Known inequalities in health between groups"),
        ("4", "Objectives"),
        ("5a", "Sources of data, and how representative they are"),
        ("5b", "Dates of the data"),
        ("6a", "Setting, number and place of centres"),
        ("6b", "Who was eligible"),
        ("6c", "Treatments received"),
        ("7", "Preparation and quality of the data, alike across groups"),
        ("8a", "Outcome: definition, horizon, how assessed"),
        ("8b", "Who assessed the outcome, where it is a judgement"),
        ("8c", "Blinding of the outcome's assessment"),
        ("9a", "How predictors were chosen"),
        ("9b", "Definition of every predictor, and when measured"),
        ("9c", "Who assessed predictors, where they are judgements"),
        ("10", "Sample size, and why it suffices"),
        ("11", "Missing data"),
        ("12a", "How data were split between development and evaluation"),
        ("12b", "How predictors were handled"),
        ("12c", "Type of model, building steps, tuning, internal validation"),
        ("12d", "Differences between clusters, such as hospitals"),
        ("12e", "Measures and plots of performance"),
        ("12f", "Model updating"),
        ("12g", "How predictions were computed for evaluation"),
        ("13", "Class imbalance"),
        ("14", "Fairness: what was done and why"),
        ("15", "Output of the model, and thresholds"),
        ("16", "Differences between development and evaluation data"),
        ("17", "Ethical approval"),
        ("18a", "Funding"),
        ("18b", "Conflicts of interest"),
        ("18c", "Protocol"),
        ("18d", "Registration"),
        ("18e", "Availability of data"),
        ("18f", "Availability of code"),
        ("19", "Involvement of patients and the public"),
        ("20a", "Flow of participants"),
        ("20b", "Characteristics of participants, by centre"),
        ("20c", "Evaluation data compared with development data"),
        ("21", "Participants and outcome events in each analysis"),
        ("22", "The full model, so that others can predict with it"),
        ("23a", "Performance with intervals, in key subgroups too"),
        ("23b", "Heterogeneity of performance between clusters"),
        ("24", "Results of model updating"),
        ("25", "Interpretation, fairness included"),
        ("26", "Limitations"),
        ("27a", "Handling of poor or missing input in use"),
        ("27b", "Interaction and expertise that users need"),
        ("27c", "Next steps of research"),
    )
)


def answers(report: Report, given: Mapping[str, str]) -> list[Answer]:
    """Every item: the team's own words, else what the run says, else open."""
    said = {**_from_run(report), **given}
    return [Answer(item, said.get(item.number, OPEN), item.number not in said) for item in ITEMS]


def _from_run(report: Report) -> dict[str, str]:
    """What a run can know; the rest is the team's to say."""
    sites = len(report.cohort)
    trained = _sum([site.splits["train"].stays for site in report.cohort.values() if "train" in site.splits])
    agreed = report.vocabulary
    said = {
        "6a": f"{sites} hospitals: {', '.join(report.cohort)}. Their places are for the team to add.",
        "7": "Units, plausible ranges and scaling were agreed by all hospitals and are the same for every "
        'patient: "What was agreed".',
        "9b": f'{agreed.codes} codes and {len(agreed.static)} columns of demographics: "What was agreed"; '
        "the look-back is in the study file at the end.",
        "10": f"{trained} training stays, {report.pooled.n:,} held-out stays with "
        f"{report.pooled.positives:,} events that could be told. Whether that "
        "suffices is for the team to argue.",
        "11": "No imputation: the model reads the observations that there are, with their times.",
        "12a": "Each hospital's patients are parted into training, tuning and held-out ones; held-out stays "
        "were scored after all training, and set nothing.",
        "12b": f"Scaling {agreed.scaling}, by figures merged over the hospitals' training stays.",
        "12c": f"HyMaTE (arXiv 2509.24118), federated by {report.strategy}; every setting is in the study "
        "file at the end.",
        "12d": 'Figures by hospital, random-effects mean and prediction interval: "How well it does".',
        "12e": "AUROC, average precision, calibration, and sensitivity, specificity and predictive values at "
        'the operating point, with intervals: "How well it does".',
        "12f": "Not updated: slope and intercept of a recalibration are reported and not applied.",
        "12g": "At each hospital, by the final model on its own held-out stays; no patient's score left it.",
        "13": "Weight of the rarer class in training: finetune.positive_weight in the study file at the end "
        "(balanced: both count the same, and scores are higher than risks where the outcome is rare).",
        "15": f"A probability from 0 to 1; {_threshold(report)}",
        "18e": "No patient's record left a hospital; every figure is in report.json.",
        "18f": f"hymate-federated {report.versions.get('hymate-federated', '')}, Apache-2.0.",
        "20b": '"Who took part" and "What was agreed", by hospital.',
        "21": '"Who took part": stays and events by hospital and split.',
        "22": "The folder model/ of the run: weights, configuration and vocabulary.",
        "23a": '"How well it does"'
        + ('; by group: "For whom".' if report.fairness else "; no subgroups were asked for."),
        "23b": '"How well it does": forest plot, random effects.',
        "24": "Not updated.",
        "26": "See the limits above, which follow from this run; others are for the team to add.",
    }
    if report.fairness:
        said["14"] = (
            f'Figures by {", ".join(report.fairness.attributes)}, gaps with intervals: "For whom". '
            "Nothing was done to the model to lessen them."
        )
    if report.generalisation:
        said["16"] = said["20c"] = '"Elsewhere": each hospital against the others, code by code.'
    return said


def _sum(counts: list[int | None]) -> str:
    known = sum(count for count in counts if count is not None)
    return f"{known:,}" if None not in counts else f"more than {known:,}"


def _threshold(report: Report) -> str:
    threshold = report.performance.operating_point.threshold
    if threshold is None:
        return "no threshold could be set."
    rule = ", ".join(f"{name} {value}" for name, value in report.performance.operating_point.rule.items())
    return f"an alarm from {threshold:.3f} on (set on tuning stays: {rule})."
