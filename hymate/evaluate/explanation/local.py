"""Why the model says what it says of one stay, as numbers: the content of explanation.json."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import torch

from hymate.data.batching import collate
from hymate.data.store import TripletStore
from hymate.errors import InputFault
from hymate.evaluate.explanation.attention import CAVEAT, fusion_weights
from hymate.evaluate.explanation.attribution import Attributions, integrated_gradients
from hymate.evaluate.explanation.pathway import Pathway, reference_words
from hymate.evaluate.explanation.units import measured_value, titled
from hymate.train.placement import device_of, mode, on_device
from hymate.train.saved_model import SavedModel

FORMAT = 1
INSIDE = "for the hospital only: this is the record of one patient"


@dataclass(frozen=True)
class Observation:
    """hours: since the window's start; value: in the feature's unit, null for an event without a number.

    measured, found: attribution of its having been measured, and of its value; summary: what of both came
    through the summary branch (`sharing`); attention: null for a model without fusion attention.
    """

    hours: float
    code: str
    value: float | None
    measured: float
    found: float
    summary: float
    attention: float | None

    @property
    def total(self) -> float:
        return self.measured + self.found


@dataclass(frozen=True)
class Feature:
    """One code of the record."""

    code: str
    title: str
    observations: tuple[Observation, ...]

    @property
    def total(self) -> float:
        return math.fsum(each.total for each in self.observations)


@dataclass(frozen=True)
class Static:
    """One demographic feature; value: null where it is a category or was not recorded."""

    code: str
    title: str
    value: float | None
    recorded: bool
    total: float


@dataclass(frozen=True)
class StayExplanation:
    """Attributions of one stay, features and demographics by |total|, largest first.

    output, reference: log odds, or the label's unit where it is a number. `unexplained` is what
    quadrature left over: the totals of features and demographics, added up, are output - reference +
    unexplained.
    """

    study: str
    task: str
    kind: str
    subject_id: int
    prediction_time: datetime
    lookback_hours: float
    output: float
    reference: float
    unexplained: float
    explains_measuring: bool
    has_attention: bool
    features: tuple[Feature, ...]
    static: tuple[Static, ...]

    @property
    def is_probability(self) -> bool:
        return self.kind != "regression"

    @property
    def reference_means(self) -> str:
        """What the reference is, as the end of a sentence."""
        return reference_words(self.explains_measuring)

    @property
    def reference_short(self) -> str:
        """The same for a caption."""
        if self.explains_measuring:
            return "an average patient, measured as often, nothing in particular"
        return "an average patient, every value at its average"

    def to_json(self) -> dict[str, Any]:
        """JSON-ready; every number of picture and page stands here."""
        content: dict[str, Any] = {
            "format": FORMAT,
            "note": INSIDE,
            "study": self.study,
            "task": self.task,
            "kind": self.kind,
            "subject_id": self.subject_id,
            "prediction_time": self.prediction_time.isoformat(),
            "lookback_hours": self.lookback_hours,
            "method": "integrated gradients (arXiv 1703.01365)",
            "unit": "log odds" if self.is_probability else "unit of the label",
            "output": self.output,
            "reference": self.reference,
            "reference_is": self.reference_means,
            "unexplained": self.unexplained,
        }
        if self.is_probability:
            content["probability"] = probability(self.output)
            content["reference_probability"] = probability(self.reference)
        if self.has_attention:
            content["attention_caveat"] = CAVEAT
        content["features"] = [
            {
                "code": feature.code,
                "title": feature.title,
                "total": feature.total,
                "observations": [asdict(each) for each in feature.observations],
            }
            for feature in self.features
        ]
        content["static"] = [asdict(each) for each in self.static]
        return content


def probability(log_odds: float) -> float:
    """sigmoid."""
    return 1 / (1 + math.exp(-log_odds)) if log_odds > -700 else 0.0


def explain_stay(
    saved: SavedModel,
    store: TripletStore,
    row: int,
    *,
    label: str = "",
    described: dict[str, str] | None = None,
) -> StayExplanation:
    """Explain the model's answer to the stay in `row` of a store made under the model's vocabulary.

    Args:
        label: which label set, where the model learned several.
        described: code -> words for it.

    Raises:
        InputFault: `label` is none that the model learned.
    """
    target = target_of(saved, label)
    batch = on_device(collate(store, np.array([row])), device_of(saved.model))
    with mode(saved.model, training=False), torch.enable_grad():
        made = integrated_gradients(Pathway(saved.model, saved.vocabulary.size), batch, target=target)
        attention = fusion_weights(saved.model, batch)
    if saved.scale is not None:
        made = made.times(saved.scale.std, saved.scale.mean)
    when = datetime(1970, 1, 1) + timedelta(microseconds=int(store.prediction_time[row]))
    weights = None if attention is None else attention[0]
    return StayExplanation(
        study=saved.name,
        task=label or saved.task.label_sets[0],
        kind=saved.task.kind,
        subject_id=int(store.subject_id[row]),
        prediction_time=when,
        lookback_hours=saved.task.lookback_hours,
        output=float(made.output[0]),
        reference=float(made.reference[0]),
        unexplained=float(made.gap[0]),
        explains_measuring=Pathway(saved.model, saved.vocabulary.size).explains_measuring,
        has_attention=weights is not None,
        features=_features(saved, store, row, made, weights, described or {}),
        static=_static(saved, store, row, made, described or {}),
    )


def target_of(saved: SavedModel, label: str) -> int | None:
    """Which of the model's answers `label` is; None where it has one.

    Raises:
        InputFault: the model learned no such label, or several and none is named.
    """
    learned = saved.task.label_sets
    if len(learned) == 1:
        if label and label != learned[0]:
            raise InputFault("--label", f"the model did not learn '{label}'", f"it learned {learned[0]}")
        return None
    if label not in learned:
        what = f"the model did not learn '{label}'" if label else "the model learned several labels"
        raise InputFault("--label", what, f"name one of {', '.join(learned)}")
    return learned.index(label)


def _features(
    saved: SavedModel,
    store: TripletStore,
    row: int,
    made: Attributions,
    weights: Any,
    described: dict[str, str],
) -> tuple[Feature, ...]:
    places = range(int(store.offset[row]), int(store.offset[row + 1]))
    rows: dict[int, list[Observation]] = {}
    for i, place in enumerate(places):
        index = int(store.code[place])
        entry = saved.vocabulary.codes[index - 1]
        rows.setdefault(index, []).append(
            Observation(
                hours=float(store.time[place]),
                code=entry.code,
                value=measured_value(entry, float(store.value[place])),
                measured=float(made.measured[0, i]),
                found=float(made.found[0, i]),
                summary=float(made.summary[0, i]),
                attention=None if weights is None else float(weights[i]),
            )
        )
    features = []
    for index, observations in rows.items():
        entry = saved.vocabulary.codes[index - 1]
        title = titled(entry.code, entry.unit, described.get(entry.code))
        features.append(Feature(entry.code, title, tuple(observations)))
    return tuple(sorted(features, key=lambda feature: -abs(feature.total)))


def _static(
    saved: SavedModel, store: TripletStore, row: int, made: Attributions, described: dict[str, str]
) -> tuple[Static, ...]:
    """A numeric code's two columns (value, missing) are one feature; a category that the patient is not in
    has no attribution and is left out."""
    found, column = [], 0
    for entry in saved.vocabulary.static:
        title = titled(entry.code, entry.unit, described.get(entry.code))
        if entry.numeric:
            total = float(made.static[0, column] + made.static[0, column + 1])
            recorded = bool(store.static[row, column + 1] == 0.0)
            value = measured_value(entry, float(store.static[row, column])) if recorded else None
            found.append(Static(entry.code, title, value, recorded, total))
            column += 2
        else:
            if store.static[row, column] != 0.0:
                found.append(Static(entry.code, title, None, True, float(made.static[0, column])))
            column += 1
    return tuple(sorted(found, key=lambda each: -abs(each.total)))
