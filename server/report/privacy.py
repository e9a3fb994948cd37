"""The report's privacy section: what the study asked for, and what each hospital declared of its updates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hymate.privacy_config import PrivacyConfig
from server.roster import Standing


def privacy_section(privacy: PrivacyConfig, standings: Mapping[str, Standing]) -> dict[str, Any] | None:
    """None for a study without noise.

    Epsilon stands there only where the hospital's policy publishes it. A declaration is the hospital's word:
    the coordinator sees that it was given, not that it is true.
    """
    if privacy.mode == "none":
        return None
    return {
        **privacy.model_dump(mode="json"),
        "sites": {
            name: {
                "declared": None if standing.noise is None else standing.noise.model_dump(mode="json"),
                "rounds": dict(standing.noised),
                "spent": None if standing.spent is None else standing.spent.model_dump(mode="json"),
            }
            for name, standing in standings.items()
        },
    }
