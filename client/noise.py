"""A round with noise at the site: what it costs is charged first, and nothing is trained without its key.

The noise is the study's multiplier, or the one that keeps all planned steps of both phases, at this site's
sampling rates, within the study's `target_epsilon`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from client.agreed import fingerprint_of
from client.ledger import Ledger
from client.ledger_entry import Entry, machine_of, start_of
from client.local_round import Phase, phase_of
from client.site import SiteConfig
from client.solved_noise import solved_noise
from hymate.data.store import TripletStore
from hymate.errors import SAME_RELEASE, InputFault
from hymate.model.hymate import HyMaTE
from hymate.privacy.accounting import account
from hymate.privacy.spend import SAMPLED_GAUSSIAN, Spend
from hymate.protocol import Declaration, FinetuneRequest, NoisePlan, PretrainRequest, Spent
from hymate.train.loop import EpochResult, LocalHook
from hymate.train.noise import derived_key
from hymate.train.per_sample import unknown_layers
from hymate.train.poisson import Sampling
from hymate.train.private import (
    PrivateResult,
    finetuning_sampling,
    pretraining_sampling,
    private_finetune_epochs,
    private_pretrain_epochs,
)
from hymate.train.private_optimiser import Mechanism
from strategies.arrays import Weights
from strategies.registry import demand_under_noise, make_algorithm


class NoisyRound:
    """One round's noise. `charge` comes first; there is no key before."""

    def __init__(
        self,
        site: SiteConfig,
        request: PretrainRequest | FinetuneRequest,
        model: HyMaTE,
        store: TripletStore,
    ) -> None:
        """Raises `InputFault` for a round that cannot be given with noise, before it costs anything."""
        self._site, self._request, self._store = site, request, store
        self._phase, config = phase_of(request)
        self._key: bytes | None = None
        self._norms: dict[str, float] = {}
        plan = _checked_plan(site, request)
        if unknown := unknown_layers(model):
            raise InputFault(
                f"site {site.name}",
                f"knows no gradient by patient for {len(unknown)} layers, {unknown[0]} among them",
                "leave the part out, or ask without noise",
            )
        self._samplings: dict[Phase, Sampling] = {
            "pretrain": pretraining_sampling(store, plan.pretrain),
            "finetune": finetuning_sampling(store, plan.finetune),
        }
        if not self._samplings[self._phase].subjects:
            raise InputFault(
                f"site {site.name}", "no training stay can be used", "check the task's labels and window"
            )
        multiplier = request.privacy.noise_multiplier
        self._noise = self._solved(plan) if multiplier is None else multiplier
        sampling = self._samplings[self._phase]
        steps = sampling.steps * config.local_epochs * plan.trainings[self._phase]
        self._spend = Spend(SAMPLED_GAUSSIAN, sampling.rate, self._noise, steps)
        self._left = steps

    @property
    def declaration(self) -> Declaration | None:
        return Declaration.of(self._request.privacy)

    @property
    def norms(self) -> dict[str, Tensor]:
        """Clipping norms to go on from in the next round, where they adapt."""
        return {name: torch.tensor(norm, dtype=torch.float64) for name, norm in self._norms.items()}

    def charge(self, norms: Mapping[str, Tensor], *arrays: Weights) -> None:
        """Enter the round in the site's ledger; from here on it can be trained.

        Args:
            norms: as the last round that counted left them.
            arrays: all that the round's steps begin with, the norms among it.

        Raises:
            InputFault: the budget, the ledger or the secret does not allow it.
        """
        request, site = self._request, self._site
        self._norms = {name: float(norm) for name, norm in norms.items()}
        self._key = Ledger(site).charge(
            Entry(
                study=request.study,
                run=request.run,
                phase=self._phase,
                round=request.round,
                start=start_of(site, request, *arrays, machine=machine_of()),
                vocabulary_hash=request.vocabulary_hash,
                dataset=fingerprint_of(site, request.task),
                spend=self._spend,
            )
        )

    def train(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        hook: LocalHook | None,
        first: int,
        epochs: int,
        name: str,
    ) -> EpochResult:
        """Epochs of the round's phase; name: of the model that is trained, the shared one or the site's."""
        request, trained = self._request, cast(HyMaTE, model)
        mechanism, key = self._mechanism(name), self._key_of(name)
        if isinstance(request, PretrainRequest):
            done = private_pretrain_epochs(
                trained,
                self._store,
                request.pretrain,
                optimiser,
                mechanism,
                key=key,
                first_epoch=first,
                epochs=epochs,
                hook=hook,
            )
        else:
            done = private_finetune_epochs(
                trained,
                self._store,
                request.finetune,
                optimiser,
                mechanism,
                positive_weight=request.positive_weight,
                key=key,
                first_epoch=first,
                epochs=epochs,
                hook=hook,
            )
        return self._within_what_was_charged(done, name)

    def spent(self) -> Spent | None:
        """What the study has cost so far, where the site's policy publishes it."""
        policy = self._site.policy.privacy
        if policy is None or not policy.publish_epsilon:
            return None
        entries = [each.entry for each in Ledger(self._site).entries()]
        spends = [entry.spend for entry in entries if entry.study == self._request.study]
        epsilon = account(spends, policy.delta).epsilon
        return Spent(epsilon=round(epsilon, 4) if np.isfinite(epsilon) else None, delta=policy.delta)

    def _solved(self, plan: NoisePlan) -> float:
        privacy = self._request.privacy
        assert privacy.target_epsilon is not None  # that or a multiplier
        configs: dict[Phase, int] = {
            "pretrain": plan.pretrain.rounds * plan.pretrain.local_epochs,
            "finetune": plan.finetune.rounds * plan.finetune.local_epochs,
        }
        planned = [
            (self._samplings[phase].rate, self._samplings[phase].steps * epochs * plan.trainings[phase])
            for phase, epochs in configs.items()
        ]
        return solved_noise(self._site, privacy.target_epsilon, privacy.delta, planned)

    def _mechanism(self, name: str) -> Mechanism:
        privacy = self._request.privacy
        return Mechanism(self._noise, self._norms.get(name, privacy.max_grad_norm), privacy.clipping)

    def _key_of(self, name: str) -> bytes:
        if self._key is None:
            raise AssertionError("nothing is trained with noise before it was charged")
        return derived_key(self._key, "training", name)

    def _within_what_was_charged(self, done: PrivateResult, name: str) -> EpochResult:
        """Fewer steps than were entered, or as many: else nothing of the round leaves."""
        self._left -= done.spend.steps
        if replace(done.spend, steps=self._spend.steps) != self._spend or self._left < 0:
            raise AssertionError("trained otherwise than was charged")
        if self._request.privacy.clipping == "adaptive":
            self._norms[name] = done.max_grad_norm
        return done.epochs


def _checked_plan(site: SiteConfig, request: PretrainRequest | FinetuneRequest) -> NoisePlan:
    """The plan, if it is that of this very round and all of it can be covered by noise."""
    where, plan = f"site {site.name}", request.plan
    if plan is None:
        raise InputFault(where, "is asked for noise without a plan of the study's rounds", SAME_RELEASE)
    phase, asked = phase_of(request)
    own = plan.pretrain if phase == "pretrain" else plan.finetune
    half = make_algorithm(request.strategy, where).site_half()
    trainings = 1 if half is None else half.trainings(phase)
    if own != asked or set(plan.trainings) != {"pretrain", "finetune"} or plan.trainings[phase] != trainings:
        raise InputFault(where, "is asked for another round than the study's plan has", SAME_RELEASE)
    if request.round > own.rounds:
        raise InputFault(where, f"is asked for round {request.round} of {own.rounds} planned", SAME_RELEASE)
    try:
        request.privacy.demand_soundness(plan.finetune)
    except ValueError as fault:
        raise InputFault(where, str(fault), "see docs/privacy.md") from None
    demand_under_noise(request.strategy, where)
    return plan
