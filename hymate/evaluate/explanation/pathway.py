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
    d            width of the triplet embedding; of an ensemble, of all members' side by side
    P            figures of a code in the summary branch, over all its windows
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.evaluate.explanation.sharing import shared
from hymate.model.embedding import CodeValueTokens, ObservationEmbedding
from hymate.model.ensemble import Ensemble
from hymate.model.hymate import HyMaTE
from hymate.model.sequence_model import SequenceModel

Answer = Callable[..., Tensor]
Embed = Callable[[ObservationEmbedding, TripletBatch, int], Tensor]


@dataclass(frozen=True)
class Part:
    """One straight part of the way. `answer(*inputs)` -> (B,) or (B, K).

    `names` of the inputs: "observations" (B, L, d) or (B, L), "static" (B, S), "figures" (B, V + 1, P);
    what does not change on this part is left out. Tensors of `context` go to `answer` after the inputs.
    """

    names: tuple[str, ...]
    begin: tuple[Tensor, ...]
    end: tuple[Tensor, ...]
    context: tuple[Tensor, ...]
    answer: Answer


class Pathway:
    """The two parts of the way for one model; of a model that embeds no observations, the second alone.

    Such a model (the baselines that read a table of hours) answers at the midway stay first. A model of
    code-value tokens has no way through values: its part 2 goes straight from one embedding to the other.
    """

    def __init__(self, model: SequenceModel, codes: int) -> None:
        """codes: V."""
        self.model = model
        self.codes = codes
        self.members = members_of(model)
        found = [getattr(member, "embedding", None) for member in self.members]
        self.embeddings = [each for each in found if isinstance(each, ObservationEmbedding)]

    @property
    def explains_measuring(self) -> bool:
        """Whether part 1 exists."""
        return bool(self.embeddings)

    def parts(self, batch: TripletBatch) -> tuple[Part, ...]:
        """Part 1, if there is one, and part 2."""
        midway = replace(batch, value=torch.zeros_like(batch.value))
        if not self.embeddings:
            return (self._found(batch, midway, None),)
        unknown = replace(midway, static=torch.zeros_like(batch.static))
        with torch.no_grad():
            begin, end = self._joined(_nothing_in_particular, batch), self._joined(_embedded, midway)
            tokens = isinstance(self.embeddings[0], CodeValueTokens)
            last = self._joined(_embedded, batch) if tokens else None
        figures = self._figures(unknown)
        inputs = {"observations": (begin, end)}
        if figures is not None:
            inputs["figures"] = (torch.zeros_like(figures), figures)
        return (
            self._part(inputs, unknown, embedded=True),
            self._found(batch, midway, None if last is None else (end, last)),
        )

    def _found(
        self, batch: TripletBatch, midway: TripletBatch, embedded: tuple[Tensor, Tensor] | None
    ) -> Part:
        inputs = {"observations": embedded or (midway.value, batch.value)}
        if batch.static.shape[1]:
            inputs["static"] = (torch.zeros_like(batch.static), batch.static)
        before, after = self._figures(midway), self._figures(batch)
        if before is not None and after is not None:
            inputs["figures"] = (before, after)
        return self._part(inputs, batch, embedded=embedded is not None)

    def _part(self, inputs: dict[str, tuple[Tensor, Tensor]], batch: TripletBatch, *, embedded: bool) -> Part:
        """`batch` gives what does not change on the way."""
        names = tuple(inputs)
        context = (batch.time, batch.code, batch.value, batch.mask, batch.static)

        def answer(*given: Tensor) -> Tensor:
            moving = dict(zip(names, given, strict=False))
            time, code, value, mask, static = given[len(names) :]
            e = moving["observations"] if embedded else None
            value = value if embedded else moving["observations"]
            stays = _batch(time, code, value, mask, moving.get("static", static))
            return self._answer(stays, e, moving.get("figures"))

        ends = tuple(inputs.values())
        return Part(names, tuple(a for a, _ in ends), tuple(b for _, b in ends), context, answer)

    def _joined(self, embed: Embed, batch: TripletBatch) -> Tensor:
        """The members' embeddings of the observations side by side, (B, L, d x members)."""
        return torch.cat([embed(each, batch, self.codes) for each in self.embeddings], dim=-1)

    def _figures(self, batch: TripletBatch) -> Tensor | None:
        """The same for all members: they differ by seed alone."""
        first = self.members[0]
        return first.figures(batch) if isinstance(first, HyMaTE) else None

    def to_observations(self, amounts: Tensor, batch: TripletBatch) -> Tensor:
        """Attributions of "figures" (B, V + 1, P) by the observations they were made of, (B, L)."""
        first = self.members[0]
        assert isinstance(first, HyMaTE)
        assert first.summary is not None
        return shared(amounts, batch, first.embedding.clipped(batch.value), first.summary)

    def _answer(self, batch: TripletBatch, e: Tensor | None, figures: Tensor | None) -> Tensor:
        with ExitStack() as given:
            if e is not None:
                for embedding, own in zip(
                    self.embeddings, e.chunk(len(self.embeddings), dim=-1), strict=True
                ):
                    given.enter_context(_giving(embedding, own))
            if figures is not None:
                for member in self.members:
                    given.enter_context(_giving_figures(member, figures))
            return self.model.classify(batch)


def members_of(model: SequenceModel) -> list[SequenceModel]:
    """The models that an ensemble's answer is the mean of; else the model itself."""
    if not isinstance(model, Ensemble):
        return [model]
    return [member for member in model.members if isinstance(member, SequenceModel)]


def reference_words(explains_measuring: bool) -> str:
    """What the reference is, as the end of a sentence."""
    if explains_measuring:
        return (
            "a stay with as many observations at the same times, of nothing in particular, and an average "
            "patient"
        )
    return "the stay with every value at its average, and an average patient"


def _embedded(embedding: ObservationEmbedding, batch: TripletBatch, _: int) -> Tensor:
    e: Tensor = embedding(batch)
    return e


def _nothing_in_particular(embedding: ObservationEmbedding, batch: TripletBatch, vocabulary: int) -> Tensor:
    """m + e^t (B, L, d), zero where padding is."""
    codes = torch.arange(1, vocabulary + 1, device=batch.value.device)[None]
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
def _giving(module: nn.Module, output: Tensor) -> Iterator[None]:
    """Within, `module` answers `output`."""
    handle = module.register_forward_hook(lambda *_: output)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _giving_figures(model: SequenceModel, figures: Tensor) -> Iterator[None]:
    """Within, the model's summary branch reads `figures`."""
    model.__dict__["figures"] = lambda _: figures  # before the class' method
    try:
        yield
    finally:
        del model.__dict__["figures"]
