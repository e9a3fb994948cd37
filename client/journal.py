"""The site's own record of what was asked of it and what it answered, one JSON line each.

It is the hospital's, it never leaves, and it holds no row of a patient. The running client reads it to
say what the site is doing; an auditor reads it afterwards.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path

from client.site import SiteConfig

FILE = "journal.jsonl"


class Event(StrEnum):
    """What a line of the journal tells."""

    STARTED = "started"
    WAITING = "waiting"
    CONNECTED = "connected"
    ASKED = "asked"
    ANSWERED = "answered"
    REFUSED = "refused"
    STOPPED = "stopped"


def journal_path(site: SiteConfig) -> Path:
    return site.state / FILE


def note(site: SiteConfig, event: Event, text: str, **details: str | int | float | None) -> None:
    """Append one line. `text` is the line for people; `details` are its parts for programs.

    A journal that cannot be written (a full disk) is said in the log and stops nothing.
    """
    line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "event": event, "text": text, **details}
    content = (json.dumps(line, ensure_ascii=False) + "\n").encode("utf-8")
    try:
        site.state.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(journal_path(site), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, content)  # one call: lines of two processes do not mix
        finally:
            os.close(descriptor)
    except OSError as fault:
        logging.getLogger("hymate").warning("journal not written (%s): %s", fault.strerror, text)


class Tail:
    """Lines that come after this object was made, each once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = path.stat().st_size if path.is_file() else 0
        self._rest = b""

    def fresh(self) -> Iterator[dict[str, object]]:
        """What was written since the last call; an incomplete last line waits for the next one."""
        if not self._path.is_file():
            return
        with self._path.open("rb") as file:
            file.seek(self._position)
            added = file.read()
        self._position += len(added)
        *lines, self._rest = (self._rest + added).split(b"\n")
        for line in lines:
            try:
                found = json.loads(line)
            except ValueError:  # what a full disk left of a line
                continue
            if isinstance(found, dict):
                yield found
