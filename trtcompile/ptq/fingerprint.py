"""Hashes that tell whether a calibration table belongs to a model."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import operator_name

aten = torch.ops.aten

# Their arguments are sizes, which follow the batch size; what they compute is the same values.
_SHAPE_ONLY = frozenset({aten.view.default, aten.reshape.default, aten.expand.default})


def fingerprints(graph_module: GraphModule) -> dict[Node, str]:
    """For each node a hash of everything that computes its value: operators, constants, and their order.

    Two models agree on a tensor exactly if all that leads to it is the same, weights included. The batch size and
    the names of nodes do not matter.
    """
    hashes: dict[Node, str] = {}
    inputs = 0
    for node in graph_module.graph.nodes:
        digest = hashlib.sha256()
        if node.op == "placeholder":
            digest.update(f"input {inputs} {node.meta['val'].dtype}".encode())
            inputs += 1
        elif node.op == "get_attr":
            value = getattr(graph_module, str(node.target))
            if isinstance(value, GraphModule):  # a branch of torch.cond
                digest.update(graph_hash(value).encode())
            else:
                _update_with_tensor(digest, value)
        else:
            digest.update(f"{node.op} {operator_name(node)}".encode())
            args = node.args
            if node.target in _SHAPE_ONLY:
                args = (args[0], *_known_shape(node))
            digest.update(_canonical((args, sorted(node.kwargs.items())), hashes).encode())
        hashes[node] = digest.hexdigest()
    return hashes


def _known_shape(node: Node) -> tuple[int, str]:
    """Of the sizes that a reshape is given, what the batch size has no part in: their number, and the last."""
    shape = node.meta["val"].shape
    last = str(shape[-1]) if len(shape) > 1 and isinstance(shape[-1], int) else "any"
    return len(shape), last


def graph_hash(graph_module: GraphModule) -> str:
    """A hash of a whole graph: that of its output."""
    hashes = fingerprints(graph_module)
    output = next(iter(reversed(graph_module.graph.nodes)))
    return hashes[output]


def _canonical(value: Any, hashes: dict[Node, str]) -> str:
    if isinstance(value, Node):
        return hashes[value]
    if isinstance(value, (list, tuple)):
        return "(" + ",".join(_canonical(item, hashes) for item in value) + ")"
    return repr(value)


def _update_with_tensor(digest: Any, tensor: torch.Tensor) -> None:
    digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    raw = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    digest.update(raw.numpy().data)
