"""What the figures say, in sentences for readers who do not know them by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from hymate.evaluate.differences import Comparison
from hymate.evaluate.estimates import Estimate
from hymate.report.content import Report

NOTHING = "-"
TITLES = {
    "auroc": "AUROC",
    "average_precision": "average precision",
    "min_se_ppv": "min(sensitivity, predictive value)",
    "tpr": "sensitivity",
    "fpr": "false alarm rate",
    "specificity": "specificity",
    "ppv": "predictive value of an alarm",
    "npv": "predictive value of no alarm",
    "selection_rate": "alarms per stay",
    "base_rate": "rate of the outcome",
    "mean_predicted": "mean predicted risk",
    "brier": "Brier score",
    "log_loss": "log loss",
    "ece": "calibration error",
    "observed_to_expected": "observed / expected",
    "calibration_slope": "calibration slope",
    "calibration_intercept": "calibration intercept",
}
KINDS = {
    "federated": "federated",
    "shared": "shared part alone",
    "local": "own model",
    "left_out": "trained without it",
    "pooled": "all stays at one place",
}


def figure(value: float | None, digits: int = 3) -> str:
    """
    >>> figure(0.81234), figure(-0.0001), figure(None)
    ('0.812', '0.000', '-')
    """
    if value is None:
        return NOTHING
    written = f"{value:.{digits}f}"
    return written.removeprefix("-") if float(written) == 0 else written


def estimate(found: Estimate | Comparison | None, digits: int = 2) -> str:
    """Value and interval.

    >>> estimate(Estimate(0.8, (0.8, 0.8), (0.754, 0.85)))
    '0.80 (0.75 to 0.85)'
    """
    if found is None:
        return NOTHING
    if found.interval is None:
        return figure(found.value, digits)
    lower, upper = found.interval
    end = "or more" if upper is None else f"to {figure(upper, digits)}"
    return f"{figure(found.value, digits)} ({figure(lower, digits)} {end})"


def percent(found: Estimate | None) -> str:
    """
    >>> percent(Estimate(0.8, (0.8, 0.8), (0.754, 0.85)))
    '80 % (75 to 85)'
    """
    if found is None:
        return NOTHING
    if found.interval is None:
        return f"{100 * found.value:.0f} %"
    low, high = (100 * end for end in found.interval)
    return f"{100 * found.value:.0f} % ({low:.0f} to {high:.0f})"


def whole_percent(share: float | None) -> str:
    return NOTHING if share is None else f"{100 * share:.0f} %"


def short(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.4g}"


def count(value: int | None) -> str:
    return "too few" if value is None else f"{value:,}"


def left_out(reasons: Mapping[str, int | None]) -> str:
    """Stays that a hospital left out, and why.

    >>> left_out({"no split": 0, "fewer than 1 observations": 3, "late": None})
    '3 (fewer than 1 observations), too few (late)'
    """
    told = [f"{count(stays)} ({reason})" for reason, stays in reasons.items() if stays != 0]
    return ", ".join(told) or "0"


def group_name(name: str) -> str:
    """
    >>> group_name("GENDER//F & AGE//<65")
    'GENDER F & AGE <65'
    """
    return name.replace("//", " ")


def duration(seconds: float) -> str:
    """
    >>> duration(42), duration(605), duration(7325)
    ('42 s', '10 min', '2 h 02 min')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def findings(report: Report) -> list[str]:
    """The study in a few sentences."""
    return [
        sentence
        for part in (_ranking, _alarms, _risks, _own_models, _elsewhere, _groups)
        for sentence in part(report)
    ]


def _ranking(report: Report) -> Iterator[str]:
    within, across = report.performance.within_site.auroc, report.performance.random_effects.auroc
    found = within or report.performance.pooled.figure("auroc")
    if found is None:
        yield "No hospital had enough stays with and without the outcome to say how well the model does."
        return
    whose = "one hospital" if within else "any of the hospitals"
    yield (
        f"Of two patients of {whose}, one with and one without the outcome, the model gives the first "
        f"the higher score in {100 * found.value:.0f} of 100 cases (AUROC {estimate(found)}; 0.5 is "
        "guessing)."
    )
    known = {name: site.auroc for name, site in report.sites.items() if site.auroc is not None}
    if len(known) < 2:
        return
    low, high = min(known, key=lambda name: known[name]), max(known, key=lambda name: known[name])
    sentence = f"By hospital from {known[low]:.2f} ({low}) to {known[high]:.2f} ({high})"
    if across is not None and across.prediction is not None:
        sentence += (
            f"; at another hospital like these, between {across.prediction[0]:.2f} and "
            f"{across.prediction[1]:.2f} is to be expected"
        )
    yield f"{sentence}."


