"""Runs of studies side by side: hospital by hospital, seed by seed.

Runs whose study files differ in `name` and `seed` alone are runs of one *variant*. A variant's figure is the
mean over its runs. Differences are between each variant and the first.

An interval at one hospital is built from the two figures' own (`hymate.evaluate.differences.difference`), as
if they came from different patients: where both were scored on the same stays, as in runs of one data set, it
is wider than need be. Over hospitals, and over seeds, differences are taken pairwise first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import yaml

from hymate.errors import InputFault
from hymate.evaluate.differences import Comparison, difference, holm
from hymate.evaluate.estimates import Estimate
from hymate.evaluate.paired import mean_over_seeds
from hymate.report.content import Report
from hymate.report.run_directory import read_report, read_study
from hymate.report.words import NOTHING

FIGURES = ("auroc", "average_precision", "brier", "tpr", "ppv", "observed_to_expected")
TESTED = "auroc"
MULTIPLICITY = (
    "p is adjusted for all {tests} comparisons of AUROC at hospitals and over hospitals (Holm); intervals "
    "hold one at a time."
)
Values = dict[str, dict[str, Estimate | None]]


@dataclass(frozen=True)
class Variant:
    """Runs of one study that differ in their seed alone."""

    name: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    sites: Values
    """Site -> figure (of `FIGURES`) -> mean over runs."""
    within_sites: Estimate | None
    mean: float | None
    """Of the hospitals' AUROCs."""
    over_seeds: Comparison | None
    """The same, with the spread over runs; None for fewer than two."""
    seconds: float


@dataclass(frozen=True)
class Difference:
    """AUROC of a variant less that of the first one."""

    variant: str
    sites: dict[str, Comparison | None]
    mean: Comparison | None
    """Mean over hospitals, Student's interval over hospitals: they are the sample."""
    over_seeds: Comparison | None
    """The same mean, paired by seed; the seeds are the sample."""


@dataclass(frozen=True)
class ComparedRuns:
    """Everything that is shown. settings: key -> its value by variant, where they differ."""

    task: str
    variants: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    settings: dict[str, tuple[str, ...]]
    notes: tuple[str, ...]
    multiplicity: str

    @property
    def sites(self) -> list[str]:
        """Hospitals of any variant, in the order of names."""
        return sorted({site for variant in self.variants for site in variant.sites})


def compare_runs(folders: Sequence[Path]) -> ComparedRuns:
    """Read and compare finished runs; the first is what the others are compared with.

    Raises:
        InputFault: fewer than two runs, one that cannot be read, another task, no hospital in common.
    """
    if len(folders) < 2:
        raise InputFault(
            "hymate report compare", "names fewer than two runs", "name two or more run directories"
        )
    reports = {str(folder): read_report(folder) for folder in folders}
    if len(reports) < len(folders):
        raise InputFault("hymate report compare", "names a run twice", "name each run directory once")
    _demand_comparable(reports)
    studies = {name: read_study(Path(name)) for name in reports}
    grouped: dict[str, list[str]] = {}
    for name, study in studies.items():
        plan = {key: value for key, value in study.items() if key not in ("name", "seed")}
        grouped.setdefault(yaml.safe_dump(plan, sort_keys=True), []).append(name)
    variants = tuple(_variant(names, reports) for names in grouped.values())
    differences = _adjusted([_difference(variant, variants[0], reports) for variant in variants[1:]])
    tests = sum(found is not None for each in differences for found in (*each.sites.values(), each.mean))
    return ComparedRuns(
        next(iter(reports.values())).task,
        variants,
        differences,
        _settings([studies[variant.runs[0]] for variant in variants]),
        tuple(_notes(reports)),
        MULTIPLICITY.format(tests=tests),
    )


def _demand_comparable(reports: Mapping[str, Report]) -> None:
    first, *others = reports.items()
    for name, report in others:
        if report.task != first[1].task:
            raise InputFault(
                name,
                f"is about {report.task}, and {first[0]} about {first[1].task}",
                "compare runs of one task",
            )
        if not set(report.sites) & set(first[1].sites):
            raise InputFault(
                name, f"has no hospital in common with {first[0]}", "compare runs over the same hospitals"
            )


def _variant(names: Sequence[str], reports: Mapping[str, Report]) -> Variant:
    runs = [reports[name] for name in names]
    sites = sorted({site for run in runs for site in run.performance.sites})
    means = [mean for run in runs if (mean := run.mean.federated.auroc) is not None]
    return Variant(
        _shortest(names[0], reports),
        tuple(names),
        tuple(run.seed for run in runs),
        {
            site: {
                figure: _mean([of.figure(figure) for run in runs if (of := run.performance.sites.get(site))])
                for figure in FIGURES
            }
            for site in sites
        },
        _mean([run.performance.within_site.auroc for run in runs]),
        fmean(means) if means else None,
        mean_over_seeds(means) if len({run.seed for run in runs}) == len(runs) else None,
        sum(run.timings["total"] for run in runs),
    )


