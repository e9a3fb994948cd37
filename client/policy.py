"""The hospital's rules, applied on the hospital's side to everything that comes in or goes out."""

from __future__ import annotations

from client.site import Policy, SiteConfig
from hymate.config import TaskConfig
from hymate.errors import InputFault


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


def publishable(count: int, policy: Policy) -> int | None:
    """The count if it may leave the site: zero, or at least the minimum; else None."""
    return count if count == 0 or count >= policy.min_cell else None
