"""One line of the preflight: what was looked at, how it is, what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum

from hymate.errors import InputFault


class Status(StrEnum):
    """`fail`: a study would not work, or would not be safe. `warn`: it may, and someone should look."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Line:
    """A finding; `remedy` is empty where nothing is to be done."""

    name: str
    status: Status
    what: str
    remedy: str = ""

    def __str__(self) -> str:
        first = f"{self.status:<5} {self.name:<18} {self.what}"
        return f"{first}\n{'':<25}-> {self.remedy}" if self.remedy else first

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def ok(name: str, what: str) -> Line:
    return Line(name, Status.OK, what)


def warn(name: str, what: str, remedy: str) -> Line:
    return Line(name, Status.WARN, what, remedy)


def fail(name: str, what: str, remedy: str) -> Line:
    return Line(name, Status.FAIL, what, remedy)


def guarded(name: str, check: Callable[[], Iterable[Line]]) -> Iterator[Line]:
    """The lines of a check; a fault in it becomes a failing line instead of an end."""
    try:
        yield from check()
    except InputFault as fault:
        yield fail(name, f"{fault.where}: {fault.what}", fault.remedy)
    except OSError as fault:  # a folder that is none, a full disk, a permission
        where = f"{fault.filename}: " if fault.filename else ""
        yield fail(name, f"{where}{fault.strerror or fault}", "mend the folder or the file, then check again")


def plural(count: int, noun: str) -> str:
    """
    >>> plural(1, "day"), plural(1200, "stay")
    ('1 day', '1,200 stays')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
