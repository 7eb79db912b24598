"""``layer_parity``: an engine's intermediate values against the simulation's."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.capture import CapturedGraph
from trtcompile.compiler import build_prepared
from trtcompile.errors import CalibrationError, EngineLoadError, SettingsError
from trtcompile.inputs import Input
from trtcompile.node_info import layer_name
from trtcompile.ptq.analysis.layers import QuantizedLayers, tensor_of
from trtcompile.ptq.analysis.noise import NoiseRatio
from trtcompile.ptq.arguments import check_max_batches, device_of
from trtcompile.ptq.batches import fit_batches
from trtcompile.ptq.collect import samples_of
from trtcompile.ptq.interpreter import DeviceInterpreter
from trtcompile.ptq.quantize import Quantization
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.runtime import TRTModule


def layer_parity(
    compiled: TRTModule,
    loader: Iterable[Any],
    *,
    tensors: Collection[str] | None = None,
    max_batches: int | None = 1,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Compares an engine's values with the simulation's, tensor by tensor.

    An engine shows nothing but its outputs, so the lowered graph is built once more with the tensors as further
    outputs. That changes what TensorRT fuses: a layer's result that is an output has to be written, and what follows
    can no longer be part of the same kernel. Quantized tensors, the default, have to be written anyway and are read
    through a dequantize node of their own, so marking them disturbs least; but kernels are still chosen anew. The
    values are those of the marked engine, not of ``compiled``.

    Errors accumulate: a value is computed from the engine's own inputs to it, not from the simulation's.
    ``output_parity`` compares the outputs of ``compiled`` itself.

    Args:
        compiled: a module that can run on this machine, with ``keep_lowered=True``.
        loader: yields batches as for ``DataLoaderCalibrator``.
        tensors: names of tensors to compare, such as those of layers (``report.rows``); None for every quantized
            tensor, as dequantized. The model's outputs are always compared.
        max_batches: how many batches of the loader to use; None for all.
        device: where the simulation runs. A GPU may compute FP32 products in TF32, which shows.

    Returns:
        Tensor name -> SQNR of the engine against the simulation in dB, from -200 to 200, in the order of the graph.
        ``analysis.with_parity`` takes it.

    Raises:
        EngineLoadError: engines cannot run on this machine.
        SettingsError: a name is that of no floating-point tensor; or an argument has the wrong type or value.
        CalibrationError: the data has no samples, or they do not fit.
        AttributeError: ``compiled`` has no lowered graph.
    """
    check_max_batches(max_batches)
    where = device_of(device)
    lowered = compiled.lowered
    require_runnable(compiled)
    marked = _chosen(lowered, tensors)
    engine = with_outputs(compiled, list(_chosen(compiled.network_graph, tensors).values()))
    simulation = DeviceInterpreter(graph_with_outputs(lowered, list(marked.values())), where)
    noises = {name: NoiseRatio() for name in marked}
    samples = 0
    with kept_random_state():
        batches = itertools.islice(loader, max_batches)
        for batch in fit_batches(batches, compiled.arguments, where):
            with torch.no_grad():
                expected = simulation.run(*batch.tensors)
            actual = engine(*engine_arguments(compiled, batch.tensors))
            for noise, reference, value in zip(noises.values(), expected, actual, strict=True):
                noise.add(samples_of(reference.cpu(), batch), samples_of(value.cpu(), batch))
            samples += batch.valid
    if not samples:
        raise CalibrationError(
            "The data has no samples. Give a dataloader with at least one batch that has rows."
        )
    return {name: noise.db for name, noise in noises.items()}


def require_runnable(compiled: TRTModule) -> None:
    """Checks that the engines of a module run here.

    Raises:
        EngineLoadError: they do not.
    """
    if compiled.runnable is not None:
        raise EngineLoadError(
            f"{compiled.runnable}. Compare the engine with its simulation on the machine that runs it."
        )


def with_outputs(compiled: TRTModule, nodes: list[Node]) -> TRTModule:
    """The networks' graph of a module built again, with values of chosen nodes as its outputs.

    Args:
        compiled: a module that kept it.
        nodes: of its ``network_graph``.

    Returns:
        A module that takes all arguments by position and returns a tuple.
    """
    captured = CapturedGraph(
        graph_module=graph_with_outputs(compiled.network_graph, nodes),
        arguments=compiled.arguments,
        keywords=(),
        out_spec=pytree.tree_structure(tuple(range(len(nodes)))),
    )
    spec = dataclasses.replace(compiled.spec, keep_lowered=False)
    return build_prepared(captured, spec, Quantization())


def _chosen(lowered: GraphModule, names: Collection[str] | None) -> dict[str, Node]:
    """What to compare, by name, in the order of the graph."""
    output = next(iter(reversed(lowered.graph.nodes)))
    chosen = {  # an output that is cast back to FP32 goes by the name of what is cast
        node: layer_name(node).partition("/")[0]
        for node in output.all_input_nodes
        if node.op == "call_function" and is_floating(node)
    }
    if names is None:
        pairs = QuantizedLayers(lowered).pairs
        for node, quantizer in pairs.items():
            name = tensor_of(quantizer)
            if quantizer.args[0].op != "get_attr" and name not in chosen.values():  # type: ignore[union-attr]
                chosen[node] = name
    else:
        computed = [n for n in lowered.graph.nodes if n.op == "call_function" and is_floating(n)]
        by_name = {layer_name(node): node for node in computed}
        unknown = sorted(set(names) - set(by_name))
        if unknown:
            raise SettingsError(
                f"tensors has {', '.join(unknown)}, which the lowered graph does not compute in floating point. "
                "print(compiled.report) has the names."
            )
        chosen.update({by_name[name]: name for name in names})
    return {chosen[node]: node for node in sorted(chosen)}


def is_floating(node: Node) -> bool:
    """Whether a node gives one tensor of floats."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.is_floating_point()


def graph_with_outputs(lowered: GraphModule, nodes: list[Node]) -> GraphModule:
    """A copy of a graph that shares its weights and returns a flat tuple of other values."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in lowered.graph.nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(tuple(copies[node] for node in nodes))
    graph.eliminate_dead_code()
    return GraphModule(lowered, graph)


def engine_arguments(compiled: TRTModule, tensors: tuple[Tensor, ...]) -> tuple[Any, ...]:
    """The arguments of ``forward`` with tensors in the places of the inputs, on the engine's device."""
    device = compiled.spec.device.torch_device
    remaining = iter(tensors)
    return tuple(
        pytree.tree_map(
            lambda leaf: next(remaining).to(device) if isinstance(leaf, Input) else leaf, argument
        )
        for argument in compiled.arguments
    )
