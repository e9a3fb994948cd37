"""How the federated model does beside others, and where it did not learn: all that a study asks of that."""

from __future__ import annotations

from dataclasses import dataclass, replace

from hymate.data.vocabulary import Vocabulary
from hymate.score_reports import Detail
from hymate.scoring_protocol import ModelKind
from server.comparison_phases import (
    Differences,
    Matrix,
    Reports,
    Told,
    compare_models,
    score_matrix,
    score_pooled,
    score_shared,
    shares_another,
)
from server.leave_one_out import LeftOut, leave_each_out
from server.phases import Agreement, weights_of
from server.pooled_training import pooled_windows, simulated_data, train_pooled
from server.run import Run
from server.scoring_phases import OwnModels, train_alone
from server.training_phases import Trained
from strategies.arrays import Weights


@dataclass(frozen=True)
class Generalisation:
    """What was found; None where the study does not ask."""

    own: OwnModels
    shared: Told | None
    pooled: Told | None
    matrix: Matrix | None
    left_out: LeftOut | None
    compared: Differences

    def models(self, federated: Reports) -> dict[ModelKind, Reports]:
        """Held-out reports by model and site, of every model that the study asked for."""
        found: dict[ModelKind, Reports] = {"federated": federated}
        if self.shared is not None:
            found["shared"] = self.shared.reports
        if self.own.replies:
            found["local"] = {site: reply.held_out for site, reply in self.own.replies.items()}
        if self.left_out is not None:
            found["left_out"] = {site: of.held_out for site, of in self.left_out.tested.items()}
        if self.pooled is not None:
            found["pooled"] = self.pooled.reports
        return found


def generalise(
    run: Run, agreement: Agreement, trained: Trained, detail: Detail, held_out: Reports
) -> Generalisation:
    """Train and score what the study's `evaluation:` section asks for beside the federated model."""
    asked, vocabulary = run.study.evaluation, agreement.vocabulary
    own, shared, pooled, matrix, left_out = OwnModels({}, {}), None, None, None, None
    if asked.local_baseline:
        run.begin("alone")
        own = train_alone(run, vocabulary, trained.first, detail)
    if shares_another(run.study):
        run.begin("shared")
        shared = score_shared(run, vocabulary, trained.tuned, detail)
    if asked.pooled_baseline:
        run.begin("pooled")
        pooled = score_pooled(run, vocabulary, lambda: _pooled_weights(run, vocabulary), detail)
    if asked.cross_site_matrix:
        run.begin("matrix")
        matrix = score_matrix(run, vocabulary, own, detail, trained.first)
    if asked.leave_one_site_out:
        run.begin("left_out")
        left_out = leave_each_out(run, agreement.statistics)
    found = Generalisation(own, shared, pooled, matrix, left_out, {})
    kinds = [kind for kind, reports in found.models(held_out).items() if reports]
    if len(kinds) > 1:
        run.begin("compare")
        found = replace(found, compared=compare_models(run, kinds))
    return found


def _pooled_weights(run: Run, vocabulary: Vocabulary) -> Weights:
    windows = pooled_windows(run.study, vocabulary, simulated_data(run.folder))
    return weights_of(train_pooled(run.study, vocabulary, windows, run.folder / "pooled").model)
