"""Q/DQ in the graph, and what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from checks import operators, randomize
from hypothesis import given
from hypothesis import strategies as st
from ptq.placed import conv, image, placed
from torch import Tensor, nn
from torch.fx import GraphModule
from torchvision.models.resnet import BasicBlock

from trtcompile.errors import CalibrationError
from trtcompile.node_info import layer_name
from trtcompile.ptq.insert import insert_qdq, weight_scales

Q, DQ = "quantize_per_tensor", "dequantize_per_tensor"
QW, DQW = "quantize_per_channel", "dequantize_per_channel"


class Scales(Mapping[str, float]):
    """A scale of its own for every name, known from the name alone."""

    def __getitem__(self, name: str) -> float:
        return 0.01 + 0.001 * (sum(map(ord, name)) % 50)

    def __contains__(self, name: object) -> bool:
        return True

    def __iter__(self) -> Any:
        return iter(())

    def __len__(self) -> int:
        return 0


def quantized(model: nn.Module, *inputs: Tensor, scales: Mapping[str, float]) -> GraphModule:
    result = placed(model, inputs)
    insert_qdq(result.graph_module, result.placement, scales)
    return result.graph_module


def short(graph_module: GraphModule) -> list[str]:
    return [name.split(".")[1] for name in operators(graph_module)]


def test_the_graph_of_two_convolutions() -> None:
    graph_module = quantized(
        nn.Sequential(conv(8, 4), nn.ReLU(), conv(4, 4)), image(), scales=Scales()
    )
    layer = [Q, DQ, QW, DQW, "convolution"]
    assert short(graph_module) == [*layer, "relu", *layer]
    first, _ = [n for n in graph_module.graph.nodes if "convolution" in str(n.target)]
    assert first.args[2].op == "get_attr"  # no Q on the bias


def test_a_value_is_quantized_once_for_all_its_readers() -> None:
    graph_module = quantized(
        nn.Sequential(conv(8, 8), nn.ReLU(), BasicBlock(8, 8)), image(), scales=Scales()
    )
    assert short(graph_module).count(Q) == 3
    (add,) = [n for n in graph_module.graph.nodes if "add" in str(n.target)]
    main, residual = add.args
    assert "convolution" in str(main.target) and DQ in str(residual.target)
    assert {layer_name(user) for user in residual.users} == {"convolution_1", "add"}


def test_readers_that_are_not_quantized_read_the_value_itself() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv(8, 8)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            x = torch.relu(x)
            return self.body(x), x.abs()

    graph_module = quantized(Model(), image(), scales=Scales())
    (absolute,) = [n for n in graph_module.graph.nodes if "abs" in str(n.target)]
    assert layer_name(absolute.args[0]) == "relu"


def test_scales_are_those_of_the_table() -> None:
    graph_module = quantized(
        nn.Sequential(conv(8, 4), nn.ReLU(), nn.MaxPool2d(2), conv(4, 4)), image(), scales=Scales()
    )
    nodes = [n for n in graph_module.graph.nodes if Q in str(n.target)]
    for node in nodes:
        value = node.args[0] if DQ not in str(node.target) else node.args[0].args[0]
        assert node.args[1:6] == (Scales()[layer_name(value)], 0, -128, 127, torch.int8)
    names = {layer_name(node) for node in nodes}
    assert {"input_0/quantize", "relu/dequantize", "max_pool2d/quantize"} <= names


def test_a_missing_scale_is_an_error_that_names_the_tensors() -> None:
    model = nn.Sequential(conv(8, 4), nn.ReLU(), conv(4, 4))
    result = placed(model, [image()])
    before = operators(result.graph_module)
    with pytest.raises(CalibrationError, match=r"no scale for relu \(1 tensors\)"):
        insert_qdq(result.graph_module, result.placement, {"input_0": 0.1})
    assert operators(result.graph_module) == before


def reference_scales(weight: np.ndarray, axis: int) -> np.ndarray:
    """Channel by channel, in plain numpy."""
    channels = np.moveaxis(weight, axis, 0)
    largest = [np.abs(channel).max() for channel in channels]
    return np.array([(amax if amax > 0 else 1.0) / 127 for amax in largest], dtype=np.float32)


@given(
    st.lists(st.integers(1, 5), min_size=2, max_size=5),
    st.integers(0, 4),
    st.integers(0, 2**31 - 1),
)
def test_weight_scales_against_numpy(shape: list[int], axis: int, seed: int) -> None:
    axis %= len(shape)
    weight = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    np.moveaxis(weight, axis, 0)[0] *= seed % 2  # a channel of zeros, at times
    scales = weight_scales(torch.from_numpy(weight), axis)
    assert scales.dtype == torch.float32
    np.testing.assert_array_equal(scales.numpy(), reference_scales(weight, axis))


def test_a_channel_of_zeros_stays_zero() -> None:
    model = nn.Sequential(conv(8, 4))
    nn.init.zeros_(model[0].weight[2:3])
    graph_module = quantized(model, image(), scales=Scales())
    scales = next(v for name, v in graph_module.named_buffers() if name.endswith("_scales"))
    assert torch.isfinite(scales).all() and scales[2] == pytest.approx(1 / 127)
    with torch.no_grad():
        (output,) = graph_module(image())
        bias = model[0].bias[2]
    torch.testing.assert_close(output[:, 2], bias.expand_as(output[:, 2]), rtol=0, atol=1e-6)


def test_a_channel_of_subnormal_numbers_is_no_nan() -> None:
    """Training leaves such channels; their amax / 127 is no number that can be divided by."""
    weight = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    weight[1] = 1e-43
    for largest in (127.0, 448.0):
        scales = weight_scales(weight, 0, largest)
        assert (scales >= torch.finfo(torch.float32).tiny).all()
        kept = torch.fake_quantize_per_channel_affine(
            weight, scales, torch.zeros(3, dtype=torch.int32), 0, -127, 127
        )
        assert torch.equal(kept[1], torch.zeros(5)) and kept.isfinite().all()


def fake_quantized(x: np.ndarray, scale: np.ndarray | float, low: int) -> np.ndarray:
    """clamp(round(x / scale)) * scale in plain numpy; numpy rounds ties to even, too."""
    return np.clip(np.round(x / np.float32(scale)), low, 127) * np.float32(scale)


@pytest.mark.parametrize("kind", ["convolution", "transposed", "linear"])
def test_the_simulation_of_one_layer_against_numpy(kind: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x = 2 * torch.randn(2, 6, 5, 5, generator=generator)
    if kind == "linear":
        module, x = nn.Linear(6, 5), x[0, :, 0].T.contiguous()
        layer: Any = F.linear
    elif kind == "convolution":
        module, layer = nn.Conv2d(6, 5, 3), F.conv2d
    else:
        module, layer = nn.ConvTranspose2d(6, 5, 3), F.conv_transpose2d
    randomize(module, seed=0)
    scale = 0.0123  # clamps what is beyond 1.57
    graph_module = quantized(nn.Sequential(module), x, scales={"input_0": scale})
    weight = module.weight.detach().numpy()
    axis = 1 if kind == "transposed" else 0
    shape = [-1 if d == axis else 1 for d in range(weight.ndim)]
    with torch.no_grad():
        (actual,) = graph_module(x)
        expected = layer(
            torch.from_numpy(fake_quantized(x.numpy(), scale, -128)),
            torch.from_numpy(
                fake_quantized(weight, reference_scales(weight, axis).reshape(shape), -127)
            ),
            module.bias,
        )
        unquantized = module(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-5)
    assert (actual - unquantized).abs().max() > 0.05


def test_a_shared_weight_is_quantized_for_each_call() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.relu(self.body(x)))

    graph_module = quantized(Shared(), image(), scales=Scales())
    assert short(graph_module).count(QW) == 2 and short(graph_module).count(Q) == 2


def test_new_nodes_keep_where_they_came_from() -> None:
    graph_module = quantized(nn.Sequential(nn.ReLU(), conv(8, 4)), image(), scales=Scales())
    nodes = {layer_name(node): node for node in graph_module.graph.nodes}
    relu, convolution = nodes["relu"], nodes["convolution"]
    assert nodes["relu/quantize"].meta["stack_trace"] == relu.meta["stack_trace"]
    weight = nodes["convolution/weight/quantize"]
    assert weight.meta["stack_trace"] == convolution.meta["stack_trace"]
    assert weight.meta["val"].dtype == torch.int8
    assert nodes["relu/dequantize"].meta["val"].dtype == torch.float32
