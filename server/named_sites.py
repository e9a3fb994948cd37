"""Names and numbers of sites in a study file, outside of `federation.sites` and `simulation.sites`."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from hymate.errors import InputFault
from server.study import StudyConfig
from strategies.registry import demand_sites


def demand_named_sites(study: StudyConfig, sites: Collection[str], kind: str) -> None:
    """Before anything starts: names in the study are those of sites, who must have a number has one, and
    there are enough sites for the rounds, the vocabulary and the algorithms.

    Args:
        kind: what a site is called to the user, such as `hospital of this simulation`.

    Raises:
        InputFault: `participation.required` or a `weighting` names no site, a weighting gives none for
            one, or a round, a code of the vocabulary or an algorithm needs more sites than these.
    """
    known = f"name some of: {', '.join(sorted(sites))}"
    for key, names in {"participation.required": study.participation.required, **_weights(study)}.items():
        strangers = sorted(set(names) - set(sites))
        if strangers:
            raise InputFault(key, f"'{strangers[0]}' is no {kind}", known)
    for key, names in _weights(study).items():
        missing = sorted(set(sites) - set(names))
        if missing:
            raise InputFault(key, f"gives no number for site '{missing[0]}'", "give one for every site")
    study.participation.demand_enough(len(sites))
    train = len(sites)
    if study.evaluation.leave_one_site_out:
        train -= 1
        if train < 2:
            raise InputFault(
                "evaluation.leave_one_site_out",
                f"leaves {train} of {len(sites)} sites, whose own model the other one would be given",
                "set it to false, or add sites: three or more",
            )
    if study.vocabulary.min_sites > train:
        what = f"keeps codes of {study.vocabulary.min_sites} sites or more, and {train} agree on a vocabulary"
        raise InputFault("vocabulary.min_sites", what, "lower it, or add sites")
    demand_sites(study.strategy.of("pretrain"), train)
    demand_sites(study.strategy.of("finetune"), train)


def _weights(study: StudyConfig) -> dict[str, Collection[str]]:
    """Names in weightings that are given by site, by their place in the study file."""
    found: dict[str, Collection[str]] = {}
    strategy = study.strategy
    if isinstance(strategy.weighting, Mapping):
        found["strategy.weighting"] = strategy.weighting
    if strategy.pretrain is not None and isinstance(strategy.pretrain.weighting, Mapping):
        found["strategy.pretrain.weighting"] = strategy.pretrain.weighting
    return found
