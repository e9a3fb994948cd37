"""The report's privacy section: what the study asked for, and what each hospital declared of its updates."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hymate.privacy.accounting import epsilon_of
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.privacy_config import CentralPrivacyConfig
from server.central_noise import multiplier_of
from server.roster import Standing
from server.study import StudyConfig


def privacy_section(study: StudyConfig, standings: Mapping[str, Standing]) -> dict[str, Any] | None:
    """None for a study without noise.

    With noise at the sites, epsilon stands there only where the hospital's policy publishes it. A declaration
    is the hospital's word: the coordinator sees that it was given, not that it is true. With noise of the
    coordinator, epsilon is of the hospital as a whole, over the rounds that its updates were part of.
    """
    privacy = study.privacy
    if privacy.mode == "none":
        return None
    rounds = study.pretrain.rounds + study.finetune.rounds
    return {
        **privacy.model_dump(mode="json"),
        "unit": "site" if isinstance(privacy, CentralPrivacyConfig) else "patient",
        "sites": {
            name: {
                "declared": None if standing.noise is None else standing.noise.model_dump(mode="json"),
                "rounds": dict(standing.noised),
                "spent": _of_site(privacy, standing, rounds)
                if isinstance(privacy, CentralPrivacyConfig)
                else _published(standing),
            }
            for name, standing in standings.items()
        },
    }


def _of_site(privacy: CentralPrivacyConfig, standing: Standing, rounds: int) -> dict[str, float | None]:
    took_part = sum(standing.noised.values())
    spend = Spend(SAMPLED_GAUSSIAN, 1.0, multiplier_of(privacy, rounds), took_part)
    epsilon = epsilon_of([spend], privacy.delta)
    return {"epsilon": epsilon if math.isfinite(epsilon) else None, "delta": privacy.delta}


def _published(standing: Standing) -> dict[str, float | None] | None:
    return None if standing.spent is None else standing.spent.model_dump(mode="json")
