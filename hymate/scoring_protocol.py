"""What coordinator and site say to each other of models to score, recalibrate and compare."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hymate.config import Frozen, Positive, TaskConfig
from hymate.protocol import GoingOn
from hymate.score_reports import Detail, ScoreReport
from hymate.strategy_config import StrategyConfig

ModelKind = Literal["federated", "shared", "local", "left_out", "pooled"]
"""What a study ends with (under a personal strategy, each site's own version of it); the part that all sites
share, where that is another whole model; a site's own, trained on its stays alone; federated, without the
site; trained on all sites' stays at one place."""


class KeptScores(Frozen):
    """Under which run and name a site keeps a model's scores of its held-out stays, for `CompareRequest`."""

    run: str
    kind: ModelKind


class EvaluateRequest(GoingOn):
    split: Literal["tuning", "held_out", "development"]
    """development: training and tuning stays together, of a site that was left out."""
    keep: KeptScores | None = None
    detail: Detail | None = None
    """None: no groups, and bins between `hymate.evaluate.edges.first_edges`."""
    batch_size: int = 64
    personal: StrategyConfig | None = None
    """Where sites have weights of their own: the strategy of fine-tuning, and ..."""
    round: int = 0
    """... the round of it whose weights are scored."""
    noise_multiplier: Positive | None = None
    """Of the noise on the figures, which the site charges first; None: they are wanted as they are."""


class RecalibrateRequest(EvaluateRequest):
    """Sums for one Newton step of the recalibration of the same stays under the same weights."""

    points: dict[str, list[tuple[float, float]]]
    """Group ("": all stays) -> (intercept, slope) at which sums are wanted."""


class CompareRequest(Frozen):
    """How pairs of models, whose scores the site has kept, differ on its held-out stays."""

    study: str
    run: str
    task: TaskConfig
    pairs: tuple[tuple[ModelKind, ModelKind], ...]


class EvaluateReply(Frozen):
    site: str
    split: str
    report: ScoreReport


class RecalibrateReply(Frozen):
    site: str
    sums: dict[str, list[tuple[float, float, float, float, float, float]]]
    """Per group asked about and told: log likelihood, gradient (2), information (3) at each point."""


class PairedDifference(Frozen):
    """AUROC of the first model less that of the second on the same stays, and DeLong's variance of it."""

    value: Annotated[float, Field(ge=-1.0, le=1.0, allow_inf_nan=False)]
    variance: Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class CompareReply(Frozen):
    site: str
    pairs: tuple[PairedDifference | None, ...]
    """In the order asked; None where the site has not scored both models, or a class is too small to name."""