def _alarms(report: Report) -> Iterator[str]:
    pooled, point = report.performance.pooled, report.performance.operating_point
    found, false, right = (pooled.figure(name) for name in ("tpr", "fpr", "ppv"))
    if point.threshold is None or found is None or false is None:
        return
    rightly = "" if right is None else f" Of 100 alarms, {100 * right.value:.0f} are right."
    yield (
        f"With an alarm from a score of {point.threshold:.2f} on, {100 * found.value:.0f} of 100 patients "
        f"with the outcome are found, and {100 * false.value:.0f} of 100 without it raise a false "
        f"alarm.{rightly}"
    )


def _risks(report: Report) -> Iterator[str]:
    ratio = report.performance.pooled.figure("observed_to_expected")
    if ratio is None or ratio.interval is None:
        return
    if ratio.interval[0] <= 1 <= ratio.interval[1]:
        yield f"Scores sum up to the outcomes that happened (observed / expected {estimate(ratio)})."
        return
    way = "too high" if ratio.value < 1 else "too low"
    yield (
        f"Scores are {way} to be read as risks: {100 * ratio.value:.0f} outcomes happened where they "
        "promised 100. Recalibrate before anyone reads them as percentages."
    )


def _own_models(report: Report) -> Iterator[str]:
    pairs = [
        (site.auroc, own)
        for name, site in report.sites.items()
        if site.auroc is not None and name in report.local and (own := report.local[name].auroc) is not None
    ]
    if pairs:
        better = sum(shared > own for shared, own in pairs)
        yield (
            f"The federated model ranks better than the hospital's own at {better} of {len(pairs)} "
            "hospitals; whether by more than chance is for the intervals to say."
        )


def _elsewhere(report: Report) -> Iterator[str]:
    folds = (report.generalisation and report.generalisation.leave_one_site_out) or {}
    known = {
        name: found.value
        for name, fold in folds.items()
        if fold.held_out is not None and (found := fold.held_out.figure("auroc")) is not None
    }
    if known:
        yield (
            f"Trained without a hospital and tested on it, the AUROC is {min(known.values()):.2f} to "
            f"{max(known.values()):.2f} ({len(known)} hospitals left out in turn)."
        )


def _groups(report: Report) -> Iterator[str]:
    if report.fairness is None:
        yield "Whether the model serves some groups of patients worse was not asked."
        return
    stand = [
        f"{TITLES.get(name, name)} of {group_name(group)} ({comparison.value:+.2f})"
        for attribute in report.fairness.attributes.values()
        for group, figures in attribute.against_others.items()
        for name, comparison in figures.items()
        if comparison is not None and comparison.p_adjusted is not None and comparison.p_adjusted < 0.05
    ]
    tests = f"{report.fairness.tests} comparisons of a group with all others"
    if stand:
        more = f" and {len(stand) - 4} more" if len(stand) > 4 else ""
        yield f"Of {tests}, these are beyond chance: {'; '.join(stand[:4])}{more}."
    else:
        yield (
            f"Of {tests}, none is beyond chance. That is no proof that there is no difference: "
            "look at the intervals."
        )


def limits(report: Report) -> list[str]:
    """What this run cannot show, from the run."""
    found = ["One run with one seed: how far figures move with another is not known from it."]
    generalisation = report.generalisation
    if generalisation is None or not generalisation.leave_one_site_out:
        found.append(
            "Held-out stays are of the hospitals that trained the model. How it does in another hospital was "
            "not tried (evaluation.leave_one_site_out does)."
        )
    found.append("Patients were parted as each data set says; later years were not tried by themselves.")
    silent = [name for name, site in report.performance.sites.items() if site.figures is None]
    if silent:
        found.append(f"Too few stays of a class to tell: {', '.join(silent)}.")
    if report.fairness is None:
        found.append("No groups of patients were looked at (evaluation.groups does).")
    elif any(attribute.held_back for attribute in report.fairness.attributes.values()):
        found.append("Small groups were held back by their hospitals; figures by group are of the others.")
    found.append("Scores are not recalibrated: read them as risks only where calibration allows it.")
    if report.secure_aggregation is not None and report.secure_aggregation.histograms:
        found.append("Figures were summed in secret: how hospitals differ from each other is not known.")
    if report.privacy is None:
        found.append("Updates left the hospitals without noise: no bound on what they tell of one patient.")
    elif report.privacy.mode == "central":
        found.append("The mean of the updates was noised at the coordinator, who saw each as it was.")
    elif report.privacy.dp_statistics:
        found.append("Updates, statistics and all figures here were noised: none is what the patients gave.")
    else:
        found.append("Updates were noised; figures of evaluation, statistics of codes and counts were not.")
    found.append("The model was not tried in care: no figure here says what its use would change.")
    return found
