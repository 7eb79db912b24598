"""Turns a graph of ATen operators into a TensorRT network, node by node."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile import _tensorrt
from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import bind
from trtcompile.conversion.network import Network, tensorrt_dtype
from trtcompile.conversion.registry import REGISTRY, Registry
from trtcompile.errors import ConversionError
from trtcompile.node_info import layer_name, source_line


@dataclass(frozen=True)
class NetworkDefinition:
    """A finished network and the names of its bindings.

    Attributes:
        definition: TensorRT's ``INetworkDefinition``.
        builder: the builder that owns it.
        logger: keeps TensorRT's warnings and errors in ``lines``.
        network: the wrapper, which keeps the weights' memory alive.
        input_names: binding names in the order of the graph's placeholders.
        output_names: binding names in the order of the graph's outputs.
    """

    definition: Any
    builder: Any
    logger: Any
    network: Network
    input_names: tuple[str, ...]
    output_names: tuple[str, ...]


def convert(graph_module: GraphModule, registry: Registry = REGISTRY) -> NetworkDefinition:
    """Converts a graph whose nodes all have converters.

    Args:
        graph_module: flat placeholders with ``meta["val"]``, parameters as ``get_attr``, output a tuple.
        registry: where converters are looked up.

    Raises:
        ConversionError: a converter failed, or produced another shape or dtype than PyTorch.
        TensorRTMissingError: no TensorRT is installed.
    """
    flavour = _tensorrt.load()
    logger = _tensorrt.new_logger()
    builder = trt.Builder(logger)
    flags = 0
    if flavour.has_strongly_typed_flag:
        flags |= 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    definition = builder.create_network(flags)
    network = Network(flavour, definition)
    values: dict[Node, Any] = {}
    input_names: list[str] = []
    output_names: list[str] = []
    for node in graph_module.graph.nodes:
        if node.op == "placeholder":
            value = node.meta["val"]
            shape = [size if isinstance(size, int) else -1 for size in value.shape]
            values[node] = network.add_input(node.name, value.dtype, shape)
            input_names.append(node.name)
        elif node.op == "get_attr":
            values[node] = _attribute(graph_module, str(node.target))
        elif node.op == "call_function":
            values[node] = _convert_node(network, node, values, registry, logger)
        elif node.op == "output":
            output_names = _mark_outputs(network, node.args[0], values, input_names)
    return NetworkDefinition(
        definition, builder, logger, network, tuple(input_names), tuple(output_names)
    )


def _attribute(module: torch.nn.Module, path: str) -> Any:
    for name in path.split("."):
        module = getattr(module, name)
    return module


def _convert_node(
    network: Network, node: Node, values: dict[Node, Any], registry: Registry, logger: Any
) -> Any:
    converter = registry.get(node.target)
    if converter is None:
        raise ConversionError(
            f"{node.format_node()} has no converter. Report this: partitioning let it through.",
            layer_name(node),
        )
    network.enter_scope(layer_name(node))
    metas = _tensor_metas(node)
    network.result_dtypes = [meta.dtype for meta in metas]
    network.result_shapes = [tuple(meta.shape) for meta in metas]
    arguments = _bind(node, values)
    already_logged = len(logger.lines)
    try:
        result = (
            converter.convert(network, **arguments)
            if isinstance(arguments, dict)
            else converter.convert(network, *arguments)
        )
        # TensorRT ignores an attribute that it does not accept, and only logs it.
        if any("API Usage Error" in line for line in logger.lines[already_logged:]):
            raise ConversionError("TensorRT refused an argument.")
        _check_results(network, metas, result)
    except Exception as error:
        said = "".join(f"\n  TensorRT: {line}" for line in logger.lines[already_logged:])
        raise ConversionError(
            f"converting {node.format_node()} failed: {error}{said}\n  at {source_line(node)}\n"
            f"  Leave it to PyTorch with torch_executed_ops={{{str(node.target)!r}}}.",
            layer_name(node),
        ) from error
    _name_tensor(result, layer_name(node))
    return result


def _name_tensor(result: Any, name: str) -> None:
    """Names a node's tensor as calibration tables do; a value that only passes through keeps its first name."""
    if hasattr(result, "is_network_input") and result.name.startswith("(Unnamed Layer"):
        result.name = name


def _bind(node: Node, values: dict[Node, Any]) -> dict[str, Any] | list[Any]:
    """Arguments by the operator's schema, defaults filled in; positional for plain Python functions."""
    args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
    if not isinstance(node.target, torch._ops.OpOverload):
        return list(args)
    return bind(node.target, args, kwargs)


def _tensor_metas(node: Node) -> list[torch.Tensor]:
    value = node.meta.get("val")
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    return [v for v in values if isinstance(v, torch.Tensor)]


def _check_results(network: Network, metas: Sequence[torch.Tensor], result: Any) -> None:
    if result is None and metas:
        raise ConversionError("the converter returns None. Return the tensor of its last layer.")
    results = result if isinstance(result, (list, tuple)) else [result]
    if metas and len(results) != len(metas):
        raise ConversionError(
            f"it gives {len(results)} values where PyTorch gives {len(metas)} tensors."
        )
    for meta, tensor in zip(metas, results, strict=False):
        if tensor is None or isinstance(tensor, torch.Tensor):
            continue
        shape, expected = network.dims(tensor), tuple(meta.shape)
        same_sizes = len(shape) == len(expected) and all(
            got in (-1, want)
            for got, want in zip(shape, expected, strict=True)
            if isinstance(want, int)
        )
        if not same_sizes or tensor.dtype != tensorrt_dtype(meta.dtype):
            raise ConversionError(
                f"the layer gives {tensor.dtype.name} {list(shape)} where PyTorch gives {meta.dtype} {list(expected)}."
            )


def _mark_outputs(
    network: Network, outputs: Any, values: dict[Node, Any], taken: Sequence[str]
) -> list[str]:
    names: list[str] = []
    network.enter_scope("output")
    for index, node in enumerate(outputs):
        tensor = network.tensor(values[node])
        # A binding is one tensor with one name: an input, or a value returned twice, needs a copy.
        if tensor.is_network_input or tensor.is_network_output:
            tensor = network.identity(tensor)
        name = f"output_{index}"
        while name in taken:
            name += "_"
        names.append(name)
        network.mark_output(tensor, names[-1])
    return names
