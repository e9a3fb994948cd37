"""Which model a configuration means, and what it refuses."""

from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from hymate.config import Frozen, ModelConfig, parse
from hymate.errors import InputFault
from hymate.model.config import AnyModelConfig, GRUDConfig, MambaConfig, SAnDConfig
from hymate.model.registry import MODELS
from tests.hymate.model.baselines.small import SMALL

ANY: TypeAdapter[AnyModelConfig] = TypeAdapter(AnyModelConfig)


def test_without_a_name_it_is_hymate() -> None:
    assert ANY.validate_python({"d_model": 32}) == ModelConfig(d_model=32)
    assert ANY.validate_python({"name": "hymate"}) == ModelConfig()
    assert ANY.validate_python(MambaConfig()) == MambaConfig()


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_name_chooses_and_everything_written_out_is_read_again(name: str) -> None:
    config = ANY.validate_python({"name": name})
    assert type(config) is type(SMALL[name])
    assert ANY.validate_python(ANY.dump_python(config)) == config


def test_a_size_that_the_model_does_not_have_is_refused() -> None:
    with pytest.raises(ValidationError, match="Extra inputs"):
        ANY.validate_python({"name": "gru", "heads": 2})
    with pytest.raises(ValidationError, match="no model of this name"):
        ANY.validate_python({"name": "lstm"})


def test_the_fault_names_every_model() -> None:
    with pytest.raises(ValidationError) as refused:
        ANY.validate_python({"name": "lstm"})
    named = refused.value.errors()[0]["msg"].replace(",", " ").split()
    assert set(MODELS) <= set(named)


class Holder(Frozen):
    model: AnyModelConfig = ModelConfig()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"name": "gru", "d_modl": 3}, "key 'model.d_modl' does not exist; did you mean 'd_model'?"),
        ({"name": "gru", "span": 3}, "known here: bin_hours, d_model, d_static, dropout, name"),
        ({"d_modl": 3}, "key 'model.d_modl' does not exist; did you mean 'd_model'?"),
        ({"name": "tcn", "layers": 0}, "key 'model.layers': "),
        ({"name": "lstm"}, "key 'model': no model of this name"),
    ],
)
def test_a_fault_is_told_as_the_file_has_it(model: dict[str, object], told: str) -> None:
    with pytest.raises(InputFault) as refused:
        parse(Holder, {"model": model}, "train.yaml")
    assert told in str(refused.value)


def test_heads_divide_the_width() -> None:
    for name in ("sand", "strats", "transformer"):
        with pytest.raises(ValidationError, match="does not divide"):
            ANY.validate_python({"name": name, "d_model": 30, "heads": 4})
    assert SAnDConfig(d_model=30, heads=5).heads == 5
    assert GRUDConfig(bin_hours=2).bin_hours == 2.0
