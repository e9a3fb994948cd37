"""What the coordinator knows of each site: its name, what it agreed to, how reliable it has been."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import BaseModel, Field

from hymate.joining_protocol import PrepareReply, SiteDescription
from hymate.protocol import Declaration, Spent
from server.participation import ParticipationConfig


class Standing(BaseModel):
    """One site's standing; written into every checkpoint."""

    description: SiteDescription | None = None
    prepared: PrepareReply | None = None
    """What it answered when it last agreed to the vocabulary."""
    ready: bool = False
    """It has agreed to the vocabulary, and nothing since says that it might have lost its store."""
    failures: int = 0
    """Rounds in a row without a usable reply."""
    waited: int = 0
    """Rounds in which it was not asked, since it was last asked."""
    folded: dict[str, int] = Field(default_factory=dict)
    """Phase -> the last round in which its reply was made part of the model."""
    noise: Declaration | None = None
    """What it declared of its updates; all that count declared the same."""
    noised: dict[str, int] = Field(default_factory=dict)
    """Phase -> rounds in which an update with noise, or one to whose mean noise was added, was made part of
    the model."""
    spent: Spent | None = None
    """The latest that it published."""


class Roster:
    """The sites of one study by node id, and by name once they are known.

    In a deployment `identities` says which node key belongs to which site: a node it does not name is
    no part of the study. In a simulation a node says its own name when it describes its data.
    """

    def __init__(
        self, rules: ParticipationConfig, expected: int, identities: Mapping[int, str] | None = None
    ) -> None:
        self.rules = rules
        self.expected = len(identities) if identities else expected
        self.deployed = bool(identities)
        self._name_of: dict[int, str] = dict(identities or {})
        self._standings: dict[str, Standing] = {}

    @property
    def standings(self) -> dict[str, Standing]:
        """Every site that ever described itself, in the order of names."""
        return {name: self._standings[name] for name in sorted(self._standings) if self._is_site(name)}

    @property
    def names(self) -> dict[int, str]:
        """Node id -> site, of those known."""
        return dict(self._name_of)

    def label(self, node: int) -> str:
        return self._name_of.get(node, f"node {node}")

    def of(self, node: int) -> Standing:
        return self._standings.setdefault(self.label(node), Standing())

    def members(self, present: Iterable[int]) -> list[int]:
        """Those of the nodes present that belong to the study, in the order of their names."""
        own = [node for node in present if not self.deployed or node in self._name_of]
        return sorted(own, key=lambda node: (self.label(node), node))

    def away(self, present: Iterable[int]) -> list[str]:
        """Names of the study's sites that are not connected."""
        there = set(present)
        return sorted(name for node, name in self._name_of.items() if node not in there)

    def introduced(self, node: int, description: SiteDescription) -> None:
        """The node described itself. Raises `ValueError` where the name belongs to another one."""
        name = description.site
        if self.deployed and name != self._name_of[node]:
            raise ValueError(f"calls itself '{name}', but its key belongs to '{self._name_of[node]}'")
        if any(other != node and taken == name for other, taken in self._name_of.items()):
            raise ValueError(f"two sites call themselves '{name}': give each its own name")
        if node not in self._name_of:
            stranger = self._standings.pop(self.label(node), Standing())
            self._name_of[node] = name
            # In a simulation that goes on, the site's own standing was read from the checkpoint.
            self._standings.setdefault(name, stranger)
        self.of(node).description = description

    def named(self, node: int) -> bool:
        """Whether the node's name is known: in a simulation only since it last described itself."""
        return node in self._name_of

    def description(self, site: str) -> SiteDescription | None:
        """What the site said that it holds."""
        return self._standings[site].description

    def known(self, node: int) -> bool:
        """Whether the node has said what it holds."""
        return node in self._name_of and self.of(node).description is not None

    def due(self, members: list[int], enough: Callable[[set[str]], bool]) -> tuple[list[int], list[int]]:
        """Which of the members to ask this round, and which to leave out.

        A site that failed `give_up_after` rounds running is asked only every `ask_again_every` rounds,
        unless those left are not `enough`.
        """
        rested = [node for node in members if self._rests(self.of(node))]
        asked = [node for node in members if node not in rested]
        if rested and not enough({self.label(node) for node in asked}):
            return members, []
        return asked, rested

    def doubt(self, node: int) -> None:
        """Something went wrong: whether the site still has its store is asked before the next step."""
        self.of(node).ready = False

    def settle(self, node: int, usable: bool) -> None:
        """A round that asked the site is over."""
        standing = self.of(node)
        standing.failures = 0 if usable else standing.failures + 1
        standing.waited = 0

    def counted(self, site: str, phase: str, server_round: int) -> None:
        """The site's reply was made part of the model."""
        self._standings[site].folded[phase] = server_round

    def noised(self, site: str, phase: str, declared: Declaration | None, spent: Spent | None) -> None:
        """What a site said of the noise of an update that was made part of the model."""
        if declared is not None:
            standing = self._standings[site]
            standing.noise, standing.spent = declared, spent or standing.spent
            standing.noised[phase] = standing.noised.get(phase, 0) + 1

    def noised_in_mean(self, phase: str, site: str) -> None:
        """The site's update was made part of a mean to which the coordinator added noise."""
        standing = self._standings[site]
        standing.noised[phase] = standing.noised.get(phase, 0) + 1

    def dump(self) -> dict[str, Any]:
        """Standings by name, as JSON holds them. Node ids are left out: a restart may change them."""
        return {name: standing.model_dump(mode="json") for name, standing in self.standings.items()}

    def restore(self, content: Mapping[str, Any]) -> None:
        self._standings = {name: Standing.model_validate(value) for name, value in content.items()}

    def _is_site(self, label: str) -> bool:
        return not label.startswith("node ") and self._standings[label] != Standing()

    def _rests(self, standing: Standing) -> bool:
        return (
            standing.failures >= self.rules.give_up_after and standing.waited < self.rules.ask_again_every - 1
        )
