"""How a study ends that cannot be carried to its report."""

from __future__ import annotations


class StudyFailure(Exception):
    """The study cannot go on; the message is the cause in one line."""
