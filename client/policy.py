"""The hospital's rules, applied on the hospital's side to everything that comes in or goes out."""

from __future__ import annotations

import re

from client.site import Policy, PrivacyPolicy, SecurePolicy, SiteConfig
from hymate.config import TaskConfig
from hymate.errors import SAME_RELEASE, InputFault


def check_task(site: SiteConfig, task: TaskConfig) -> None:
    """Raise `InputFault` where the site does not take part in this task."""
    if task.kind != "binary":
        raise InputFault(
            f"site {site.name}", f"cannot learn a {task.kind} task in a federation", "ask for kind binary"
        )
    allowed = site.policy.tasks
    if allowed is not None and task.name not in allowed:
        raise InputFault(
            f"site {site.name}",
            f"its policy does not allow the task '{task.name}'",
            f"ask for one of: {', '.join(allowed) or 'none'}, or have the site change `policy.tasks`",
        )


def check_noise(site: SiteConfig, noisy: bool) -> None:
    """Raise `InputFault` where the site gives only rounds with noise and this is none."""
    privacy = site.policy.privacy
    if privacy is not None and privacy.demand and not noisy:
        raise InputFault(
            f"site {site.name}",
            "its policy lets no update leave without noise",
            "ask with `privacy: {mode: dp-sgd}`, or have the site change `policy.privacy.demand`",
        )


def check_told(site: SiteConfig, noisy: bool) -> None:
    """Raise `InputFault` where the site tells of its data only with noise and this would be without."""
    privacy = site.policy.privacy
    if privacy is not None and privacy.demand_statistics and not noisy:
        raise InputFault(
            f"site {site.name}",
            "its policy lets no count, statistic or figure leave without noise",
            "ask with `privacy: {dp_statistics: true}`, or have the site change "
            "`policy.privacy.demand_statistics`",
        )


def check_masked(site: SiteConfig, masked: bool) -> None:
    """Raise `InputFault` where the site's updates leave only as part of a sum and this one would not."""
    if site.policy.secure_aggregation.demand and not masked:
        raise InputFault(
            f"site {site.name}",
            "its policy lets no update leave unmasked",
            "ask with `secure_aggregation:`, or have the site change `policy.secure_aggregation.demand`",
        )


def check_left_out(site: SiteConfig, left_out: str) -> None:
    """Raise `InputFault` where the site does not train for the model without `left_out`; '': nobody."""
    if left_out == site.name:
        raise InputFault(
            f"site {site.name}",
            "is asked to train for the model that is to be tested on it because it took no part",
            SAME_RELEASE,
        )
    if left_out and not site.policy.leave_one_site_out:
        raise InputFault(
            f"site {site.name}",
            "its policy allows no training for models that leave another site out",
            "set evaluation.leave_one_site_out to false, or have the site change `policy.leave_one_site_out`",
        )


_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")


def check_study(site: SiteConfig, study: str, run: str = "") -> None:
    """Raise `InputFault` where the site does not train for this study.

    The site names folders after study and run: what could lead out of one is refused.
    """
    for name in (study, run) if run else (study,):
        if not _NAME.fullmatch(name):
            raise InputFault(
                f"site {site.name}",
                "the request's study or run has a name that no folder may have",
                SAME_RELEASE,
            )
    allowed = site.policy.studies
    if allowed is not None and study not in allowed:
        raise InputFault(
            f"site {site.name}",
            f"its policy does not allow the study '{study}'",
            f"allowed: {', '.join(allowed) or 'none'}; have the site change `policy.studies`",
        )


def in_words(policy: Policy) -> list[str]:
    """The policy as sentences, for the people who answer for it."""
    rounds, app = policy.max_rounds_per_study, policy.approved_app
    return [
        f"counts of fewer than {policy.min_cell} people do not leave",
        "tasks: any the site has labels for" if policy.tasks is None else f"tasks: {_listed(policy.tasks)}",
        "studies: any" if policy.studies is None else f"studies: {_listed(policy.studies)}",
        "training rounds per study: no limit" if rounds is None else f"training rounds per study: {rounds}",
        f"models that leave another site out: {'trained for' if policy.leave_one_site_out else 'refused'}",
        f"this site's own model: {'leaves where a study asks' if policy.share_own_model else 'never leaves'}",
        "app: the installed release's bundle, which holds no code" if app is None else f"app: SHA-256 {app}",
        _privacy_in_words(policy.privacy),
        _sums_in_words(policy.secure_aggregation),
    ]


def _privacy_in_words(privacy: PrivacyPolicy | None) -> str:
    if privacy is None:
        return "privacy: no budget; rounds with and without noise are given"
    without = "never given" if privacy.demand else "given, and not counted"
    exact = "never told" if privacy.demand_statistics else "told, and not counted"
    return (
        f"privacy: at most epsilon {privacy.epsilon:g} at delta {privacy.delta:g} for all studies together; "
        f"rounds without noise are {without}, counts and figures without noise {exact}; what a study has "
        "cost is "
        f"{'told to its coordinator' if privacy.publish_epsilon else 'told to nobody'}"
    )


def _sums_in_words(sums: SecurePolicy) -> str:
    known = sums.known_sites
    others = "any the coordinator names" if known is None else f"{_listed(tuple(known))}, by their own keys"
    return (
        f"sums in secret: of {sums.min_summed} sites or more, with {others}; "
        f"updates outside of one: {'refused' if sums.demand else 'given'}"
    )


def _listed(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"


def publishable(count: int, policy: Policy) -> int | None:
    """The count if it may leave the site: zero, or at least the minimum; else None."""
    return count if count == 0 or count >= policy.min_cell else None
