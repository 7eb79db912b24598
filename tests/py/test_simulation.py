"""The arithmetic of quantized products in a simulation: FP32 up to what their kernel writes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from checks import randomize
from torch import Tensor, nn
from torch.fx import GraphModule, Node

import trtcompile
from trtcompile import Input
from trtcompile.node_info import operator_name
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator
from trtcompile.ptq.analysis.layers import QuantizedLayers

FAST = {torch.float, torch.half, torch.int8}
SHAPE = (2, 16, 8, 8)


class Residual(nn.Module):
    """The second convolution adds the input and is quantized for the third, and read by a softmax besides."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(self.two(torch.relu(self.one(x))) + x)
        return self.three(y), torch.softmax(y, 1)


def images(seed: int = 0) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


def simulated(model: nn.Module, precisions: set[torch.dtype]) -> GraphModule:
    calibrator = DataLoaderCalibrator(
        [images()], algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
    )
    return trtcompile.simulate(
        model,
        [Input(SHAPE)],
        enabled_precisions=precisions,
        calibrator=calibrator,
    ).lowered


def of_constant(node: Node) -> bool:
    """Whether it is a constant, its cast, or its Q/DQ."""
    derives = any(kind in node.name for kind in ("copy", "quantize_per_channel"))
    return node.op == "get_attr" or (derives and of_constant(node.all_input_nodes[0]))


def typed(graph_module: GraphModule) -> list[str]:
    """Each operator with the dtype of its result; those on weights and biases are left out."""
    names = {torch.float32: "f32", torch.float16: "f16", torch.int8: "i8"}
    return [
        f"{operator_name(node).split('.')[1]}:{names[node.meta['val'].dtype]}"
        for node in graph_module.graph.nodes
        if node.op == "call_function" and not of_constant(node)
    ]


@pytest.fixture
def model() -> nn.Module:
    return randomize(Residual(), 3).eval()


def test_products_are_fp32_up_to_what_their_kernel_writes(model: nn.Module) -> None:
    assert typed(simulated(model, FAST)) == [
        "quantize_per_tensor:i8",
        "dequantize_per_tensor:f32",
        "convolution:f32",
        "relu:f32",
        "quantize_per_tensor:i8",  # of the kernel's own result: nothing else reads it
        "dequantize_per_tensor:f32",
        "convolution:f32",
        "add:f32",  # with the residual, dequantized
        "relu:f32",
        "_to_copy:f16",  # what the kernel writes: the quantize node reads it too
        "_to_copy:f32",
        "quantize_per_tensor:i8",
        "dequantize_per_tensor:f32",
        "convolution:f32",  # the last layer is FP32 in the network too
        "softmax:f32",
    ]


def test_the_values_are_those_of_exact_sums_rounded_where_they_are_written() -> None:
    """Against a computation by hand, in FP64."""
    model = nn.Sequential(nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Sigmoid()).eval()
    randomize(model, 4)
    x = images(seed=1)
    with torch.no_grad():
        actual = simulated(model, FAST)(x)
        scale = float(torch.tensor(float(images().abs().max()) / 127))
        data = (x / scale).round().clamp(-128, 127).double() * scale
        weight = model[0].weight.double()
        scales = (weight.abs().amax(dim=(1, 2, 3), keepdim=True).float() / 127).double()
        weight = (weight / scales).round() * scales
        bias = model[0].bias.half().double()
        written = F.relu(F.conv2d(data, weight, bias)).half()
        expected = torch.sigmoid(written).float()
    steps = (actual - expected).abs() / torch.finfo(torch.float16).eps
    assert (steps > 0).float().mean() < 0.01 and steps.max() <= 1


def test_without_fp16_nothing_changes(model: nn.Module) -> None:
    assert all(":f16" not in row for row in typed(simulated(model, {torch.int8})))


class Branches(nn.Module):
    """A convolution's result is added to, and is a residual later."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = self.one(x)
        y = torch.relu(one + x)
        return self.three(self.two(y) + one), y


@pytest.mark.parametrize("net", [Residual, Branches])
def test_layers_and_their_tensors_are_called_as_in_fp32(net: type[nn.Module]) -> None:
    model = randomize(net(), 3).eval()
    single, half = (simulated(model, precisions) for precisions in ({torch.int8}, FAST))
    expected = [(layer.name, layer.tensors) for layer in QuantizedLayers(single).layers]
    assert len(expected) == 3
    assert [(layer.name, layer.tensors) for layer in QuantizedLayers(half).layers] == expected


class Normed(nn.Module):
    """A norm that no layer absorbs, since its input is read twice; what reads its result is the test's."""

    def __init__(self, after: nn.Module) -> None:
        super().__init__()
        self.before, self.norm, self.after = nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16), after

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.before(x)
        return self.after(torch.relu(self.norm(y))), torch.softmax(y, 1)


def test_a_norm_between_dequantize_and_quantize_is_fp32() -> None:
    names = typed(simulated(randomize(Normed(nn.Conv2d(16, 4, 1)), 4), FAST))
    assert names[names.index("addcmul:f32") :] == [
        "addcmul:f32",
        "relu:f32",
        "quantize_per_tensor:i8",
        "dequantize_per_tensor:f32",
        "convolution:f32",
        "softmax:f32",
    ]


class NormedTwice(Normed):
    """The second norm reads INT8 because the first does; its own result stays a float."""

    def __init__(self) -> None:
        super().__init__(nn.Conv2d(16, 4, 1))
        self.other = nn.BatchNorm2d(16)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.before(x)
        return self.after(torch.relu(self.norm(y))), torch.sigmoid(self.other(y))


def test_a_norm_that_writes_floats_computes_in_fp16() -> None:
    names = typed(simulated(randomize(NormedTwice(), 4), FAST))
    assert names.count("addcmul:f32") == names.count("addcmul:f16") == 1


def test_the_values_of_a_norm_are_rounded_once() -> None:
    """Against a computation by hand, in FP64."""
    model = randomize(Normed(nn.Conv2d(16, 4, 1)), 4)
    graph_module = simulated(model, FAST)
    (norm,) = (n for n in graph_module.graph.nodes if "addcmul" in n.name)
    (quantize,) = next(iter(norm.users)).users
    values: dict[str, Tensor] = {}

    class Recorder(torch.fx.Interpreter):
        def run_node(self, n: Node) -> object:
            result = super().run_node(n)
            values[n.name] = result
            return result

    with torch.no_grad():
        Recorder(graph_module).run(images(seed=1))
    shift, data, scale = (values[n.name].double() for n in norm.all_input_nodes)
    step = quantize.args[1]
    expected = ((data * scale + shift).clamp(min=0) / step).round().clamp(-128, 127)
    assert torch.equal(values[quantize.name].double(), expected)
