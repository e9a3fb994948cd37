"""Updates that wait for the end of their round, on disk: memory does not grow with the number of sites."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator

from safetensors.numpy import load, save

from strategies.base import Arrays


class HeldUpdates:
    """Arrays by site in one temporary file, which has no name: it is gone with the process."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the round)
        self._places: dict[str, tuple[int, int]] = {}

    def hold(self, site: str, arrays: Arrays) -> None:
        """Keep one site's."""
        content = save(arrays)
        place = self._file.seek(0, 2)
        self._file.write(content)
        self._places[site] = (place, len(content))

    def among(self, sites: list[str]) -> Iterator[tuple[str, Arrays]]:
        """Those of the sites whose arrays are kept, with them, one at a time."""
        for site in sites:
            if site in self._places:
                place, length = self._places[site]
                self._file.seek(place)
                yield site, load(self._file.read(length))

    def close(self) -> None:
        """Forget them."""
        self._file.close()
