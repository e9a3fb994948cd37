"""Between a reference stay and the stay itself: what a model answers on the way.

Integrated gradients (Sundararajan, Taly, Yan 2017, arXiv 1703.01365, section 3) attribute the difference
of two answers to the inputs that differ. Here the way has two straight parts:

    reference --(1: what was measured)--> midway --(2: what was found)--> the stay

    reference   as many observations at the same times, of nothing in particular: e = m + e^t
    midway      the stay's own codes, every value at its code's mean: e = e^f + e^v(0) + e^t
    the stay    e = e^f + e^v + e^t
    m           mean over the vocabulary of e^f + e^v(0)

Demographics stay at the reference (0: mean age, no category) through part 1 and come in with part 2. The
summary branch's figures go from 0 (nothing seen) to those of the stay with its values at the mean, and on
to the stay's own.

Why not e = 0, as padding: RMSNorm takes a vector's length away, so all of the change would happen at
lengths near zero, where no quadrature sees it; and a stay without observations is like no stay in
training. Why two parts: "was measured" and "was high" are different things to tell a clinician. Along any
path the sum is complete (same paper, proposition 1, remark 2).

    B, L, V, S   stays, padded length, codes, demographics
    d            width of the triplet embedding
    P            figures of a code in the summary branch, over all its windows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.embedding import TripletEmbedding
from hymate.model.sequence_model import SequenceModel
from hymate.model.summary import SummaryEmbedding

Answer = Callable[..., Tensor]


@dataclass(frozen=True)
class Part:
    """One straight part of the way. `answer(*inputs)` -> (B,) or (B, K).

    `names` of the inputs: "observations" (B, L, d) or (B, L), "static" (B, S), "figures" (B, V + 1, P);
    an input the model does not have is left out. Tensors of `context` go to `answer` after the inputs.
    """

    names: tuple[str, ...]
    begin: tuple[Tensor, ...]
    end: tuple[Tensor, ...]
    context: tuple[Tensor, ...]
    answer: Answer


class Pathway:
    """The two parts of the way for one model; of a model without a triplet embedding, the second alone.

    Such a model (the baselines that read a table of hours) answers at the midway stay first.
    """

    def __init__(self, model: SequenceModel) -> None:
        self.model = model
        embedding, summary = getattr(model, "embedding", None), getattr(model, "summary", None)
        self.embedding = embedding if isinstance(embedding, TripletEmbedding) else None
        self.summary = summary if isinstance(summary, SummaryEmbedding) else None

    @property
    def explains_measuring(self) -> bool:
        """Whether part 1 exists."""
        return self.embedding is not None

    def parts(self, batch: TripletBatch) -> tuple[Part, ...]:
        """Part 1, if there is one, and part 2."""
        values = self._found(batch)
        return (self._measured(batch), values) if self.explains_measuring else (values,)

    def _measured(self, batch: TripletBatch) -> Part:
        assert self.embedding is not None
        average = replace(batch, value=torch.zeros_like(batch.value), static=torch.zeros_like(batch.static))
        with torch.no_grad():
            end = self.embedding(average)
            begin = _nothing_in_particular(self.embedding, batch)
        figures = self._figures(average)
        names = ("observations", *(["figures"] if figures is not None else []))

        def answer(e: Tensor, *rest: Tensor) -> Tensor:
            given, context = (rest[0], rest[1:]) if figures is not None else (None, rest)
            stays = _batch(context[0], context[1], torch.zeros_like(context[0]), context[2], context[3])
            return self._answer(stays, e, given)

        return Part(
            names,
            (begin, *([torch.zeros_like(figures)] if figures is not None else [])),
            (end, *([figures] if figures is not None else [])),
            (average.time, average.code, average.mask, average.static),
            answer,
        )

    def _found(self, batch: TripletBatch) -> Part:
        average = torch.zeros_like(batch.value)
        inputs = {"observations": (average, batch.value)}
        if batch.static.shape[1]:
            inputs["static"] = (torch.zeros_like(batch.static), batch.static)
        figures = self._figures(batch)
        if figures is not None:
            before = self._figures(replace(batch, value=average))
            assert before is not None
            inputs["figures"] = (before, figures)
        names, empty = tuple(inputs), batch.static

        def answer(*given: Tensor) -> Tensor:
            found = dict(zip(names, given, strict=False))
            time, code, mask = given[len(names) : len(names) + 3]
            value = found["observations"]
            static = found.get("static", empty.new_zeros((len(value), 0)))
            return self._answer(_batch(time, code, value, mask, static), None, found.get("figures"))

        return Part(
            names,
            tuple(begin for begin, _ in inputs.values()),
            tuple(end for _, end in inputs.values()),
            (batch.time, batch.code, batch.mask),
            answer,
        )

    def _figures(self, batch: TripletBatch) -> Tensor | None:
        if self.summary is None or self.embedding is None:
            return None
        figures: Tensor = self.summary.inputs(batch, self.embedding.clipped(batch.value))
        return figures

    def _answer(self, batch: TripletBatch, e: Tensor | None, figures: Tensor | None) -> Tensor:
        with _giving(self.embedding if e is not None else None, lambda _: e):
            summary = self.summary if figures is not None else None
            with _giving(summary, lambda seen: self._embedded(figures, seen)):
                return self.model.classify(batch)

    def _embedded(self, figures: Tensor | None, batch: TripletBatch) -> Tensor:
        assert self.summary is not None
        assert figures is not None
        embedded: Tensor = self.summary.embed(figures, batch.static)
        return embedded


def reference_words(explains_measuring: bool) -> str:
    """What the reference is, as the end of a sentence."""
    if explains_measuring:
        return (
            "a stay with as many observations at the same times, of nothing in particular, and an average "
            "patient"
        )
    return "the stay with every value at its average, and an average patient"


def _nothing_in_particular(embedding: TripletEmbedding, batch: TripletBatch) -> Tensor:
    """m + e^t (B, L, d), zero where padding is."""
    codes = torch.arange(1, embedding.feature.num_embeddings, device=batch.value.device)[None]
    zeros = torch.zeros_like(codes, dtype=batch.value.dtype)
    every = replace(batch, time=zeros, code=codes, value=zeros, mask=torch.ones_like(codes, dtype=torch.bool))
    at_zero = embedding(every)  # (1, V, d): e^f + e^v(0) + e^t(0 h)
    # e^t of each observation: what its own embedding has beyond e^t at 0 h.
    own = replace(batch, value=torch.zeros_like(batch.value))
    moved = embedding(own) - embedding(replace(own, time=torch.zeros_like(batch.time)))
    e: Tensor = at_zero.mean(dim=1, keepdim=True) + moved
    return e.masked_fill(~batch.mask.unsqueeze(-1), 0.0)


def _batch(time: Tensor, code: Tensor, value: Tensor, mask: Tensor, static: Tensor) -> TripletBatch:
    label = torch.full((len(time),), float("nan"), device=time.device)
    row = torch.zeros(len(time), dtype=torch.int64, device=time.device)
    return TripletBatch(time, code, value, mask, static, label, row)


@contextmanager
def _giving(module: nn.Module | None, output: Callable[[TripletBatch], Tensor | None]) -> Iterator[None]:
    """Within, `module` answers `output(its batch)`; None: nothing changes."""
    if module is None:
        yield
        return
    handle = module.register_forward_hook(lambda _, inputs, __: output(inputs[0]))
    try:
        yield
    finally:
        handle.remove()
