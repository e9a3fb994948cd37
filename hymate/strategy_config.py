"""The study's `strategy:` section: the federated algorithm, and what composes with any of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from hymate.frozen import Frozen

Weight = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]


class Delta(Frozen):
    """What changed since the weights received, not the weights themselves."""

    name: Literal["delta"] = "delta"


class TopK(Frozen):
    """The largest entries of each array alone; what was left out is added to the next round's."""

    name: Literal["top_k"] = "top_k"
    share: Annotated[float, Field(gt=0.0, le=1.0)] = 0.1
    """Of an array's entries that are sent; at least one."""
    error_feedback: bool = True
    """Whether the site remembers what it did not send, and sends it later."""


class Float16(Frozen):
    """Numbers of 16 bits."""

    name: Literal["fp16"] = "fp16"


class Int8(Frozen):
    """Numbers of 8 bits and one scale for each array; rounded up or down by chance, so right on average."""

    name: Literal["int8"] = "int8"


def _named(step: Any) -> Any:
    """`int8` is short for `{name: int8}`."""
    return {"name": step} if isinstance(step, str) else step


def _listed(steps: Any) -> Any:
    """`int8` is short for `[int8]`, too."""
    return [steps] if isinstance(steps, str | dict) else steps


Compressor = Annotated[
    Annotated[Delta | TopK | Float16 | Int8, Field(discriminator="name")], BeforeValidator(_named)
]


class StrategyConfig(BaseModel):
    """The federated algorithm, and what it may be told; its own settings are extra keys."""

    model_config = ConfigDict(frozen=True, extra="allow", use_attribute_docstrings=True)

    name: str = "fedavg"
    optimiser_state: Literal["keep", "reset"] = "keep"
    """What happens to a site's AdamW moments between rounds."""
    weighting: Literal["stays", "positives", "uniform"] | dict[str, Weight] = "stays"
    """How much each site counts: by its training stays, by those of them with the label, as much as
    any other, or the numbers given here by name of site."""
    local_layers: tuple[str, ...] = ()
    """Parts of the model that never leave a site, each of which keeps its own: `head`, `norms`,
    `static`, ... (`strategies.local_layers`), or a prefix of parameters' names."""
    local_layers_first: Annotated[int, Field(ge=0)] = 0
    """Of a round's `local_epochs`, the first so many train the local layers alone, and the others the
    shared ones alone (FedRep); 0: all train both."""
    compression: Annotated[tuple[Compressor, ...], BeforeValidator(_listed)] = ()
    """What is done to an update before it is sent, in this order:
    [delta, {name: top_k, share: 0.1}, int8]."""

    @property
    def settings(self) -> dict[str, Any]:
        """The algorithm's own keys, validated by `strategies.registry.make_algorithm`."""
        return dict(self.model_extra or {})
