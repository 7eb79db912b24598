"""The model zoo, whole: one engine each, right in FP32, and INT8 where it says so."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from checks import build_device, capture_for_test, randomize, run_in_oracle
from models.cut_at_quantize import errors_between_cuts
from models.network_precision import int8_products, products
from torch import Tensor, nn
from torch.fx import GraphModule

import trtcompile
from trtcompile import Input
from trtcompile.capture import CapturedGraph
from trtcompile.compiler import prepare, split
from trtcompile.conversion import NetworkDefinition, convert
from trtcompile.engine import Engine, build_engine
from trtcompile.partition import PartitionedGraph, PartitionReport
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator
from trtcompile.settings import CompileSpec

#: Of the output's standard deviation across inputs.
FP32_TOLERANCE = 1e-4
#: Of a value's RMS, between two cuts: a few elements that round the other way, and no more.
INT8_TOLERANCE = 1e-3
#: dB that INT8 keeps on random weights, and that wrong scales do not.
LEAST_SQNR = 6.0


@dataclass(frozen=True)
class Case:
    """A model of torchvision and a small size of its images.

    ``settled`` fits running statistics to data: with random ones, 19 layers deep, outputs hardly differ between images,
    and eager FP32 itself is 2e-4 of their spread away from FP64. Settled, they differ, and the noise of 19 quantized
    layers grows with them: hence a lower ``least_sqnr``, in dB.

    GoogLeNet ends in maps of 3x3 at size 96. At 64 they are 2x2, and means of four integers lie on
    the edge between two integers far too often to compare roundings.
    """

    name: str
    size: int = 64
    settled: bool = False
    least_sqnr: float = LEAST_SQNR

    def build(self) -> nn.Module:
        import torchvision

        options = {"init_weights": False} if self.name == "googlenet" else {}
        model = getattr(torchvision.models, self.name)(weights=None, **options)
        model = randomize(model, seed=len(self.name))
        return settle(model, images(16, self.size, seed=3)) if self.settled else model


FAST = (
    Case("vgg16", 32),
    Case("vgg11_bn", 32),
    Case("vgg11", 32),
    Case("alexnet"),
    Case("squeezenet1_1"),
    Case("resnet18"),
    Case("resnet50"),
    Case("mobilenet_v2"),
    Case("densenet121"),
    Case("googlenet", 96),
)
SLOW = (
    Case("vgg13", 32),
    Case("vgg13_bn", 32),
    Case("vgg16_bn", 32),
    Case("vgg19", 32),
    Case("vgg19_bn", 32, settled=True, least_sqnr=3.0),
    Case("squeezenet1_0"),
)
CASES = [
    *(pytest.param(case, id=case.name) for case in FAST),
    *(pytest.param(case, id=case.name, marks=pytest.mark.slow) for case in SLOW),
]


def settle(model: nn.Module, x: Tensor) -> nn.Module:
    """Gives every batch norm the running statistics of ``x``."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this batch alone
    with torch.no_grad():
        model(x)
    return model.eval()


def images(count: int, size: int, seed: int) -> Tensor:
    """Signed images that differ in the large as well as in the small, so that outputs differ too."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 3, 3, generator=generator)
    coarse = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
    return 1.5 * coarse + 0.5 * torch.randn(count, 3, size, size, generator=generator)


def spread(outputs: Tensor) -> Tensor:
    """The standard deviation across inputs, over all outputs."""
    return (outputs - outputs.mean(0)).square().mean().sqrt()


def assert_same_outputs(actual: Tensor, expected: Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error = float((actual - expected).abs().max() / spread(expected))
    assert error < tolerance, f"error of {error:.2e} standard deviations"


def sqnr(actual: Tensor, expected: Tensor) -> float:
    """Signal to noise, in dB, of outputs without their mean over the inputs."""
    signal = expected - expected.mean(0)
    noise = actual - actual.mean(0) - signal
    return float(10 * torch.log10(signal.square().sum() / noise.square().sum()))


def without_gradients(model: Callable[[Tensor], Any], x: Tensor) -> Any:
    with torch.no_grad():
        return model(x)


def simulate(captured: CapturedGraph, x: Tensor) -> Tensor:
    (output,) = without_gradients(captured.graph_module, x)
    return output


@dataclass(frozen=True)
class Stages:
    """What lies between a captured graph and an engine."""

    partitioned: PartitionedGraph
    report: PartitionReport
    network: NetworkDefinition
    spec: CompileSpec

    def run(self, x: Tensor) -> Tensor:
        """The network's output according to the oracle."""
        (output,) = run_in_oracle(self.network, [x])
        return output

    def build(self) -> Engine:
        (engine,) = self.partitioned.engines
        return build_engine("engine_0", self.network, engine.profiles, self.spec)


def stages(captured: CapturedGraph, **options: Any) -> Stages:
    """Every stage of a compilation before NVIDIA's builder; exactly one engine, nothing left over."""
    spec = CompileSpec(
        device=build_device(disable_tf32=True), require_full_compilation=True, **options
    )
    _, quantization = prepare(captured, spec)
    partitioned, report = split(captured, spec, quantization)
    left_out = [row for row in report.placement if row.value is None]
    assert not left_out and not report.fallbacks
    (engine,) = partitioned.engines
    return Stages(partitioned, report, convert(engine.graph_module), spec)


def minmax(data: Tensor) -> DataLoaderCalibrator:
    algo = CalibrationAlgo.MINMAX_CALIBRATION
    return DataLoaderCalibrator([data], algo_type=algo, progress=False)


