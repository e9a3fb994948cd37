"""The phases that set other models beside the federated one: the shared part of personal models, pooled
training, every site's own model at every site; and how they differ on the same stays.

None of them can end a study: an exchange that fails is a gap with its reason.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from hymate.data.vocabulary import Vocabulary
from hymate.errors import InputFault
from hymate.protocol import Action
from hymate.score_reports import Detail, ScoreReport
from hymate.scoring_protocol import CompareReply, CompareRequest, ModelKind, PairedDifference
from server.failure import StudyFailure
from server.run import Finetuned, Run
from server.scoring_phases import OwnModels, asked_once, score_whole
from server.study import StudyConfig
from strategies.arrays import Weights
from strategies.registry import algorithm_called
from strategies.screening import fault_of

Reports = Mapping[str, ScoreReport]
Differences = Mapping[tuple[ModelKind, ModelKind], Mapping[str, PairedDifference | None]]
AT_HOME = "its policy keeps its own model at home (policy.share_own_model)"

QUESTIONS: dict[tuple[ModelKind, ModelKind], str] = {
    ("federated", "local"): "what taking part is worth to a site",
    ("federated", "shared"): "what a site's own version of the model is worth to it",
    ("left_out", "local"): "whether a model from elsewhere does as well as a site's own",
    ("left_out", "federated"): "what the site's own stays in training are worth to it",
    ("pooled", "federated"): "what federating costs against all stays at one place",
}
"""The pairs that are compared, where a study has both models: the first less the second."""


@dataclass(frozen=True)
class Told:
    """What the sites told of one model, or why they did not."""

    reports: Reports = field(default_factory=dict)
    gap: str = ""


@dataclass(frozen=True)
class Matrix:
    """Each site's own model on every site's held-out stays."""

    cells: Mapping[str, Reports]
    """Site whose model it is -> site whose stays -> report."""
    gaps: Mapping[str, str] = field(default_factory=dict)
    """Site whose model was not scored elsewhere -> why."""


def shares_another(study: StudyConfig) -> bool:
    """Whether each site ends with a model of its own, and what all share is a whole model, too."""
    strategy = study.strategy.of("finetune")
    return algorithm_called(strategy.name).personal and not strategy.local_layers


def score_shared(run: Run, vocabulary: Vocabulary, tuned: Finetuned, detail: Detail) -> Told:
    """The model that all sites share, beside each site's own version."""
    return _tried(run, "shared", lambda: score_whole(run, vocabulary, tuned.weights, detail, "shared"))


def score_pooled(run: Run, vocabulary: Vocabulary, train: Callable[[], Weights], detail: Detail) -> Told:
    """A model of all sites' stays, which `train` makes."""
    return _tried(run, "pooled", lambda: score_whole(run, vocabulary, train(), detail, "pooled"))


def score_matrix(
    run: Run, vocabulary: Vocabulary, own: OwnModels, detail: Detail, expected: Weights
) -> Matrix:
    """Send each model that its site let go to every site.

    Args:
        expected: arrays of the shapes that a model has.
    """
    saved = run.checkpoints.latest("matrix")
    cells: dict[str, dict[str, ScoreReport]] = {}
    if saved is not None:
        cells = {
            model: {site: ScoreReport.model_validate(report) for site, report in reports.items()}
            for model, reports in saved.facts.items()
        }
    gaps: dict[str, str] = {}
    for model in own.replies:
        if model in cells:
            continue
        weights = own.weights.get(model)
        if weights is None:
            gaps[model] = AT_HOME
        elif wrong := fault_of(weights, expected, 1.0):
            gaps[model] = f"its model cannot be used: {wrong}"
        else:
            try:
                cells[model] = score_whole(run, vocabulary, weights, detail)
            except StudyFailure as failure:
                gaps[model] = str(failure)
        if model in gaps:
            run.journal.metric("matrix", "note", text=f"model of {model}: {gaps[model]}")
            continue
        facts = {name: {s: r.model_dump(mode="json") for s, r in of.items()} for name, of in cells.items()}
        run.complete("matrix", 0, facts)
    at_home = {model: {model: own.replies[model].held_out} for model in gaps}
    return Matrix({model: {**at_home, **cells}[model] for model in own.replies}, gaps)


def compare_models(run: Run, kinds: Collection[ModelKind]) -> Differences:
    """Pair -> site -> how the two differ on its held-out stays; None where the site cannot say.

    Where sites' reports are summed, or noised, there is none: it would tell of a site alone, and exactly.
    """
    pairs = tuple(pair for pair in QUESTIONS if set(pair) <= set(kinds))
    if not pairs or not run.study.tells_sums_of_rows:
        return {}
    saved = run.checkpoints.latest("compare")
    if saved is not None:
        replies = {site: CompareReply.model_validate(reply) for site, reply in saved.facts.items()}
    else:
        request = CompareRequest(study=run.study.name, run=run.id, task=run.study.task, pairs=pairs)
        try:
            told = run.federation.ask(Action.COMPARE, request, CompareReply)
        except StudyFailure as failure:
            run.journal.metric("compare", "note", text=f"no comparison: {failure}")
            return {}
        replies = {reply.site: reply.record for reply in told if len(reply.record.pairs) == len(pairs)}
        run.complete("compare", 0, {site: reply.model_dump(mode="json") for site, reply in replies.items()})
    return {
        pair: {site: reply.pairs[place] for site, reply in replies.items()}
        for place, pair in enumerate(pairs)
    }


def _tried(run: Run, phase: str, ask: Callable[[], dict[str, ScoreReport]]) -> Told:
    try:
        return Told(asked_once(run, phase, ask))
    except (StudyFailure, InputFault) as fault:
        run.journal.metric(phase, "note", text=f"no figures of this model: {fault}")
        return Told(gap=str(fault))
