"""One small configuration of every neural baseline."""

from __future__ import annotations

from hymate.model.baselines.baseline import Baseline
from hymate.model.config import (
    BaselineConfig,
    GRUConfig,
    GRUDConfig,
    InterpNetConfig,
    MambaConfig,
    SAnDConfig,
    STraTSConfig,
    TCNConfig,
    TransformerConfig,
)
from hymate.model.registry import build
from tests.hymate.model.batches import CODES, STATIC

LOOKBACK = 48.0
SMALL: dict[str, BaselineConfig] = {
    "gru": GRUConfig(d_model=8, d_static=4, bin_hours=4.0),
    "gru_d": GRUDConfig(d_model=8, d_static=4, bin_hours=4.0),
    "tcn": TCNConfig(d_model=8, d_static=4, bin_hours=4.0, layers=2, kernel_width=3),
    "sand": SAnDConfig(d_model=8, d_static=4, bin_hours=4.0, layers=2, heads=2, span=3, interpolation=4),
    "interp_net": InterpNetConfig(d_model=8, d_static=4, reference_points=10),
    "strats": STraTSConfig(d_model=8, d_static=4, heads=2, layers=2),
    "mamba": MambaConfig(d_model=8, d_static=4, layers=2, d_state=4),
    "transformer": TransformerConfig(d_model=8, d_static=4, heads=2, layers=2),
}
FORECASTERS = {"strats", "mamba", "transformer"}


def new(name: str, seed: int = 0, codes: int = CODES, static_width: int = STATIC) -> Baseline:
    """The small baseline of that name, in evaluation mode."""
    model = build(
        SMALL[name],  # type: ignore[arg-type]
        codes=codes,
        static_width=static_width,
        time_scale_hours=LOOKBACK,
        seed=seed,
    ).eval()
    assert isinstance(model, Baseline)
    return model
