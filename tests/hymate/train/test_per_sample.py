"""Each stay's own gradient is that of a batch of this stay alone: every parameter, every model, both ways.

The two ways are Opacus' hooks with our samplers, and the layers' own backward pass, which training takes.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from opacus.grad_sample import GradSampleModule
from pydantic import TypeAdapter
from torch import Tensor, nn

from hymate.config import ModelConfig
from hymate.data.batching import TripletBatch
from hymate.model.config import AnyModelConfig
from hymate.model.hymate import HyMaTE, build_model
from hymate.model.layers import Linear
from hymate.model.registry import MODELS, build
from hymate.model.sequence_model import SequenceModel
from hymate.ops.backend import VARIABLE, native
from hymate.train.auxiliary import widen
from hymate.train.per_sample import KNOWN, unknown_layers
from hymate.train.sample_gradients import LAYERS, Mode, SampleGradients, unusable, used_parameters

CODES, STATIC, HOURS = 5, 3, 48.0
SMALL = {"d_model": 8, "d_state": 3, "attention_heads": 2, "d_static": 4, "mamba_blocks": 1, "dropout": 0.0}
SUMMARY: dict[str, object] = {"d_summary": 4, "summary_dropout": 0.0, "summary_input_dropout": 0.0}
VARIANTS: dict[str, dict[str, object]] = {
    "plain": {"mamba_blocks": 2},
    "odd_sizes": {"d_model": 18, "d_state": 5, "d_conv": 3, "expand": 3, "attention_window": 2},
    "affine": {"value_embedding": "affine", "value_clip": 1.0},
    "concat": {"embedding": "concat", "value_embedding": "affine"},
    "code_value": {"embedding": "code_value"},
    "bidirectional": {"bidirectional": True},
    "events": {"event_head": True},
    "mean": {"pooling": "mean"},
    "last": {"pooling": "last"},
    "no_static": {"static": False},
    "attention_only": {"mamba_blocks": 0},
    "mamba_only": {"attention_layers": 0},
    "summary": SUMMARY,
    "summary_parts": {**SUMMARY, "summary_windows": (1, 4), "summary_thresholds": 3, "static": False},
}
BACKENDS = ["torch", *(["native"] if native is not None else [])]
COVERED = {"hymate", "strats", "mamba", "transformer"}


@pytest.fixture(params=BACKENDS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(VARIABLE, request.param)
    return str(request.param)


def hymate(**fields: object) -> HyMaTE:
    config = ModelConfig.model_validate({**SMALL, **fields})
    return build_model(config, CODES, STATIC, HOURS, seed=0)


def stays(lengths: list[int], seed: int = 0) -> TripletBatch:
    """A padded batch of these lengths."""
    rng = torch.Generator().manual_seed(seed)
    size = (len(lengths), max(lengths, default=1))
    mask = torch.arange(size[1]) < torch.tensor(lengths, dtype=torch.int64)[:, None]
    return TripletBatch(
        time=(torch.rand(size, generator=rng) * HOURS).sort(dim=1).values * mask,
        code=torch.randint(1, CODES + 1, size, generator=rng) * mask,
        value=torch.randn(size, generator=rng) * mask,
        mask=mask,
        static=torch.randn(size[0], STATIC, generator=rng),
        label=(torch.rand(size[0], generator=rng) < 0.5).float(),
        row=torch.arange(size[0]),
    )


def one_of(batch: TripletBatch, stay: int) -> TripletBatch:
    names = ("time", "code", "value", "mask", "static", "label", "row")
    return TripletBatch(*(getattr(batch, name)[stay : stay + 1] for name in names))


def outputs(model: SequenceModel, phase: str, batch: TripletBatch) -> Tensor:
    """(B, any), whatever the phase reads of a stay."""
    if phase == "forecast_with_events":
        assert isinstance(model, HyMaTE)
        return torch.cat(model.forecast_with_events(batch), dim=1)
    made: Tensor = getattr(model, phase)(batch)
    return made.unsqueeze(1) if made.dim() == 1 else made


def losses(model: SequenceModel, phase: str, batch: TripletBatch) -> Tensor:
    return (outputs(model, phase, batch) - 1.0).square().sum(dim=1)


@contextmanager
def opacus_hooks(model: SequenceModel) -> Iterator[None]:
    hooks = GradSampleModule(model, loss_reduction="sum")
    try:
        yield
    finally:
        hooks.cleanup()


@contextmanager
def own_backward(model: SequenceModel) -> Iterator[None]:
    with SampleGradients(model):
        yield


def by_stay(model: SequenceModel, phase: str, batch: TripletBatch, way: str) -> dict[str, Tensor]:
    """Gradients (B, ...) of the parameters that have any."""
    model.zero_grad()
    with opacus_hooks(model) if way == "opacus" else own_backward(model):
        losses(model, phase, batch).sum().backward()  # type: ignore[no-untyped-call]
        return {
            name: parameter.grad_sample  # type: ignore[attr-defined]
            for name, parameter in model.named_parameters()
            if parameter.grad_sample is not None  # type: ignore[attr-defined]
        }


def alone(model: SequenceModel, phase: str, batch: TripletBatch, stay: int) -> dict[str, Tensor]:
    """Gradients of a batch of one stay."""
    model.zero_grad()
    losses(model, phase, one_of(batch, stay)).sum().backward()  # type: ignore[no-untyped-call]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def phases(model: SequenceModel) -> list[str]:
    events = isinstance(model, HyMaTE) and model.event_head is not None
    return ["classify", "forecast", *(["forecast_with_events"] if events else [])]


def assert_equal_to_batches_of_one(model: SequenceModel, way: str) -> None:
    model.train()
    batch = stays([9, 3, 1, 6])
    for phase in phases(model):
        found = by_stay(model, phase, batch, way)
        for stay in range(4):
            expected = alone(model, phase, batch, stay)
            assert found.keys() == expected.keys()
            for name, gradient in expected.items():
                difference = (found[name][stay] - gradient).abs().max()
                assert difference <= 1e-5 * gradient.abs().max() + 1e-7, (phase, name)


@pytest.mark.parametrize("way", ["opacus", "own"])
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_every_parameter(variant: str, way: str, backend: str) -> None:
    model = hymate(**VARIANTS[variant])
    assert not unknown_layers(model)
    assert_equal_to_batches_of_one(model, way)


@pytest.mark.parametrize("name", sorted(COVERED - {"hymate"}))
@pytest.mark.parametrize("way", ["opacus", "own"])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_baselines_of_the_same_layers(name: str, way: str) -> None:
    assert_equal_to_batches_of_one(baseline(name, dropout=0.0), way)


def baseline(name: str, **fields: object) -> SequenceModel:
    config: AnyModelConfig = TypeAdapter(AnyModelConfig).validate_python(
        {"name": name, "d_model": 8, "d_static": 4, **fields}
    )
    return build(config, codes=CODES, static_width=STATIC, time_scale_hours=HOURS, seed=0)


@pytest.mark.parametrize("way", ["opacus", "own"])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_several_labels(way: str) -> None:
    model = hymate(**SUMMARY)
    widen(model, 2, seed=0)
    assert outputs(model, "classify", stays([2, 1])).shape == (2, 3)
    assert_equal_to_batches_of_one(model, way)


@pytest.mark.parametrize("way", ["opacus", "own"])
@pytest.mark.parametrize("lengths", [[], [7], [0], [3, 0]])
@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_batches_of_none_and_of_one(lengths: list[int], way: str, backend: str) -> None:
    """A stay may also be without an observation."""
    model = hymate(event_head=True, value_embedding="affine")
    model.train()
    batch = stays(lengths)
    for phase in phases(model):
        found = by_stay(model, phase, batch, way)
        expected = [alone(model, phase, batch, stay) for stay in range(len(lengths))]
        shapes = {name: p.shape for name, p in model.named_parameters()}
        assert found
        assert all(rows.shape == (len(lengths), *shapes[name]) for name, rows in found.items())
        for stay, of_one in enumerate(expected):
            for name, gradient in of_one.items():
                torch.testing.assert_close(found[name][stay], gradient, rtol=1e-5, atol=1e-6)


def test_which_baselines_are_not_covered() -> None:
    unknown = {name: unknown_layers(baseline(name)) for name in MODELS if name != "hymate"}
    assert {name for name, layers in unknown.items() if not layers} == COVERED - {"hymate"}
    assert unknown["gru"] == ["gru"]
    assert "blocks.0.attention_norm" in unknown["sand"]
    assert set(LAYERS) == KNOWN


def test_only_trained_parameters() -> None:
    model = hymate()
    model.embedding.requires_grad_(False)
    model.mamba[0].requires_grad_(False)
    found = by_stay(model, "classify", stays([4, 2]), "own")
    assert not any(name.startswith(("embedding", "mamba.0", "forecast_head")) for name in found)
    expected = alone(model, "classify", stays([4, 2]), 1)
    assert found.keys() == expected.keys()


def test_norms_and_sums_are_those_of_the_gradients() -> None:
    model = hymate(**SUMMARY, value_embedding="affine")
    batch = stays([9, 3, 5])
    rows = by_stay(model, "classify", batch, "own")
    squares = sum(gradient.flatten(1).square().sum(1) for gradient in rows.values())
    model.zero_grad()
    with SampleGradients(model, Mode.NORMS) as samples:
        made = losses(model, "classify", batch)
        made.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
        assert all(parameter.grad is None for parameter in model.parameters())
        torch.testing.assert_close(samples.squares, squares)
        samples.mode = Mode.SUMS
        made.sum().backward()  # type: ignore[no-untyped-call]
    for name, gradient in rows.items():
        torch.testing.assert_close(dict(model.named_parameters())[name].grad, gradient.sum(0))


def test_nothing_is_left_behind() -> None:
    model = hymate()
    batch, names = stays([3, 2]), list(model.state_dict())
    before, attributes = losses(model, "classify", batch), [set(vars(m)) for m in model.modules()]
    with SampleGradients(model) as samples:
        assert torch.equal(losses(model, "classify", batch), before)
        with torch.no_grad():
            assert torch.equal(losses(model, "classify", one_of(batch, 0)), before[:1])
        samples.clear()
    assert [set(vars(module)) for module in model.modules()] == attributes
    assert not any(vars(parameter) for parameter in model.parameters())
    assert list(copy.deepcopy(model).state_dict()) == names


def test_a_layer_that_sees_the_batch_elsewhere_is_refused() -> None:
    class Elsewhere(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = Linear(2, 2), Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.second(self.first(x).transpose(0, 1))
            return y

    model = Elsewhere()
    with SampleGradients(model), pytest.raises(ValueError, match="3 rows, and another with 5"):
        model(torch.zeros(5, 3, 2))


def test_a_layer_used_twice_adds_up() -> None:
    layer = Linear(2, 2)
    x = torch.randn(3, 4, 2)
    with SampleGradients(layer) as samples:
        layer(layer(x)).square().sum().backward()
        found = layer.weight.grad_sample  # type: ignore[attr-defined]
        samples.clear()
        samples.mode = Mode.NORMS
        with pytest.raises(ValueError, match="called twice"):
            layer(layer(x)).square().sum().backward()
    for stay in range(3):
        (expected,) = torch.autograd.grad(layer(layer(x[stay : stay + 1])).square().sum(), layer.weight)
        torch.testing.assert_close(found[stay], expected)


def test_used_parameters_are_those_of_the_phase() -> None:
    model = hymate(event_head=True)
    batch = stays([1])
    names = {id(parameter): name for name, parameter in model.named_parameters()}

    def used(phase: str) -> set[str]:
        found = used_parameters(model, lambda: outputs(model, phase, batch))
        return {names[id(parameter)].split(".")[0] for parameter in found}

    shared = {"embedding", "mamba", "attention", "norm", "fusion", "static"}
    assert used("classify") == shared | {"classification_head"}
    assert used("forecast") == shared | {"forecast_head"}
    assert used("forecast_with_events") == shared | {"forecast_head", "event_head"}


def test_a_gradient_that_is_not_finite_is_its_stays_alone() -> None:
    model = hymate(**SUMMARY)
    batch = stays([5, 4, 3])
    fine = by_stay(model, "classify", batch, "own")
    batch.value[1, 2] = float("nan")
    with SampleGradients(model):
        losses(model, "classify", batch).sum().backward()  # type: ignore[no-untyped-call]
        used = [parameter for parameter in model.parameters() if parameter.grad_sample is not None]  # type: ignore[attr-defined]
        assert unusable(used).tolist() == [False, True, False]
        for name, parameter in model.named_parameters():
            if name in fine:
                torch.testing.assert_close(parameter.grad_sample[[0, 2]], fine[name][[0, 2]])  # type: ignore[attr-defined]
