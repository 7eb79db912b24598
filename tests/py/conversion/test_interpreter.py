from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import assert_same, build_device, capture_for_test, run_in_oracle
from operator_case import booleans, floats, graph_of
from torch.fx import Graph, GraphModule

from trtcompile.conversion import NetworkDefinition, Registry, convert
from trtcompile.engine import build_engine
from trtcompile.errors import ConversionError
from trtcompile.settings import CompileSpec

aten = torch.ops.aten
X = floats(2, 3)


def _registry(relu: Any) -> Registry:
    registry = Registry()
    registry.register(aten.relu.default)(relu)
    return registry


def _relu_graph() -> GraphModule:
    return capture_for_test(torch.relu, [X]).graph_module


def _builds(network: NetworkDefinition, *inputs: torch.Tensor) -> bool:
    shapes = tuple((tuple(t.shape),) * 3 for t in inputs)
    spec = CompileSpec(device=build_device(disable_tf32=True))
    return len(build_engine("engine", network, [shapes], spec).plan) > 0


def test_an_error_in_a_converter_names_node_source_and_way_out() -> None:
    def failing(net: Any, self: Any) -> Any:
        raise RuntimeError("the moon is full")

    class Model(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)  # the line that failed

    graph_module = capture_for_test(Model(), [X]).graph_module
    with pytest.raises(ConversionError) as caught:
        convert(graph_module, _registry(failing))
    message = str(caught.value)
    assert "torch.ops.aten.relu.default" in message
    assert "the moon is full" in message
    assert "test_interpreter.py" in message and "the line that failed" in message
    assert "torch_executed_ops={'aten.relu.default'}" in message
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_an_operator_without_converter_is_an_error() -> None:
    with pytest.raises(ConversionError, match="has no converter"):
        convert(_relu_graph(), Registry())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda net, self: net.reshape(self, [3, 2]), r"FLOAT \[3, 2\].*torch.float32 \[2, 3\]"),
        (lambda net, self: net.reshape(self, [6]), r"FLOAT \[6\].*\[2, 3\]"),
        (lambda net, self: net.cast(self, torch.float16), r"HALF \[2, 3\].*torch.float32"),
        (lambda net, self: (self, self), "2 values where PyTorch gives 1"),
        (lambda net, self: (), "0 values where PyTorch gives 1"),
        (lambda net, self: None, "returns None"),
    ],
    ids=["shape", "rank", "dtype", "too_many", "too_few", "nothing"],
)
def test_a_result_unlike_pytorchs_is_an_error(wrong: Any, message: str) -> None:
    with pytest.raises(ConversionError, match=message):
        convert(_relu_graph(), _registry(wrong))


def test_a_layer_that_tensorrt_refuses_is_an_error_with_its_words() -> None:
    def matrix_beside_vector(net: Any, self: Any) -> Any:
        return net.concat([self, net.reshape(self, [6])], 0)

    with pytest.raises(ConversionError, match=r"\n  TensorRT: .*API Usage Error"):
        convert(_relu_graph(), _registry(matrix_beside_vector))


def test_an_attribute_that_tensorrt_ignores_is_an_error() -> None:
    def clip(net: Any, self: Any) -> Any:
        from trtcompile._tensorrt import trt

        return net.activation(self, trt.ActivationType.CLIP, float("-inf"), 1.0)

    with pytest.raises(ConversionError, match=r"TensorRT refused.*\n.*isfinite"):
        convert(_relu_graph(), _registry(clip))


def test_an_input_that_is_an_output_gets_a_binding_of_its_own() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = X
    relu = graph.call_function(aten.relu.default, (x,))
    relu.meta["val"] = X
    graph.output((x, relu, x))
    network = convert(GraphModule(torch.nn.Module(), graph))
    assert network.output_names == ("output_0", "output_1", "output_2")
    assert_same(run_in_oracle(network, [X]), [X, X.relu(), X], 0, 0, "the oracle")
    assert _builds(network, X)


def test_a_value_returned_twice_gets_two_bindings() -> None:
    graph_module = graph_of(aten.relu.default, X)
    (output,) = (n for n in graph_module.graph.nodes if n.op == "output")
    output.args = ((*output.args[0], *output.args[0]),)
    network = convert(graph_module)
    assert_same(run_in_oracle(network, [X]), [X.relu(), X.relu()], 0, 0, "the oracle")
    assert _builds(network, X)


@pytest.mark.parametrize(
    "constant", [X, X.double(), booleans(3), torch.tensor(3)], ids=lambda c: str(c.dtype)[6:]
)
def test_a_constant_can_be_an_output(constant: torch.Tensor) -> None:
    graph = Graph()
    x = graph.placeholder("x")
    x.meta["val"] = X
    relu = graph.call_function(aten.relu.default, (x,))
    relu.meta["val"] = X
    graph.output((graph.get_attr("constant"), relu))
    root = torch.nn.Module()
    root.register_buffer("constant", constant)
    network = convert(GraphModule(root, graph))
    expected = constant.float() if constant.dtype == torch.float64 else constant
    assert_same(run_in_oracle(network, [X]), [expected, X.relu()], 0, 0, "the oracle")
    assert _builds(network, X)


def test_an_input_called_like_an_output_keeps_its_name() -> None:
    graph = Graph()
    x = graph.placeholder("output_0")
    x.meta["val"] = X
    relu = graph.call_function(aten.relu.default, (x,))
    relu.meta["val"] = X
    graph.output((relu,))
    network = convert(GraphModule(torch.nn.Module(), graph))
    assert network.input_names == ("output_0",)
    assert network.output_names == ("output_0_",)
    assert_same(run_in_oracle(network, [X]), [X.relu()], 0, 0, "the oracle")
    assert _builds(network, X)


def test_layers_are_named_after_their_nodes() -> None:
    network = convert(graph_of(aten.add.Tensor, X, floats(3)))
    layers = [network.definition.get_layer(i) for i in range(network.definition.num_layers)]
    assert layers[-1].name == "add_tensor/elementwise.1"
    assert all(layer.name.startswith("add_tensor/") for layer in layers)


def test_arguments_are_bound_by_the_schema_with_defaults() -> None:
    seen: dict[str, Any] = {}

    def add(net: Any, self: Any, other: Any, alpha: Any) -> Any:
        seen.update(other=other, alpha=alpha)
        return net.identity(self)

    registry = Registry()
    registry.register(aten.add.Tensor)(add)
    graph_module = graph_of(aten.add.Tensor, X, 2)
    convert(graph_module, registry)
    assert seen == {"other": 2, "alpha": 1}
    (call,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    call.kwargs = {"alpha": 3}
    convert(graph_module, registry)
    assert seen == {"other": 2, "alpha": 3}