def weighted_modules(model: nn.Module) -> int:
    """Convolutions and linear layers that run in inference."""
    return sum(
        isinstance(module, (nn.Conv2d, nn.Linear)) and not name.startswith("aux")
        for name, module in model.named_modules()
    )


def int8_in_graph(graph_module: GraphModule) -> int:
    """Convolutions and linear layers whose input and weight are read through INT8."""
    aten, qd = torch.ops.aten, torch.ops.quantized_decomposed

    def is_int8(node: Any, dequantize: Any, quantize: Any) -> bool:
        quantized = node.args[0] if node.target is dequantize else None
        return (
            quantized is not None
            and quantized.target is quantize
            and quantized.meta["val"].dtype == torch.int8
        )

    return sum(
        node.target in (aten.convolution.default, aten.linear.default)
        and is_int8(node.args[0], qd.dequantize_per_tensor.default, qd.quantize_per_tensor.default)
        and is_int8(
            node.args[1], qd.dequantize_per_channel.default, qd.quantize_per_channel.default
        )
        for node in graph_module.graph.nodes
    )


def with_scales_times(factor: float, graph_module: GraphModule) -> GraphModule:
    """The simulation with every activation scale multiplied."""
    qd = torch.ops.quantized_decomposed
    changed = GraphModule(graph_module, copy.deepcopy(graph_module.graph))
    for node in changed.graph.nodes:
        if node.target in (qd.quantize_per_tensor.default, qd.dequantize_per_tensor.default):
            node.args = (node.args[0], node.args[1] * factor, *node.args[2:])
    changed.recompile()
    return changed


@pytest.mark.parametrize("case", CASES)
def test_one_engine_with_the_right_values_in_fp32_and_in_int8(case: Case) -> None:
    model = case.build()
    x = images(4, case.size, seed=1)
    expected = without_gradients(model, x)
    captured = capture_for_test(model, [x])

    fp32 = stages(captured)
    assert_same_outputs(fp32.run(x), expected, FP32_TOLERANCE)

    # The same graph, lowered already, goes through the pipeline once more.
    int8 = stages(
        captured,
        enabled_precisions={torch.int8},
        calibrator=minmax(images(8, case.size, seed=2)),
    )
    count = weighted_modules(model)
    assert int8_in_graph(captured.graph_module) == count
    assert len(products(int8.network.definition)) == count
    assert len(int8_products(int8.network.definition)) == count
    assert int8.report.multiply_add_share("INT8") == 1.0

    simulated = simulate(captured, x)
    errors = errors_between_cuts(int8.partitioned.engines[0].graph_module, [x])
    assert len(errors) > count / 2 and max(errors.values()) < INT8_TOLERANCE, errors
    assert sqnr(simulated, expected) > case.least_sqnr
    assert sqnr(int8.run(x), expected) > case.least_sqnr
    for factor in (8.0, 1 / 8):
        wrong = without_gradients(with_scales_times(factor, captured.graph_module), x)
        assert sqnr(wrong[0], expected) < case.least_sqnr

    assert len(int8.build().plan) > 0


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return Case("resnet18").build()


@pytest.fixture(scope="module")
def resnet_stages(resnet: nn.Module) -> Stages:
    return stages(capture_for_test(resnet, [images(4, 64, seed=1)]))


@pytest.mark.parametrize("stage", [1, 2, 3, 4])
@pytest.mark.parametrize("block", [0, 1])
def test_the_fp32_check_notices_every_residual_branch(
    resnet: nn.Module, resnet_stages: Stages, stage: int, block: int
) -> None:
    x = images(4, 64, seed=1)
    assert_same_outputs(resnet_stages.run(x), without_gradients(resnet, x), FP32_TOLERANCE)
    other = copy.deepcopy(resnet)
    norm = other.get_submodule(f"layer{stage}.{block}.bn2")
    nn.init.zeros_(norm.weight)
    nn.init.zeros_(norm.bias)
    with pytest.raises(AssertionError, match="standard deviations"):
        assert_same_outputs(resnet_stages.run(x), without_gradients(other, x), FP32_TOLERANCE)


def test_networks_without_qdq_have_no_int8_products(resnet_stages: Stages) -> None:
    definition = resnet_stages.network.definition
    assert len(products(definition)) == 21
    assert int8_products(definition) == []


def test_compile_builds_an_int8_plan_of_a_third_of_the_fp32_plan(resnet: nn.Module) -> None:
    options = {"inputs": [Input((1, 3, 64, 64))], "device": build_device()}
    fp32 = trtcompile.compile(resnet, **options)
    int8 = trtcompile.compile(
        resnet,
        enabled_precisions={torch.int8},
        calibrator=minmax(images(8, 64, seed=2)),
        **options,
    )
    (fp32_engine,), (int8_engine,) = fp32.engines, int8.engines
    assert len(int8_engine.plan) <= 0.35 * len(fp32_engine.plan)
    x = images(1, 64, seed=3)
    assert_close_to_eager(fp32.lowered, resnet, x, 1e-4)
    assert_close_to_eager(int8.lowered, resnet, x, 1.0)
    with pytest.raises(AssertionError):
        assert_close_to_eager(int8.lowered, resnet, x, 1e-4)


def assert_close_to_eager(simulation: nn.Module, model: nn.Module, x: Tensor, atol: float) -> None:
    expected = without_gradients(model, x)
    torch.testing.assert_close(without_gradients(simulation, x), expected, rtol=0, atol=atol)
