"""INT8 convolutions of images whose ReLU is max-pooled: TensorRT computes all three in one kernel, in FP32 networks."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node

from trtcompile.node_info import is_dequantize, is_qdq, is_quantize

aten = torch.ops.aten

#: As many as TensorRT's kernels for first layers read at a time; seen with 3.
_MOST_CHANNELS = 4


def pooled_convolutions(graph_module: GraphModule) -> set[Node]:
    """The convolutions, ReLUs, and max pools that TensorRT fuses between two quantize nodes if they are FP32.

    They compute integers whatever they are declared as. But TensorRT 10.6 fuses the pooling only where the result of
    the convolution is declared FP32: for the first layers of ResNet, 12.6 us instead of 17.0 on an H200.

    Example: all three of ``conv -> relu -> q -> dq -> max_pool -> q`` and of ``conv -> relu -> max_pool -> q``, where
    ``conv`` reads dequantized data and weights.
    """
    found: set[Node] = set()
    for node in graph_module.graph.nodes:
        if _is_convolution_of_images(node):
            found.update(_pooled(node))
    return found


def _is_convolution_of_images(node: Node) -> bool:
    if node.target is not aten.convolution.default or not all(map(is_dequantize, node.args[:2])):  # type: ignore[arg-type]
        return False
    data, groups = node.args[0], node.args[8]
    assert isinstance(data, Node)
    shape = data.meta["val"].shape
    return bool(len(shape) == 4 and groups == 1 and shape[1] <= _MOST_CHANNELS)


def _pooled(convolution: Node) -> list[Node]:
    """The convolution, its ReLU, and its max pool, if that is what it leads to."""
    found = [convolution]
    for target in (aten.relu.default, aten.max_pool2d.default):
        user = _only_reader(found[-1])
        if user is None or user.target is not target:
            return []
        found.append(user)
    return found if all(map(is_quantize, found[-1].users)) else []


def _only_reader(node: Node) -> Node | None:
    """What reads a value, behind its Q/DQ; None if that is not one operator."""
    while len(node.users) == 1:
        (node,) = node.users
        if not is_qdq(node):
            return node
    return None
