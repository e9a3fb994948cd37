"""The data: is it what a study can read, are the tasks' labels there, does the vocabulary know its codes."""

from __future__ import annotations

from collections.abc import Iterator

from client.preflight.lines import Line, fail, ok, plural, warn
from client.site import SiteConfig
from hymate.data.checks.run import CheckReport, check_dataset
from hymate.data.store_header import HEADER
from hymate.data.vocabulary import Vocabulary

LEAST_COVERAGE = 0.8


def read_data(site: SiteConfig) -> CheckReport:
    """Every rule of `hymate data check`; `InputFault` where the data set cannot be read."""
    return check_dataset(site.data)


def check_contract(site: SiteConfig, report: CheckReport) -> Iterator[Line]:
    """What the rules found: the first error or warning, and how many there are."""
    summary = report.summary
    held = f"{plural(int(summary.subjects), 'subject')}, {plural(int(summary.events), 'event')}"
    see = f"'hymate data check {site.data}' lists all"
    if report.errors:
        first = report.errors[0]
        yield fail(
            "data",
            f"{plural(len(report.errors), 'error')}, the first in {first.file}: {first.what}",
            f"{first.rule.remedy}; {see}",
        )
    elif report.warnings:
        first = report.warnings[0]
        yield warn(
            "data",
            f"{held}; {plural(len(report.warnings), 'warning')}, the first in {first.file}: {first.what}",
            f"{first.rule.remedy}; {see}",
        )
    else:
        yield ok("data", held)


def check_labels(site: SiteConfig, report: CheckReport) -> Iterator[Line]:
    """Each allowed task has labels here."""
    there = sorted(report.summary.tasks)
    wanted = list(site.policy.tasks) if site.policy.tasks is not None else there
    if not wanted:
        yield fail(
            "labels",
            "no task has labels" if site.policy.tasks is None else "the policy allows no task",
            "write labels/<task>/, or correct `policy.tasks`",
        )
    for task in wanted:
        if task in there:
            yield ok("labels", f"{task} has labels")
        else:
            yield fail(
                "labels",
                f"{task} is allowed, but has no labels here (there are: {', '.join(there) or 'none'})",
                f"write labels/{task}/, or take it out of `policy.tasks`",
            )


def usable_tasks(site: SiteConfig, report: CheckReport) -> list[str]:
    """Tasks that are allowed and have labels."""
    there = sorted(report.summary.tasks)
    return [task for task in there if site.policy.tasks is None or task in site.policy.tasks]


def check_coverage(site: SiteConfig) -> Iterator[Line]:
    """How much of the site's observations the vocabularies agreed so far hold."""
    import json

    found = False
    for header in sorted(site.cache.glob(f"*/{HEADER}")):
        store = json.loads(header.read_text(encoding="utf-8"))
        kept, unknown = int(store["triplets"]), dict(store["unknown_codes"])
        path = site.cache / f"vocabulary-{store['vocabulary_hash'][:12]}.json"
        if not path.is_file():
            continue
        found = True
        size, total = Vocabulary.load(path).size, kept + sum(unknown.values())
        share = kept / total if total else 0.0
        what = (
            f"{100 * share:.1f} % of the observations of {store['task']['name']} are of the {size} codes of "
            f"vocabulary {store['vocabulary_hash'][:12]}"
        )
        if share >= LEAST_COVERAGE:
            yield ok("vocabulary", what)
        else:
            common = ", ".join(sorted(unknown, key=lambda code: -unknown[code])[:3])
            yield warn(
                "vocabulary",
                f"{what}; most frequent without: {common}",
                "have the study map these codes (`vocabulary.mapping`)",
            )
    if not found:
        yield ok("vocabulary", "none agreed yet: coverage is known after a study's vocabulary phase")
