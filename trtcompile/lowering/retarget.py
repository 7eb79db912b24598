"""Makes a graph independent of the device that it was captured on."""

from __future__ import annotations

from typing import Any

import torch
from torch._subclasses import FakeTensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.settings import CompileSpec

_CPU = torch.device("cpu")


def retarget(graph_module: GraphModule, spec: CompileSpec) -> int:
    """Brings a graph to the CPU, where its constants are and where lowering computes.

    A model on several devices becomes one of a single device.

    Given::

        z = zeros([3], device="cuda:0")
        y = add(x, z)

    Result::

        z = zeros([3], device="cpu")
        y = add(x, z)
    """
    for one in _graphs(graph_module):
        for node in one.graph.nodes:
            if "val" in node.meta:
                node.meta["val"] = pytree.tree_map_only(torch.Tensor, _on_cpu, node.meta["val"])
    return set_device(graph_module, _CPU)


def set_device(graph_module: GraphModule, device: torch.device) -> int:
    """Lets every operator that creates a tensor on a device, or moves one there, use ``device``.

    Returns:
        The number of operators that changed.
    """
    return sum(_set_device(one, device) for one in _graphs(graph_module))


def _graphs(graph_module: GraphModule) -> list[GraphModule]:
    """The graph and the branches of ``torch.cond`` in it."""
    return [m for m in graph_module.modules() if isinstance(m, GraphModule)]


def _set_device(graph_module: GraphModule, device: torch.device) -> int:
    changed = 0
    for node in graph_module.graph.nodes:
        if node.op != "call_function":
            continue
        # Operators take a device as an argument of its own, so what is inside others need not be looked at.
        args = tuple(_other(value, device) for value in node.args)
        kwargs = {name: _other(value, device) for name, value in node.kwargs.items()}
        if _creates_on_default_device(node):
            kwargs["device"] = device
        if (args, kwargs) != (node.args, node.kwargs):
            node.args, node.kwargs = args, kwargs
            changed += 1
    if changed:
        graph_module.recompile()
    return changed


def _other(value: Any, device: torch.device) -> Any:
    return device if isinstance(value, torch.device) else value


def _creates_on_default_device(node: Node) -> bool:
    """Whether the operator makes a tensor of no other tensor, and the graph does not say where."""
    if not isinstance(node.target, torch._ops.OpOverload) or node.kwargs.get("device") is not None:
        return False
    arguments = node.target._schema.arguments
    takes_device = any(a.name == "device" and a.kwarg_only for a in arguments)
    takes_tensor = any("Tensor" in str(a.type) for a in arguments)
    return takes_device and not takes_tensor


def _on_cpu(value: torch.Tensor) -> torch.Tensor:
    if value.device == _CPU:
        return value
    if not isinstance(value, FakeTensor):
        return value.to(_CPU)
    with value.fake_mode:
        sizes: Any = value.size()
        return torch.empty_strided(sizes, value.stride(), dtype=value.dtype, device=_CPU)
