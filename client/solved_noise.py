"""The noise that a target asks for: solving takes seconds, so it is kept by what it was solved for."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from client.site import SiteConfig
from hymate.durable import write_text
from hymate.privacy.accounting import noise_for

FILE = "noise.json"


def solved_noise(
    site: SiteConfig, target_epsilon: float, delta: float, planned: Sequence[tuple[float, int]]
) -> float:
    """`noise_for`, remembered in the site's state folder."""
    path = site.state / FILE
    inputs = [target_epsilon, delta, sorted(planned), version("hymate-federated"), version("opacus")]
    name = hashlib.sha256(json.dumps(inputs).encode()).hexdigest()
    known = _read(path)
    if name not in known:
        known[name] = noise_for(target_epsilon, delta, planned)
        with contextlib.suppress(OSError):  # nothing is lost but the time to solve it again
            write_text(path, json.dumps(known))
    return known[name]


def _read(path: Path) -> dict[str, float]:
    """What was solved so far; a file that cannot be believed is as good as none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): float(noise) for name, noise in content.items() if 0.0 < float(noise) < 1e6}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
