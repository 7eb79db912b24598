"""A compiled module beside its simulation, on the same batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.errors import CalibrationError, EngineLoadError
from trtcompile.inputs import Input
from trtcompile.node_info import layer_name
from trtcompile.ptq.arguments import check_max_batches, device_of
from trtcompile.ptq.batches import fit_batches
from trtcompile.ptq.collect import samples_of
from trtcompile.ptq.interpreter import DeviceInterpreter
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.runtime import TRTModule


def checked_device(
    compiled: TRTModule, max_batches: int | None, device: torch.device | str
) -> torch.device:
    """The device of the simulation, once all is there for a comparison.

    Raises:
        EngineLoadError: engines cannot run on this machine.
        SettingsError: an argument has the wrong type or value.
        AttributeError: ``compiled`` has no lowered graph.
    """
    check_max_batches(max_batches)
    where = device_of(device)
    _ = compiled.lowered  # says why, where there is none
    if compiled.runnable is not None:
        raise EngineLoadError(
            f"{compiled.runnable}. Compare the engine with its simulation on the machine that runs it."
        )
    return where


def compare_batches(
    compiled: TRTModule,
    nodes: Sequence[Node],
    run: Callable[[tuple[Tensor, ...]], Sequence[Tensor]],
    add: Callable[[list[tuple[Tensor, Tensor]], int], None],
    loader: Iterable[Any],
    max_batches: int | None,
    device: torch.device,
) -> None:
    """Runs a simulation and an engine on the batches of a loader.

    Args:
        compiled: the module that has the simulation.
        nodes: of its ``lowered``, whose values are compared.
        run: gives the engine's values of the same tensors, in the same order, for flat inputs.
        add: called for each batch with the simulation's and the engine's value of each node, on the CPU, without the
            rows that only fill up the batch, and with the number of samples.
        loader: yields batches as for ``DataLoaderCalibrator``.
        max_batches: how many batches of the loader to use; None for all.
        device: where the simulation runs.

    Raises:
        CalibrationError: the data has no samples, or they do not fit.
    """
    simulation = DeviceInterpreter(graph_with_outputs(compiled.lowered, nodes), device)
    samples = 0
    with kept_random_state():
        batches = itertools.islice(loader, max_batches)
        for batch in fit_batches(batches, compiled.arguments, device):
            with torch.no_grad():
                expected = simulation.run(*batch.tensors)
            pairs = [
                (samples_of(reference.cpu(), batch), samples_of(value.cpu(), batch))
                for reference, value in zip(expected, run(batch.tensors), strict=True)
            ]
            add(pairs, batch.valid)
            samples += batch.valid
    if not samples:
        raise CalibrationError(
            "The data has no samples. Give a dataloader with at least one batch that has rows."
        )


def run_flat(module: TRTModule, tensors: tuple[Tensor, ...]) -> list[Any]:
    """The flat outputs of a module for flat inputs, which are moved to the engine's device."""
    device = module.spec.device.torch_device
    remaining = iter(tensors)
    arguments = [
        pytree.tree_map(
            lambda leaf: next(remaining).to(device) if isinstance(leaf, Input) else leaf, argument
        )
        for argument in module.arguments
    ]
    positional = len(arguments) - module.keywords
    names = module.argument_names[len(module.argument_names) - module.keywords :]
    keywords = dict(zip(names, arguments[positional:], strict=True))
    return pytree.tree_leaves(module(*arguments[:positional], **keywords))


def graph_with_outputs(lowered: GraphModule, nodes: Sequence[Node]) -> GraphModule:
    """A copy of a graph that shares its weights and returns a flat tuple of other values."""
    graph = Graph()
    copies: dict[Node, Node] = {}
    for node in lowered.graph.nodes:
        if node.op != "output":
            copies[node] = graph.node_copy(node, lambda source: copies[source])
    graph.output(tuple(copies[node] for node in nodes))
    graph.eliminate_dead_code()
    return GraphModule(lowered, graph)


def output_of(lowered: GraphModule) -> Node:
    """The output node of a graph."""
    node: Node = next(iter(reversed(lowered.graph.nodes)))
    return node


def named_outputs(lowered: GraphModule) -> dict[Node, str]:
    """The floating-point outputs that a graph computes, in their order, with their names.

    One that is cast back to FP32 goes by the name of what is cast.
    """
    return {
        node: layer_name(node).partition("/")[0]
        for node in output_of(lowered).all_input_nodes
        if computes_floats(node)
    }


def computes_floats(node: Node) -> bool:
    """Whether a node is an operator that gives one tensor of floats."""
    value = node.meta.get("val")
    is_floating = isinstance(value, Tensor) and value.is_floating_point()
    return node.op == "call_function" and is_floating
