"""Integrated gradients of stays: how much each observation moved the model's answer, and which way.

Sundararajan, Taly, Yan, "Axiomatic attribution for deep networks", 2017, arXiv 1703.01365; computed by
captum (https://captum.ai/api/integrated_gradients.html), Gauss-Legendre quadrature. The way from the
reference to the stay, and why: `hymate.evaluate.explanation.pathway`.

An attribution is in the unit of the answer: log odds for a label, the label's own unit for a number.
Positive: towards the label (towards risk), or towards a larger number.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hymate.data.batching import TripletBatch
from hymate.evaluate.explanation.pathway import Part, Pathway

Floats = NDArray[np.float64]

FIRST_STEPS = 32
MOST_STEPS = 1024
AT_ONCE = 128
"""Stays x steps that go through the model together, at most (a batch larger than that goes whole)."""


@dataclass(frozen=True)
class Attributions:
    """Of B stays. Adding up the first three over each stay gives `output - reference`, but for `gap`.

    | field     | shape  | meaning                                                                   |
    |-----------|--------|---------------------------------------------------------------------------|
    | measured  | (B, L) | that this was measured then; 0 at padding                                 |
    | found     | (B, L) | that the value was what it was; 0 at padding                              |
    | static    | (B, S) | demographics                                                              |
    | summary   | (B, L) | what of `measured + found` came through the summary branch                |
    | output    | (B,)   | the model's answer                                                        |
    | reference | (B,)   | its answer at the reference                                               |
    | gap       | (B,)   | what the quadrature left: sum of attributions - difference                |
    """

    measured: Floats
    found: Floats
    static: Floats
    summary: Floats
    output: Floats
    reference: Floats
    gap: Floats

    def times(self, scale: float, shift: float) -> Attributions:
        """In another unit: shift + scale x the model's output."""
        scaled = {field.name: getattr(self, field.name) * scale for field in fields(self)}
        moved = {name: scaled[name] + shift for name in ("output", "reference")}
        return Attributions(**{**scaled, **moved})


def integrated_gradients(
    pathway: Pathway,
    batch: TripletBatch,
    *,
    target: int | None,
    tolerance: float = 1e-3,
    first_steps: int = FIRST_STEPS,
) -> Attributions:
    """Attribute the model's answer to each stay of `batch`.

    Args:
        target: which of K answers; None where there is one.
        tolerance: steps are doubled until no stay's |gap| of a part exceeds this, or there are
            `MOST_STEPS`; `gap` says what is left.
        first_steps: points of the quadrature to begin with.

    The model is expected in evaluation mode; its parameters' gradients are not touched.
    """
    by_part = {"measured": np.zeros(batch.mask.shape), "found": np.zeros(batch.mask.shape)}
    static, summary = np.zeros(batch.static.shape), np.zeros(batch.mask.shape)
    parts = pathway.parts(batch)
    ends, gaps = [], []
    for name, part in zip(("measured", "found")[-len(parts) :], parts, strict=True):
        amounts, begin, end, gap = _integrate(part, target, tolerance, first_steps)
        for moved, amount in zip(part.names, amounts, strict=True):
            if moved == "static":
                static = _array(amount)
            elif moved == "figures":
                share = _array(pathway.to_observations(amount, batch))
                by_part[name] += share
                summary += share
            else:
                by_part[name] += _array(amount.sum(dim=2) if amount.dim() > 2 else amount)
        ends += [begin, end]
        gaps.append(gap)
    return Attributions(
        **by_part,
        static=static,
        summary=summary,
        reference=ends[0],
        output=ends[-1],
        gap=np.sum(gaps, axis=0),
    )


def _array(amount: Tensor) -> Floats:
    array: Floats = amount.double().cpu().numpy()
    return array


def _integrate(
    part: Part, target: int | None, tolerance: float, steps: int
) -> tuple[tuple[Tensor, ...], Floats, Floats, Floats]:
    """Attributions of the part's inputs, the answers at its ends, and the gap, all per stay."""
    from captum.attr import IntegratedGradients

    def answer(*given: Tensor) -> Tensor:
        made = part.answer(*given)
        made = made if target is None else made[:, target]
        # An input that this model does not read has gradient 0 by this, not none at all.
        return made + sum(0.0 * moving.flatten(1).sum(dim=1) for moving in given[: len(part.names)])

    with torch.no_grad():
        begin, end = (answer(*x, *part.context).double().cpu().numpy() for x in (part.begin, part.end))
    method = IntegratedGradients(answer, multiply_by_inputs=True)
    while True:
        amounts: tuple[Tensor, ...] = method.attribute(
            part.end,
            baselines=part.begin,
            additional_forward_args=part.context,
            n_steps=steps,
            internal_batch_size=max(AT_ONCE, len(begin)),
        )
        amounts = tuple(amount.detach() for amount in amounts)
        total = sum(amount.double().flatten(1).sum(dim=1).cpu().numpy() for amount in amounts)
        gap = np.asarray(total - (end - begin))
        if np.abs(gap).max(initial=0.0) <= tolerance or steps >= MOST_STEPS:
            return amounts, begin, end, gap
        steps *= 2
