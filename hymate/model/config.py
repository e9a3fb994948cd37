"""Which sequence model is trained: HyMaTE or one of the baselines, told apart by `name`.

Sizes are those of the baseline's own paper, or of STraTS' comparison on PhysioNet-2012
(https://github.com/sindhura97/STraTS, run_main.sh: width 64 for all), where the paper has no such data.
`d_static` is HyMaTE's everywhere: the demographics are joined the same way.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag, model_validator

from hymate.config import Count, Frozen, ModelConfig, Positive, Probability


class BaselineConfig(Frozen):
    """What all baselines share."""

    d_model: Count = 64
    """Width of the sequence's vector, and of the layers that make it."""
    d_static: Count = 16
    """Width of the demographics' embedding that is concatenated with the sequence's vector."""
    dropout: Probability = 0.2


class GridConfig(BaselineConfig):
    """Baselines that see the window as a table, one row per interval of time."""

    bin_hours: Positive = 1.0
    """Length of an interval; a variable's last value in it counts."""


class GRUConfig(GridConfig):
    """GRU on values filled forward, masks and times since the last observation."""

    name: Literal["gru"] = "gru"


class GRUDConfig(GridConfig):
    """GRU-D (Che et al. 2018)."""

    name: Literal["gru_d"] = "gru_d"


class TCNConfig(GridConfig):
    """Temporal convolutional network (Bai et al. 2018)."""

    name: Literal["tcn"] = "tcn"
    layers: Count = 6
    """Residual blocks; the dilation doubles from one to the next."""
    kernel_width: Annotated[int, Field(ge=2)] = 4


class SAnDConfig(GridConfig):
    """SAnD (Song et al. 2018)."""

    name: Literal["sand"] = "sand"
    layers: Count = 4
    heads: Count = 4
    span: Annotated[int, Field(ge=0)] = 24
    """Intervals of the past that attention sees beside one's own."""
    interpolation: Count = 12
    """Vectors that dense interpolation leaves of the sequence."""

    @model_validator(mode="after")
    def _heads_divide_width(self) -> SAnDConfig:
        _demand_divisible(self.d_model, self.heads)
        return self


class InterpNetConfig(BaselineConfig):
    """Interpolation-prediction network (Shukla and Marlin 2019)."""

    name: Literal["interp_net"] = "interp_net"
    reference_points: Annotated[int, Field(ge=2)] = 192
    """Times, evenly spread over the window, that every variable is interpolated at."""


class _AttentionConfig(BaselineConfig):
    heads: Count = 4

    @model_validator(mode="after")
    def _heads_divide_width(self) -> _AttentionConfig:
        _demand_divisible(self.d_model, self.heads)
        return self


class STraTSConfig(_AttentionConfig):
    """STraTS (Tipirneni and Reddy 2022)."""

    name: Literal["strats"] = "strats"
    layers: Count = 2


class TransformerConfig(_AttentionConfig):
    """Transformer on triplets: HyMaTE's attention layers and nothing else; as deep as HyMaTE."""

    name: Literal["transformer"] = "transformer"
    layers: Count = 3


class MambaConfig(BaselineConfig):
    """Mamba on triplets, as EHRMamba (Fallahpour et al. 2024); as deep as HyMaTE."""

    name: Literal["mamba"] = "mamba"
    layers: Count = 3
    d_state: Count = 16
    d_conv: Annotated[int, Field(ge=2, le=4)] = 4
    expand: Count = 2


def _demand_divisible(d_model: int, heads: int) -> None:
    if d_model % heads:
        raise ValueError(f"heads {heads} does not divide d_model {d_model}")


def _name(content: Any) -> str:
    """The model meant; HyMaTE where none is named."""
    found = content.get("name", "hymate") if isinstance(content, dict) else getattr(content, "name", "hymate")
    return str(found)


AnyModelConfig: TypeAlias = Annotated[
    Annotated[ModelConfig, Tag("hymate")]
    | Annotated[GRUConfig, Tag("gru")]
    | Annotated[GRUDConfig, Tag("gru_d")]
    | Annotated[TCNConfig, Tag("tcn")]
    | Annotated[SAnDConfig, Tag("sand")]
    | Annotated[InterpNetConfig, Tag("interp_net")]
    | Annotated[STraTSConfig, Tag("strats")]
    | Annotated[MambaConfig, Tag("mamba")]
    | Annotated[TransformerConfig, Tag("transformer")],
    Discriminator(
        _name,
        custom_error_type="unknown_model",
        custom_error_message="no model of this name; there are hymate, gru, gru_d, tcn, sand, interp_net, "
        "strats, mamba and transformer",
    ),
]
"""A field of this type reads `{name: gru, ...}`; without `name` it reads HyMaTE's `ModelConfig`."""
