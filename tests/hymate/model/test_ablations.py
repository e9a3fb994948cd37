"""The switches of the paper's ablations take away what they name, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch
from hymate.errors import InputFault
from hymate.model.embedding import BINS, CodeValueTokens, ConcatenatedTriplets, TripletEmbedding
from hymate.model.hymate import HyMaTE, build_model
from hymate.model.reversal import reorder, reversed_order
from tests.hymate.model.batches import CODES, SMALL, STATIC, batch_of, random_stay

SWITCHES: dict[str, dict[str, Any]] = {
    "no Mamba": {"mamba_blocks": 0},
    "no attention": {"attention_layers": 0},
    "neither": {"mamba_blocks": 0, "attention_layers": 0},
    "mean": {"pooling": "mean"},
    "last": {"pooling": "last"},
    "concat": {"embedding": "concat"},
    "concat, affine": {"embedding": "concat", "value_embedding": "affine"},
    "code_value": {"embedding": "code_value"},
    "no static": {"static": False},
    "no static, summary": {"static": False, "d_summary": 6},
    "bidirectional": {"bidirectional": True},
}
LENGTHS = (7, 1, 23, 0, 12)


def built(change: dict[str, Any]) -> HyMaTE:
    config = ModelConfig.model_validate({**SMALL.model_dump(), **change})
    return build_model(config, CODES, STATIC, 48.0, seed=0).eval()


def outputs(model: HyMaTE, batch: TripletBatch) -> Tensor:
    return torch.cat([model.forecast(batch), model.classify(batch).unsqueeze(1)], dim=1)


def parts(change: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in built(change).state_dict().items()}


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_stay_gives_the_same_output_in_any_company(switch: str) -> None:
    model = built(SWITCHES[switch])
    stays = [random_stay(length, seed) for seed, length in enumerate(LENGTHS)]
    together = outputs(model, batch_of(stays, extra=3))
    assert together.std(dim=0).min() > 1e-4
    for row, stay in enumerate(stays):
        torch.testing.assert_close(together[row], outputs(model, batch_of([stay]))[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("switch", SWITCHES)
def test_gradients_are_finite_and_reach_every_weight(switch: str) -> None:
    model = built(SWITCHES[switch])
    batch = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)])
    torch.autograd.backward(outputs(model, batch).square().sum())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("switch", "gone"),
    [
        ("no Mamba", ("mamba.",)),
        ("no attention", ("attention.",)),
        ("mean", ("fusion.",)),
        ("last", ("fusion.",)),
        ("no static", ("static.",)),
        ("code_value", ("embedding.feature", "embedding.value", "embedding.time")),
    ],
)
def test_what_is_named_is_gone_and_everything_else_is_there(switch: str, gone: tuple[str, ...]) -> None:
    before, after = parts({}), parts(SWITCHES[switch])
    assert {name for name in before if name not in after} == {n for n in before if n.startswith(gone)}
    assert set(after) - set(before) == ({"embedding.token.weight"} if switch == "code_value" else set())
    resized = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    heads = {"forecast_head.out.weight", "classification_head.out.weight"}
    assert resized == (heads if switch == "no static" else set())


def test_both_directions_leave_the_first_weights_of_all_else_as_they_were() -> None:
    one, two = built({}).state_dict(), built(SWITCHES["bidirectional"]).state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    added = set(two) - set(one)
    assert added == {f"backward_{name}" for name in one if name.startswith("mamba.")}


def test_without_demographics_nothing_depends_on_them() -> None:
    for change in (SWITCHES["no static"], SWITCHES["no static, summary"], {}):
        model = built(change)
        hours, code, value, static = random_stay(9, seed=3)
        one, other = (outputs(model, batch_of([(hours, code, value, s)])) for s in (static, static + 1))
        assert torch.equal(one, other) == bool(change)


def test_mean_and_last_by_hand() -> None:
    batch = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)], extra=2)
    c = torch.randn(*batch.mask.shape, SMALL.d_model)
    mean, last = built(SWITCHES["mean"]).fusion, built(SWITCHES["last"]).fusion
    for row, length in enumerate(LENGTHS):
        expected = c[row, :length].sum(dim=0) / max(length, 1)
        torch.testing.assert_close(mean(c, batch.mask)[row], expected)
        final = c[row, length - 1] if length else torch.zeros(SMALL.d_model)
        torch.testing.assert_close(last(c, batch.mask)[row], final)


@pytest.mark.parametrize(("d_model", "widths"), [(16, (6, 5, 5)), (32, (12, 10, 10)), (3, (1, 1, 1))])
def test_concatenation_gives_each_part_its_own_share(d_model: int, widths: tuple[int, int, int]) -> None:
    embedding = ConcatenatedTriplets(CODES, d_model, 48.0)
    batch = batch_of([random_stay(5, seed=0)])
    with torch.no_grad():
        before = embedding(batch)
        embedding.feature.weight[1:] += 1.0
        of_feature = (embedding(batch) != before).any(dim=(0, 1))
        embedding.time.hidden.bias += 1.0
        both = (embedding(batch) != before).any(dim=(0, 1))
    assert of_feature.tolist() == [True] * widths[0] + [False] * (d_model - widths[0])
    assert both.tolist() == [True] * widths[0] + [False] * widths[1] + [True] * widths[2]
    assert TripletEmbedding(CODES, d_model, 48.0)(batch).shape == before.shape


def test_a_token_is_a_code_and_a_decile_and_no_time() -> None:
    embedding = CodeValueTokens(CODES, 8)
    hours, _, _, static = random_stay(4, seed=0)
    code = torch.tensor([2, 2, 2, 3])
    value = torch.tensor([-9.0, 0.1, 0.2, 0.1])  # lowest decile, sixth, sixth, sixth
    e = embedding(batch_of([(hours, code, value, static)]))[0]
    assert torch.equal(e[1], e[2])
    assert torch.equal(e[0], embedding.token.weight[2 * BINS])
    assert torch.equal(e[1], embedding.token.weight[2 * BINS + 5])
    assert torch.equal(e[3], embedding.token.weight[3 * BINS + 5])
    assert torch.equal(e, embedding(batch_of([(hours / 2, code, value, static)]))[0])


def test_reversal_is_of_real_observations_and_its_own_inverse() -> None:
    batch = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)], extra=2)
    order = reversed_order(batch.mask)
    x = torch.randn(*batch.mask.shape, 3)
    turned = reorder(x, order)
    assert torch.equal(reorder(turned, order), x)
    for row, length in enumerate(LENGTHS):
        assert torch.equal(turned[row, :length], x[row, :length].flip(0))
        assert torch.equal(turned[row, length:], x[row, length:])


def test_both_directions_see_the_future_and_one_does_not() -> None:
    hours, code, value, static = random_stay(10, seed=5)
    changed = value.clone()
    changed[7:] += 1.0
    for change, sees in (({}, False), (SWITCHES["bidirectional"], True)):
        model = built(change)
        one, other = (model.contextualise(batch_of([(hours, code, v, static)])) for v in (value, changed))
        assert ((one[:, :7] - other[:, :7]).abs().max() > 1e-4) == sees


def test_both_directions_add_what_each_adds() -> None:
    model = built({"bidirectional": True, "mamba_blocks": 1})
    batch = batch_of([random_stay(length, seed) for seed, length in enumerate(LENGTHS)])
    x = model.embedding(batch)
    stays = [batch_of([random_stay(length, seed)]) for seed, length in enumerate(LENGTHS)]
    for row, (stay, length) in enumerate(zip(stays, LENGTHS, strict=True)):
        e = model.embedding(stay)
        expected = model.mamba[0](e) + model.backward_mamba[0](e.flip(1)).flip(1) - e
        torch.testing.assert_close(model.contextualise(batch)[row, :length], expected[0], atol=1e-5, rtol=0)
    assert model.contextualise(batch)[~batch.mask].eq(0).all()
    assert x[~batch.mask].eq(0).all()


def test_both_directions_cannot_go_on_step_by_step() -> None:
    with pytest.raises(InputFault, match="bidirectional"):
        built(SWITCHES["bidirectional"]).first_state(2)


def test_without_mamba_a_step_is_the_embedding() -> None:
    model = built(SWITCHES["no Mamba"])
    batch = batch_of([random_stay(1, seed=0), random_stay(1, seed=1)])
    x, state = model.step(model.first_state(2), batch)
    assert torch.equal(x, model.embedding(batch)[:, 0])
    assert state.blocks == ()


@pytest.mark.parametrize(
    "change",
    [
        {"embedding": "concat", "d_model": 2, "attention_heads": 1},
        {"embedding": "code_value", "value_embedding": "affine"},
        {"pooling": "max"},
        {"mamba_blocks": -1},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelConfig.model_validate(change)
