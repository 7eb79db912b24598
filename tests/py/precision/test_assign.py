"""Which operators compute in FP16, and the casts around them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import check_op, randomize
from partition.partitioned import Parts, assert_runs_as, parts
from torch import Tensor, nn
from torch.fx import GraphModule

from trtcompile.node_info import operator_name
from trtcompile.precision.assign import KEPT_IN_FP32
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

HALF = {torch.float32, torch.float16}


def image(seed: int = 0, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, 8, 8, generator=torch.Generator().manual_seed(seed))


def typed(graph_module: GraphModule) -> list[str]:
    """Each operator of a graph with the dtype of its result."""
    names = {torch.float32: "f32", torch.float16: "f16", torch.int8: "i8", torch.int64: "i64"}
    result = []
    for node in graph_module.graph.nodes:
        if node.op == "call_function":
            value = node.meta["val"]
            value = value[0] if isinstance(value, (tuple, list)) else value
            name = operator_name(node)
            name = name.split(".")[1] if "." in name else name
            result.append(f"{name}:{names.get(value.dtype, value.dtype)}")
    return result


def lowered(model: Any, *inputs: Tensor, **options: Any) -> Parts:
    return parts(model, inputs, enabled_precisions=HALF, **options)


def assert_types_are_true(graph_module: GraphModule, *inputs: Tensor) -> None:
    """The dtypes that the graph declares are those that running it gives."""

    class Typed(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            if isinstance(value, Tensor) and n.op != "output":
                assert value.dtype == n.meta["val"].dtype, n.format_node()
                assert value.shape == n.meta["val"].shape, n.format_node()
            return value

    with torch.no_grad():
        Typed(graph_module).run(*inputs)


def test_casts_are_only_at_the_borders() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.Flatten())
    result = lowered(model, image())
    assert typed(result.lowered) == [
        "_to_copy:f16",
        "convolution:f16",
        "relu:f16",
        "convolution:f16",
        "reshape:f16",
        "_to_copy:f32",
    ]
    assert_types_are_true(result.lowered, image())
    weights = {
        str(node.target): node.meta["val"].dtype
        for node in result.lowered.graph.nodes
        if node.op == "get_attr"
    }
    assert set(weights.values()) == {torch.float16} and len(weights) == 4
    assert {tensor.dtype for tensor in result.lowered.buffers()} == {torch.float16}


def test_sensitive_operators_stay_in_fp32() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(torch.softmax(torch.relu(x), dim=1))

    result = lowered(model, image())
    (softmax,) = [name for name in typed(result.lowered) if "softmax" in name]
    assert softmax.endswith(":f32")
    assert typed(result.lowered) == [
        "_to_copy:f16",
        "relu:f16",
        "_to_copy:f32",
        softmax,
        "_to_copy:f16",
        "relu:f16",
        "_to_copy:f32",
    ]


@pytest.mark.parametrize(
    "function",
    [
        torch.exp,
        lambda x: torch.log(x.abs() + 1),
        lambda x: torch.rsqrt(x.abs() + 1),
        lambda x: torch.reciprocal(x.abs() + 1),
        lambda x: x**2,
        lambda x: x.sum((2, 3)),
        lambda x: F.log_softmax(x, dim=1),
    ],
    ids=["exp", "log", "rsqrt", "reciprocal", "pow", "sum", "log_softmax"],
)
def test_each_kind_that_is_kept_in_fp32(function: Any) -> None:
    graph_module = lowered(function, image()).lowered
    kept = [node for node in graph_module.graph.nodes if node.target in KEPT_IN_FP32]
    assert kept
    for node in kept:
        assert node.meta["val"].dtype == torch.float32
        assert all(n.meta["val"].dtype == torch.float32 for n in node.all_input_nodes)


def test_one_cast_serves_all_readers() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(x) + torch.tanh(x)

    assert typed(lowered(model, image()).lowered) == [
        "_to_copy:f16",
        "relu:f16",
        "tanh:f16",
        "add:f16",
        "_to_copy:f32",
    ]


def test_outputs_are_fp32_also_where_the_model_reads_them_again() -> None:
    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.relu(x)
        return y, torch.tanh(y)

    result = lowered(model, image())
    assert [output.dtype for output in result.run(image())] == [torch.float32] * 2
    assert typed(result.lowered).count("_to_copy:f32") == 2


def test_integers_and_bools_are_left_alone() -> None:
    def model(x: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        return torch.where(x > 0, x, x * 2), index + 1

    result = parts(model, [image(), torch.arange(3)], enabled_precisions=HALF)
    assert "add:i64" in typed(result.lowered)
    values = result.run(image(), torch.arange(3))
    assert values[0].dtype == torch.float32 and values[1].dtype == torch.int64


def test_pytorch_between_engines_works_in_fp32() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.Conv2d(4, 4, 3))
    result = parts(model, [image()], "sigmoid", enabled_precisions=HALF)
    assert typed(result.lowered) == [
        "_to_copy:f16",
        "convolution:f16",
        "_to_copy:f32",
        "sigmoid:f32",
        "_to_copy:f16",
        "convolution:f16",
        "_to_copy:f32",
    ]
    assert result.torch == ["sigmoid"]
    assert_types_are_true(result.lowered, image())
    assert_runs_as(result, model, image(), tolerance=2e-2)


def int8_and(
    precisions: set[torch.dtype], model: nn.Module, *excluded: str, channels: int = 3
) -> Parts:
    algo = CalibrationAlgo.MINMAX_CALIBRATION
    data = image(channels=channels)
    calibrator = DataLoaderCalibrator([data], algo_type=algo, progress=False)
    return parts(
        model,
        [data],
        *excluded,
        enabled_precisions={torch.int8, *precisions},
        calibrator=calibrator,
    )


def test_quantize_reads_either_type_and_dequantize_gives_the_readers_type() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU())
    result = int8_and(HALF, model)
    assert typed(result.lowered) == [
        "quantize_per_tensor:i8",  # reads the FP32 input without a cast
        "dequantize_per_tensor:f16",
        "quantize_per_channel:i8",  # of FP32 weights, to lose nothing
        "dequantize_per_channel:f16",
        "convolution:f16",
        "relu:f16",
        "quantize_per_tensor:i8",  # reads FP16
        "dequantize_per_tensor:f16",
        "quantize_per_channel:i8",
        "dequantize_per_channel:f16",
        "convolution:f16",
        "relu:f16",
        "_to_copy:f32",
    ]
    assert_types_are_true(result.lowered, image())
    attributes = {
        str(node.target): node.meta["val"].dtype
        for node in result.lowered.graph.nodes
        if node.op == "get_attr"
    }
    dtypes = {name.split("_")[-1]: dtype for name, dtype in attributes.items()}
    assert dtypes == {
        "weight": torch.float32,
        "scales": torch.float32,
        "points": torch.int64,
        "fp16": torch.float16,  # biases
    }


def test_an_int8_last_layer_gives_fp32_without_a_cast() -> None:
    result = int8_and(HALF, nn.Sequential(nn.ReLU(), nn.Conv2d(3, 4, 3)))
    assert typed(result.lowered)[-1] == "convolution:f32"


class TestPooledConvolutions:
    """What TensorRT fuses with the pooling behind it if it is FP32."""

    @staticmethod
    def types(*layers: nn.Module, channels: int = 3) -> list[str]:
        result = int8_and(
            HALF, nn.Sequential(*layers, nn.Conv2d(4, 4, 1), nn.ReLU()), channels=channels
        )
        assert_types_are_true(result.lowered, image(channels=channels))
        kinds = ("convolution", "relu", "max_pool2d", "tanh", "leaky_relu")
        return [one for one in typed(result.lowered) if one.startswith(kinds)][:-2]

    def test_an_image_convolution_and_its_pooling_are_fp32(self) -> None:
        layers = (nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        assert self.types(*layers) == ["convolution:f32", "relu:f32", "max_pool2d:f32"]

    @pytest.mark.parametrize("channels", [4, 5])
    def test_up_to_four_channels(self, channels: int) -> None:
        layers = (nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
        types = self.types(*layers, channels=channels)
        assert types[0] == ("convolution:f32" if channels == 4 else "convolution:f16")

    @pytest.mark.parametrize(
        "layers",
        [
            (nn.ReLU(),),
            (nn.MaxPool2d(2),),
            (nn.LeakyReLU(), nn.MaxPool2d(2)),
            (nn.ReLU(), nn.MaxPool2d(2), nn.Tanh()),
        ],
        ids=["no pool", "no relu", "another activation", "pool not quantized"],
    )
    def test_others_are_fp16(self, layers: tuple[nn.Module, ...]) -> None:
        types = self.types(nn.Conv2d(3, 4, 3), *layers)
        assert types and all(one.endswith(":f16") for one in types)

    def test_a_relu_that_others_read_is_fp16(self) -> None:
        class TwoReaders(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.pooled, self.direct = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)

            def forward(self, x: Tensor) -> Tensor:
                return self.pooled(F.max_pool2d(x, 3, stride=1, padding=1)) + self.direct(x)

        types = self.types(nn.Conv2d(3, 4, 3), nn.ReLU(), TwoReaders())
        assert types and all(one.endswith(":f16") for one in types)

    def test_the_simulation_is_that_of_the_network(self) -> None:
        """Nothing in it is rounded to FP16 between its two quantize nodes."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1))
        half, single = (int8_and(precisions, model) for precisions in (HALF, {torch.float32}))
        with torch.no_grad():
            assert torch.equal(half.lowered(image())[0], single.lowered(image())[0])


