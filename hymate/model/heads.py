"""What is read from a stay's vector z (B, w), w = d_model + d_static.

    forecast   (B, V + 1)   z-score of each code's first value after the cut; column 0 (padding) unused
    logit      (B,)         log odds of the label; or (B, K) of K labels; or a number, as z-score

HyMaTE, arXiv 2509.24118, section 3; STraTS, arXiv 2107.14293, sections 3.2.5 and 3.3.
"""

from __future__ import annotations

from torch import Tensor, nn

from hymate.model.layers import Linear


class ForecastHead(nn.Module):
    """Linear: z -> the next window's values."""

    def __init__(self, width: int, codes: int) -> None:
        super().__init__()
        self.out = Linear(width, codes + 1)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, w) -> (B, V + 1)."""
        forecast: Tensor = self.out(z)
        return forecast


class ClassificationHead(nn.Module):
    """Linear: z -> logit, or what else is read of the task: a number, or K logits. (STraTS reads the label
    from the forecast; here z itself is read.)"""

    def __init__(self, width: int, outputs: int = 1) -> None:
        super().__init__()
        self.out = Linear(width, outputs)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, w) -> (B,), or (B, K) where there are K > 1 outputs."""
        output: Tensor = self.out(z)
        return output.squeeze(-1) if output.shape[-1] == 1 else output