def _shortest(name: str, reports: Mapping[str, Report]) -> str:
    """The folder's own name where no other run's is the same."""
    own = Path(name).resolve().name
    return own if sum(Path(other).resolve().name == own for other in reports) == 1 else name


def _mean(estimates: Sequence[Estimate | None]) -> Estimate | None:
    """Of value, bound and interval, end by end: runs on the same patients err together. None where a run
    has none."""
    known = [each for each in estimates if each is not None]
    if not known or len(known) < len(estimates):
        return None
    intervals = [each.interval for each in known if each.interval is not None]
    return Estimate(
        fmean(each.value for each in known),
        (fmean(each.bound[0] for each in known), fmean(each.bound[1] for each in known)),
        (fmean(low for low, _ in intervals), fmean(high for _, high in intervals))
        if len(intervals) == len(known)
        else None,
    )


def _difference(variant: Variant, first: Variant, reports: Mapping[str, Report]) -> Difference:
    sites: dict[str, Comparison | None] = {}
    for site in sorted(set(variant.sites) | set(first.sites)):
        ours, theirs = (each.sites.get(site, {}).get(TESTED) for each in (variant, first))
        sites[site] = difference(ours, theirs) if ours is not None and theirs is not None else None
    by_site = [found.value for found in sites.values() if found is not None]
    return Difference(variant.name, sites, mean_over_seeds(by_site), _by_seed(variant, first, reports))


def _by_seed(variant: Variant, first: Variant, reports: Mapping[str, Report]) -> Comparison | None:
    """Mean over hospitals of each seed's difference, for seeds that both variants ran."""

    def means(of: Variant) -> dict[int, dict[str, float]]:
        return {
            seed: {
                site: figures.auroc
                for site, figures in reports[name].sites.items()
                if figures.auroc is not None
            }
            for seed, name in zip(of.seeds, of.runs, strict=True)
        }

    ours, theirs = means(variant), means(first)
    found = []
    for seed in sorted(set(ours) & set(theirs)):
        common = set(ours[seed]) & set(theirs[seed])
        if common:
            found.append(fmean(ours[seed][site] - theirs[seed][site] for site in common))
    return mean_over_seeds(found)


def _adjusted(differences: Sequence[Difference]) -> tuple[Difference, ...]:
    """With Holm's p-values over all hospitals and means."""
    raw = {
        (each.variant, site): found.p
        for each in differences
        for site, found in (*each.sites.items(), ("", each.mean))
        if found is not None and found.p is not None
    }
    adjusted = holm(raw)

    def with_p(key: tuple[str, str], found: Comparison | None) -> Comparison | None:
        return None if found is None else replace(found, p_adjusted=adjusted.get(key))

    return tuple(
        replace(
            each,
            sites={site: with_p((each.variant, site), found) for site, found in each.sites.items()},
            mean=with_p((each.variant, ""), each.mean),
        )
        for each in differences
    )


def _settings(studies: Sequence[Mapping[str, Any]]) -> dict[str, tuple[str, ...]]:
    """Keys of the study file that are not the same in all variants."""
    flat = [dict(_leaves(study)) for study in studies]
    keys = dict.fromkeys(key for each in flat for key in each if key not in ("name", "seed"))
    table = {key: tuple(each.get(key, NOTHING) for each in flat) for key in keys}
    return {key: values for key, values in table.items() if len(set(values)) > 1}


def _leaves(content: Any, key: str = "") -> list[tuple[str, str]]:
    if isinstance(content, dict) and content:
        return [
            leaf
            for name, value in content.items()
            for leaf in _leaves(value, f"{key}.{name}" if key else name)
        ]
    return [(key, yaml.safe_dump(content, default_flow_style=True).strip().removesuffix("\n..."))]


def _notes(reports: Mapping[str, Report]) -> list[str]:
    """What makes a comparison less than it looks."""
    names = list(reports)
    first = reports[names[0]]
    found = []
    for name in names[1:]:
        other = reports[name]
        missing = sorted(set(first.sites) ^ set(other.sites))
        if missing:
            found.append(f"Not in both {names[0]} and {name}: {', '.join(missing)}.")
        changed = [
            site
            for site in sorted(set(first.sites) & set(other.sites))
            if (first.sites[site].n, first.sites[site].positives)
            != (other.sites[site].n, other.sites[site].positives)
        ]
        if changed:
            found.append(
                f"Other held-out stays in {name} than in {names[0]} at {', '.join(changed)}: what differs "
                "may be the patients."
            )
    return found


def _counts(report: Report, site: str) -> tuple[int | None, int | None]:
    return report.sites[site].n, report.sites[site].positives