class MixedReaders(nn.Module):
    """One quantized value, read by a convolution in FP16 and, in the end, by one that gives FP32."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.tanh(x)
        return torch.relu(self.first(x)), self.second(x)


def test_readers_of_different_types_have_dequantize_nodes_of_their_own() -> None:
    result = int8_and(HALF, MixedReaders())
    kinds = typed(result.lowered)
    assert kinds.count("quantize_per_tensor:i8") == 1
    assert kinds.count("dequantize_per_tensor:f16") == 1
    assert kinds.count("dequantize_per_tensor:f32") == 1
    assert_types_are_true(result.lowered, image())


def test_no_fp16_where_it_is_not_enabled() -> None:
    result = int8_and({torch.float32}, MixedReaders())
    assert not any("f16" in kind or "_to_copy" in kind for kind in typed(result.lowered))


def test_an_explicit_dtype_argument_is_obeyed() -> None:
    def model(x: Tensor) -> Tensor:
        x = torch.relu(x)
        return torch.relu(x.mean((2, 3), dtype=torch.float32)) + torch.full((2, 3), 0.5)

    result = lowered(model, image())
    assert_types_are_true(result.lowered, image())
    assert_runs_as(result, model, image(), tolerance=1e-2)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.skip, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(self.body(x) + self.skip(x), 2)
        return torch.softmax(self.head(x.mean((2, 3))), dim=1)


def test_values_in_fp16_are_those_of_the_model() -> None:
    model = randomize(Block(), 0)
    network = check_op(model, image(), rtol=5e-3, atol=5e-3, enabled_precisions=HALF)
    kinds = {
        network.definition.get_layer(i).get_output(0).dtype.name
        for i in range(network.definition.num_layers)
    }
    assert "HALF" in kinds and "FLOAT" in kinds
    with pytest.raises(AssertionError):  # FP16 is not FP32 under another name
        check_op(model, image(), rtol=1e-6, atol=1e-6, build=False, enabled_precisions=HALF)


def test_the_simulation_in_fp16_is_what_the_network_computes() -> None:
    model = randomize(Block(), 1)
    result = lowered(model, image())
    with torch.no_grad():
        (simulated,) = result.lowered(image())
    torch.testing.assert_close(result.run(image())[0], simulated, rtol=2e-3, atol=2e-3)


def test_operators_with_several_outputs_work_in_fp16_whole() -> None:
    def model(x: Tensor) -> Tensor:
        first, second = torch.tanh(x).split(4, dim=2)
        return first * second

    result = lowered(model, image())
    assert typed(result.lowered).count("_to_copy:f32") == 1
    assert typed(result.lowered)[-2:] == ["mul:f16", "_to_copy:f32"]
    assert_types_are_true(result.lowered, image())
    assert_runs_as(result, model, image(), tolerance=1e-2)


def test_what_is_picked_has_the_type_of_what_it_is_picked_from() -> None:
    def model(x: Tensor) -> list[Tensor]:
        best, _ = torch.relu(x).topk(2, 1)
        return [torch.relu(part) for part in best.split(1, 1)]

    result = lowered(model, image())
    types = dict(name.split(":") for name in typed(result.lowered))
    assert types["topk"] == "f32" and types["split_with_sizes"] == types["relu"] == "f16"
    assert_types_are_true(result.lowered, image())
    check_op(model, image(), enabled_precisions=HALF, rtol=4e-3, atol=4e-3, build=False)


@pytest.mark.parametrize("lowest", [-1e9, torch.finfo(torch.float32).min, -torch.inf])
def test_large_constants_stay_finite(lowest: float) -> None:
    """Else a row that is masked throughout would be NaN after softmax in FP16 and even in FP32."""

    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("lowest", torch.tensor([lowest, 0.0, 7e4]))

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x > 0, x, self.lowest)

    result = lowered(Masked(), torch.randn(4, 3))
    with torch.no_grad():
        (values,) = result.lowered(torch.full((4, 3), -1.0))
    bound = torch.finfo(torch.float16).max
    low = -torch.inf if lowest == -torch.inf else -bound
    assert values.tolist() == [[low, 0.0, bound]] * 4


def test_a_model_in_fp16_stays_as_it_is() -> None:
    model = randomize(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Softmax(1)), 0).half()
    result = lowered(model, image().half())
    assert all(name.endswith(":f16") for name in typed(result.lowered))
    assert len(typed(result.lowered)) == 3
    assert_types_are_true(result.lowered, image().half())
    (output,) = result.run(image().half())
    assert output.dtype == torch.float16
    torch.testing.assert_close(output, model(image().half()).detach(), rtol=5e-3, atol=5e-3)


def test_a_part_of_the_model_in_fp16_stays_as_it_is() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.own = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3).half()

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            h = self.own(torch.relu(self.first(x)).half())
            return h, torch.exp(h.float())

    result = lowered(Mixed().eval(), image())
    assert_types_are_true(result.lowered, image())
    assert [output.dtype for output in result.run(image())] == [torch.float16, torch.float32]
    assert not result.reasons
