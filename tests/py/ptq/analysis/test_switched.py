"""Quantization of some layers only, against the graph itself, the model, and other placements."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import randomize
from simulated import fake_quantized, fake_quantized_weight, fitted, simulated, switched
from small_models import Chain, Dense, Outlier, Residual
from torch import nn
from torch.nn import functional as F

from trtcompile.errors import CalibrationError
from trtcompile.ptq.analysis.layers import QuantizedLayers


def image(size: int = 8, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 3, size, size, generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def residual() -> nn.Module:
    return randomize(Residual(), 2)


@pytest.mark.parametrize(
    "precisions", [{torch.int8}, {torch.int8, torch.half}], ids=["int8", "fp16"]
)
def test_all_on_is_the_simulation_and_all_off_the_model(
    residual: nn.Module, precisions: Any
) -> None:
    x = image()
    simulation = simulated(residual, [x.shape], enabled_precisions=precisions)
    runner, layers = switched(simulation)
    batch = fitted(simulation, x)
    with torch.no_grad():
        expected, plain = simulation.lowered(x), residual(x)
    for actual, reference in zip(runner.outputs(batch, layers.names), expected, strict=True):
        assert torch.equal(actual, reference)
    tolerance = 1e-5 if torch.half not in precisions else 1e-2
    for actual, reference, quantized in zip(
        runner.outputs(batch, ()), plain, expected, strict=True
    ):
        torch.testing.assert_close(actual.float(), reference, rtol=tolerance, atol=tolerance)
        assert (actual - quantized).abs().max() > 2 * tolerance


def test_one_layer_on_by_hand() -> None:
    model, x = Chain(), image(6)
    simulation = simulated(model, [x.shape])
    runner, layers = switched(simulation)
    assert layers.names == ("convolution", "linear")
    with torch.no_grad():
        quantized = F.conv2d(
            fake_quantized(x, 0.02), fake_quantized_weight(model.kernel), padding=1
        )
        first = F.linear(F.relu(quantized).flatten(1), model.weight, model.bias)
        hidden = F.relu(F.conv2d(x, model.kernel, padding=1)).flatten(1)
        second = F.linear(
            fake_quantized(hidden, 0.02), fake_quantized_weight(model.weight), model.bias
        )
    for name, expected in (("convolution", first), ("linear", second)):
        (actual,) = runner.outputs(fitted(simulation, x), (name,))
        torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)


def test_what_belongs_to_a_layer(residual: nn.Module) -> None:
    _, layers = switched(simulated(residual, [(2, 3, 8, 8)]))
    assert {layer.name: layer.tensors for layer in layers.layers} == {
        "convolution": ("input_0",),
        "convolution_1": ("relu", "max_pool2d"),
        "convolution_2": ("relu", "relu_1", "max_pool2d"),  # with the residual
        "linear": ("relu_2", "adaptive_avg_pool2d", "reshape"),
        "linear_1": ("relu_2", "adaptive_avg_pool2d", "reshape"),
    }


@pytest.mark.parametrize(
    ("make", "name"),
    [
        *((Residual, f"convolution{n}") for n in ("", "_1", "_2")),
        *((Residual, f"linear{n}") for n in ("", "_1")),
        *((Dense, f"convolution{n}") for n in ("_1", "_2", "_3", "_4")),
        (Dense, "linear"),
    ],
)
def test_a_layer_off_is_a_layer_that_the_placement_leaves_out(
    make: type[nn.Module], name: str
) -> None:
    x, model = image(), randomize(make(), 2)
    simulation = simulated(model, [x.shape])
    runner, layers = switched(simulation)
    without = simulated(model, [x.shape], int8_excluded_nodes={name}).lowered
    assert name not in QuantizedLayers(without).names
    on = [other for other in layers.names if other != name]
    with torch.no_grad():
        expected = without(x)
    for actual, reference in zip(runner.outputs(fitted(simulation, x), on), expected, strict=True):
        torch.testing.assert_close(actual, reference, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("precisions", [{torch.int8}, {torch.int8, torch.half}])
def test_the_layers_of_a_dense_block_are_its_products(precisions: Any) -> None:
    model = randomize(Dense(), 2)
    _, layers = switched(simulated(model, [(2, 3, 8, 8)], enabled_precisions=precisions))
    assert layers.names == (*(f"convolution_{n}" for n in range(1, 5)), "linear")


def test_weights_are_quantized_once(monkeypatch: pytest.MonkeyPatch) -> None:
    simulation = simulated(Outlier(), [(2, 8)])
    runner, layers = switched(simulation)
    calls: list[str] = []
    original = runner.call_function

    def counted(target: Any, args: Any, kwargs: Any) -> Any:
        calls.append(str(target))
        return original(target, args, kwargs)

    monkeypatch.setattr(runner, "call_function", counted)
    for _ in range(3):
        runner.outputs(fitted(simulation, torch.randn(2, 8)), layers.names)
    assert sum("quantize_per_channel" in call for call in calls) == 2 * 3  # each weight: Q and DQ


def test_a_model_that_fails_on_a_batch() -> None:
    simulation = simulated(
        nn.Sequential(nn.Embedding(4, 8), nn.Linear(8, 8)), [torch.tensor([1, 2])]
    )
    runner, _ = switched(simulation)
    with pytest.raises(
        CalibrationError, match="The model fails on batch 0 of the data: IndexError"
    ):
        runner.outputs(fitted(simulation, torch.tensor([1, 9])), ())
