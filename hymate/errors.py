"""Faults a user can mend, said in one line."""

from __future__ import annotations

from pathlib import Path

SAME_RELEASE = "run the same hymate-federated release at both ends"
"""The remedy where a message is not as this release would have sent it."""


class InputFault(Exception):
    """Something the user gave (a file, a row, a key) cannot be used.

    Commands print it as one line and exit with code 2; no traceback. Say *where* (file, row, key),
    *what* is wrong with the value found there, and the *remedy*.

    >>> str(InputFault("study.yaml", "key 'epoch' does not exist", "did you mean 'epochs'?"))
    "study.yaml: key 'epoch' does not exist; did you mean 'epochs'?"
    """

    def __init__(self, where: str | Path, what: str, remedy: str) -> None:
        super().__init__(f"{where}: {what}; {remedy}")
        self.where = str(where)
        self.what = what
        self.remedy = remedy

    def __reduce__(self) -> tuple[type[InputFault], tuple[str, str, str]]:
        # Exceptions pickle by their args; ours has three, and it crosses process boundaries.
        return (InputFault, (self.where, self.what, self.remedy))
