"""A run of a study takes noise from its first round to its last, or never.

What a site remembers of rounds without noise (own layers, moments) may not shape one with noise: so the first
round of a run says of which kind it is, and the site refuses every other.
"""

from __future__ import annotations

from pathlib import Path

from client.site import SiteConfig
from hymate.durable import write_text
from hymate.errors import SAME_RELEASE, InputFault
from hymate.privacy_config import PrivacyConfig
from hymate.protocol import AloneRequest, RoundRequest
from hymate.scoring_protocol import CompareRequest, EvaluateRequest

FILE = "privacy.json"


def demand_same_kind(site: SiteConfig, request: RoundRequest) -> None:
    """Raise `InputFault` where this run's earlier rounds came with another `privacy:` section."""
    asked = request.privacy.model_dump_json()
    known = _known(site, request.study, request.run)
    if known is None:
        try:
            write_text(_path(site, request.study, request.run), asked)
        except OSError as fault:
            raise _unkept(site, fault) from None
    elif known != asked:
        raise InputFault(
            f"site {site.name}",
            "has given this run of the study rounds with another `privacy:` section",
            "begin the study anew: a run keeps its noise from its first round to its last",
        )


def demand_no_noise(site: SiteConfig, request: AloneRequest) -> None:
    """Raise `InputFault` where the run takes noise: a model trained without would tell what it hides."""
    known = _known(site, request.study, request.run)
    if known is not None and known != PrivacyConfig().model_dump_json():
        raise InputFault(
            f"site {site.name}",
            "trains nothing without noise for a study that asked for it",
            "set evaluation.local_baseline to false",
        )


def demand_noisy_figures(site: SiteConfig, request: EvaluateRequest | CompareRequest, noisy: bool) -> None:
    """Raise `InputFault` where the run's noise covers figures of evaluation and these are wanted without."""
    known = _known(site, request.study, request.run)
    if not noisy and known is not None and PrivacyConfig.model_validate_json(known).dp_statistics:
        raise InputFault(
            f"site {site.name}",
            "tells no figure without noise in a study with privacy.dp_statistics",
            SAME_RELEASE,
        )


def _path(site: SiteConfig, study: str, run: str) -> Path:
    return site.state / study / run / FILE


def _known(site: SiteConfig, study: str, run: str) -> str | None:
    path = _path(site, study, run)
    try:
        return path.read_text(encoding="utf-8") if path.exists() else None
    except OSError as fault:
        raise _unkept(site, fault) from None


def _unkept(site: SiteConfig, fault: OSError) -> InputFault:
    return InputFault(
        f"site {site.name}",
        f"cannot remember whether the study takes noise ({fault.strerror or fault})",
        "the site frees or mends its `state` folder",
    )
