"""A whole audit: attacks on a model, probes of updates like those it was made from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hymate.audit.attack import Attack, measure
from hymate.audit.people import People
from hymate.audit.shadows import ShadowSettings, confidence, likelihood_ratios, shadow_answers
from hymate.audit.update_probe import Leak, Round, can_probe, probe
from hymate.config import FinetuneConfig, load_yaml, parse
from hymate.errors import InputFault
from hymate.evaluate.bootstrap import BootstrapSettings
from hymate.train.alone import Progress
from hymate.train.run import RunFolder
from hymate.train.saved_model import SavedModel

STAYS, EPOCHS = 16, 5
"""Of the larger rounds that are probed."""


@dataclass(frozen=True)
class Claim:
    """The epsilon that a ledger or a study vouches for."""

    epsilon: float
    source: str


@dataclass(frozen=True)
class AuditSettings:
    """What is done besides the loss attack."""

    shadows: ShadowSettings | None
    trials: int
    """Updates of each kind that are probed; 0: none."""
    noise: float
    """Noise multiplier of the probed updates with noise."""
    delta: float
    bootstrap: BootstrapSettings
    seed: int = 0


@dataclass(frozen=True)
class Audit:
    """What was found."""

    model: str
    kind: str
    task: str
    members: int
    others: int
    delta: float
    attacks: tuple[Attack, ...]
    leaks: tuple[Leak, ...]
    shadows: int
    claim: Claim | None

    @property
    def epsilon_floor(self) -> float:
        return max(attack.epsilon_floor for attack in self.attacks)

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "kind": self.kind,
            "task": self.task,
            "people": {"members": self.members, "others": self.others},
            "delta": self.delta,
            "shadow_models": self.shadows,
            "attacks": [attack.to_json() for attack in self.attacks],
            "epsilon_floor": self.epsilon_floor,
            "claimed_epsilon": None if self.claim is None else vars(self.claim),
            "updates": [leak.to_json() for leak in self.leaks],
        }


def audit(
    saved: SavedModel,
    people: People,
    finetune: FinetuneConfig,
    settings: AuditSettings,
    work: Path,
    claim: Claim | None,
    done: Callable[[int, Progress | None], None],
) -> Audit:
    """Attack the model, then probe updates.

    Args:
        finetune: how updates, and shadow models, are trained.
        work: folder where trained shadow models are kept.
        done: hears of the shadow models (`hymate.audit.shadows.shadow_answers`).

    Raises:
        InputFault: the model is not of one boolean label.
    """
    if saved.task.kind != "binary":
        raise InputFault("--model", f"learned a {saved.task.kind} task", "audit a model of one boolean label")
    answers = confidence(saved, people)
    scores = {"loss threshold": answers}
    if settings.shadows is not None:
        shadows, within = shadow_answers(saved, people, settings.shadows, work, done)
        scores["likelihood ratio"] = likelihood_ratios(answers, shadows, within)
    attacks = [
        measure(name, score, people.member, settings.delta, settings.bootstrap)
        for name, score in scores.items()
    ]
    kinds = [
        Round(stays, epochs, noise)
        for noise in (0.0, settings.noise)
        for stays, epochs in ((1, 1), (STAYS, 1), (STAYS, EPOCHS))
    ]
    return Audit(
        model=saved.name,
        kind=saved.config.name,
        task=saved.task.name,
        members=int(people.member.sum()),
        others=int((~people.member).sum()),
        delta=settings.delta,
        attacks=tuple(attacks),
        leaks=tuple(
            probe(saved, people, finetune, kind, settings.trials, settings.seed)
            for kind in kinds
            if settings.trials and can_probe(saved)
        ),
        shadows=0 if settings.shadows is None else settings.shadows.number,
        claim=claim,
    )


def finetuning_of(run: Path) -> FinetuneConfig:
    """How the run was fine-tuned, as its training or study file says; the defaults where it has neither.

    Parts that need more than labels (teachers, further tasks) are left out.
    """
    for name in ("train.yaml", "study.yaml"):
        if (run / name).is_file():
            found = parse(FinetuneConfig, load_yaml(run / name).get("finetune", {}), run / name)
            return found.model_copy(update={"auxiliary": None, "soft_labels": None, "distillation": None})
    return FinetuneConfig()


def shadow_training(finetune: FinetuneConfig, epochs: int) -> FinetuneConfig:
    """The same in `epochs` at most, one a round."""
    planned = min(epochs, finetune.rounds * finetune.local_epochs)
    return finetune.model_copy(update={"rounds": planned, "local_epochs": 1})


def claim_of(run: Path) -> Claim | None:
    """The largest epsilon that the run's report has: as a hospital published it, else the study's target."""
    folder = RunFolder(run)
    privacy = (folder.report().get("privacy") if folder.finished else None) or {}
    spent = [site["spent"]["epsilon"] for site in privacy.get("sites", {}).values() if site.get("spent")]
    if spent and None not in spent:
        return Claim(max(spent), "the largest that a hospital's ledger has published")
    if privacy.get("target_epsilon"):
        return Claim(privacy["target_epsilon"], "the study's target")
    return None
