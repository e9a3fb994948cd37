"""What a stay looks like without its order: each code's count, level, spread, trend and timing.

Boosting on such figures is the baseline to beat on PhysioNet-2012; here they are computed from the
batch itself, so they need no data path of their own, travel to every site with the model, and a stay's
figures depend on that stay alone.

    B, L, V      stays, padded length, codes
    W, F         windows, equal parts of the look-back; figures of a code in a window, `FIGURES`
    summary      (B, W (V + 1) F)  zero where the stay has no such code; code 0 (padding) always zero
    s            (B, d_summary)    FFN of the summary
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hymate.data.batching import TripletBatch
from hymate.model.dropout import Dropout
from hymate.model.layers import Linear

FIGURES = ("present", "count", "mean", "deviation", "lowest", "highest", "first", "last", "recency", "slope")
"""present: 0 or 1; count: log(1 + n) / 2; recency: 1 - 2 (hours from the last value to the window's end)
/ (hours of the window); slope: of the value against time, per window; the others in z-scores."""
STEEPEST = 4.0  # slopes of values a minute apart mean nothing


def summarise(
    time: Tensor, code: Tensor, value: Tensor, mask: Tensor, codes: int, begin: float, end: float, final: bool
) -> Tensor:
    """Figures of every code over the observations with begin <= time < end (hours) -> (B, V + 1, F).

    `final`: nothing comes after `end`, so what is exactly there belongs in.

    time, value (B, L) floats, time ascending in a row; code (B, L); mask (B, L) True where an observation
    is. The result depends on nothing where mask is False. No gradient flows through it.
    """
    stays, length = mask.shape
    cells = codes + 1
    seen = mask & (time >= begin) & ((time < end) | final)
    # What is not seen goes to code 0 and counts nothing there: its figures are struck out at the end.
    where = torch.where(seen, code, 0)
    x, t = torch.where(seen, value, 0.0), torch.where(seen, (time - begin) / (end - begin), 0.0)

    def total(of: Tensor) -> Tensor:
        return of.new_zeros(stays, cells).scatter_add_(1, where, of)

    count = total(seen.to(value.dtype))
    divisor = count.clamp(min=1.0)
    mean, mean_time = total(x) / divisor, total(t) / divisor
    from_mean, from_mean_time = x - mean.gather(1, where), t - mean_time.gather(1, where)
    variance, variance_time = total(from_mean.square()) / divisor, total(from_mean_time.square()) / divisor
    slope = total(from_mean * from_mean_time) / divisor / variance_time.clamp(min=1e-3)

    def extreme(of: Tensor, kind: str) -> Tensor:
        return of.new_zeros(stays, cells).scatter_reduce_(1, where, of, kind, include_self=False)

    # Position of a code's first and last observation: the batch is sorted by time.
    position = torch.arange(length, device=time.device).expand(stays, length)
    earliest, latest = extreme(position, "amin"), extreme(position, "amax")
    figures = [
        torch.ones_like(count),
        torch.log1p(count) / 2,
        mean,
        variance.sqrt(),
        extreme(x, "amin"),
        extreme(x, "amax"),
        x.gather(1, earliest),
        x.gather(1, latest),
        2 * t.gather(1, latest) - 1,
        slope.clamp(-STEEPEST, STEEPEST),
    ]
    return torch.stack(figures, dim=-1).masked_fill((count == 0).unsqueeze(-1), 0.0)


class SummaryEmbedding(nn.Module):
    """Each code's figures through one shared layer, scaled and shifted by code; then an FFN over all codes.

    The shared layer ties what "last" or "slope" means between codes, which is worth about as much as the
    choice of figures: a dense layer on 1,800 figures over-fits 6,400 stays, this does not.

    Of a code, figures over the whole look-back and its parts (`windows`: (1, 4) is the whole and its
    quarters): (B, V + 1, W F) -> `width` -> `reduced`; of the stay: (V + 1) reduced + S -> d_summary.
    `dropout` hides hidden units, `input_dropout` figures. With `thresholds`, each figure x is also seen as
    tanh(3/2 (x - c)) for that many c from -2 to 2: what a tree does in one split takes a line many layers
    (piecewise encodings of numbers: Gorishniy et al., arXiv 2203.05556).
    """

    def __init__(
        self,
        codes: int,
        static_width: int,
        d_summary: int,
        windows: tuple[int, ...],
        look_back_hours: float,
        dropout: float,
        input_dropout: float,
        width: int = 32,
        thresholds: int = 0,
        reduced: int = 16,
    ) -> None:
        super().__init__()
        self.codes = codes
        self.spans = tuple(
            (look_back_hours * i / parts, look_back_hours * (i + 1) / parts, i + 1 == parts)
            for parts in windows
            for i in range(parts)
        )
        self.input_dropout = Dropout(input_dropout)
        self.dropout = Dropout(dropout)
        self.thresholds = torch.linspace(-2.0, 2.0, thresholds).tolist()
        self.figures = Linear(len(self.spans) * len(FIGURES) * (1 + thresholds), width)
        self.gain = nn.Embedding(codes + 1, width)
        self.shift = nn.Embedding(codes + 1, width)
        self.reduce = Linear(width, reduced)
        self.hidden = Linear((codes + 1) * reduced + static_width, d_summary)
        nn.init.ones_(self.gain.weight)
        nn.init.normal_(self.shift.weight, std=0.1)

    def _steps(self, figures: Tensor) -> list[Tensor]:
        return [torch.tanh(1.5 * (figures - at)) for at in self.thresholds]

    def inputs(self, batch: TripletBatch, value: Tensor) -> Tensor:
        """-> (B, V + 1, W F), constant."""
        with torch.no_grad():
            parts = [
                summarise(batch.time, batch.code, value, batch.mask, self.codes, *span) for span in self.spans
            ]
            return torch.cat(parts, dim=-1)

    def forward(self, batch: TripletBatch, value: Tensor) -> Tensor:
        """value (B, L): the batch's values as the model sees them (clipped) -> (B, d_summary)."""
        return self.embed(self.inputs(batch, value), batch.static)

    def embed(self, figures: Tensor, static: Tensor) -> Tensor:
        """figures (B, V + 1, W F), static (B, S) -> (B, d_summary)."""
        seen = self.input_dropout(figures)
        x = self.figures(torch.cat([seen, *self._steps(seen)], dim=-1))  # (B, V + 1, width)
        code = torch.arange(self.codes + 1, device=x.device).expand(x.shape[:2])
        x = x * self.gain(code) + self.shift(code)
        x = self.dropout(F.gelu(self.reduce(x)).flatten(1))
        x = torch.cat([x, static], dim=1)
        s: Tensor = self.dropout(F.gelu(self.hidden(x)))
        return s
