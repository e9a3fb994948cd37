"""The phases before any training: which sites there are, the vocabulary they agree on, the first weights."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from hymate.data.statistics import SiteStatistics
from hymate.data.vocabulary import Vocabulary, build_vocabulary, mapping_lines
from hymate.evaluate.group_members import recorded
from hymate.joining_protocol import PrepareReply, PrepareRequest, StatisticsReply, StatisticsRequest
from hymate.model.hymate import HyMaTE, build_model
from hymate.protocol import Action
from server.run import Run
from server.study import StudyConfig
from strategies.arrays import Weights


@dataclass(frozen=True)
class Agreement:
    """The vocabulary, what each site had said of its codes, and how its store came out."""

    vocabulary: Vocabulary
    statistics: Mapping[str, SiteStatistics]
    prepared: Mapping[str, PrepareReply]
    """Of the sites that agreed in time; `Federation.prepared` also has those that came later."""


def describe(run: Run) -> None:
    """Learn which sites there are and what they hold."""
    if run.checkpoints.latest("describe") is None and not run.federation.descriptions:
        run.federation.join()
        run.complete("describe", 0)


def agree_vocabulary(run: Run, told: Mapping[str, SiteStatistics] | None = None) -> Agreement:
    """Merge the sites' statistics, freeze the vocabulary, have every site make its store under it.

    Args:
        told: the statistics, where the sites have given them before.
    """
    saved = run.checkpoints.latest("vocabulary")
    if saved is not None:
        statistics = {
            site: SiteStatistics.from_json(text) for site, text in saved.facts["statistics"].items()
        }
        vocabulary = Vocabulary.from_json(saved.facts["vocabulary"])
    else:
        statistics = _asked_statistics(run) if told is None else dict(told)
        vocabulary = build_vocabulary(statistics, run.study.vocabulary)
    vocabulary.save(run.folder / "vocabulary.json")
    run.federation.freeze(preparation(run.study, vocabulary))
    if saved is None:
        run.federation.agree()
        run.journal.metric(
            "vocabulary",
            "frozen",
            codes=vocabulary.size,
            dropped=len(vocabulary.dropped),
            hash=vocabulary.hash,
        )
        for text in _groups_of_nobody(run.study, vocabulary):
            run.journal.metric("vocabulary", "note", text=text)
        said = {site: of.to_json() for site, of in statistics.items()}
        run.complete("vocabulary", 0, {"vocabulary": vocabulary.to_json(), "statistics": said})
    return Agreement(vocabulary, statistics, run.federation.prepared)


def preparation(study: StudyConfig, vocabulary: Vocabulary) -> PrepareRequest:
    """What a site is asked to make its store under."""
    return PrepareRequest(
        task=study.task,
        vocabulary=vocabulary.to_json(),
        vocabulary_hash=vocabulary.hash,
        noisy=study.noisy_counts,
    )


def _groups_of_nobody(study: StudyConfig, vocabulary: Vocabulary) -> Iterator[str]:
    """A line for every attribute of `evaluation.groups` of which no site told a code: its name may be
    misspelt, and the report would only lack it."""
    told = {entry.code for entry in vocabulary.static} | {entry.code for entry in vocabulary.dropped}
    for attribute in study.evaluation.groups:
        if not recorded(attribute, told):
            known = sorted({entry.code.split("//")[0] for entry in vocabulary.static})
            near = difflib.get_close_matches(attribute.code, known, n=1)
            hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(known) or 'none'}"
            yield f"evaluation.groups: no hospital told of '{attribute.code}', nobody will be in it; {hint}"


def _asked_statistics(run: Run) -> dict[str, SiteStatistics]:
    request = StatisticsRequest(
        task=run.study.task, mapping=mapping_lines(run.study.vocabulary), noisy=run.study.noisy_counts
    )
    replies = run.federation.ask(Action.STATISTICS, request, StatisticsReply)
    return {reply.site: SiteStatistics.from_json(reply.record.statistics) for reply in replies}


def first_model(study: StudyConfig, vocabulary: Vocabulary) -> HyMaTE:
    """The model every run with this seed starts from."""
    return build_model(
        study.model,
        codes=vocabulary.size,
        static_width=vocabulary.static_width,
        time_scale_hours=study.task.lookback_hours,
        seed=study.seed,
    )


def weights_of(model: HyMaTE) -> Weights:
    """A copy of the model's weights: the model may change after."""
    return {name: tensor.detach().numpy().copy() for name, tensor in model.state_dict().items()}
