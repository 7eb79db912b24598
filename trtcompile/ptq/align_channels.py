"""Channels of INT8 concatenations in whole vectors, so that kernels write into them at once.

TensorRT keeps INT8 images in vectors of 32 channels. Parts of 24 channels begin amid a vector, where no convolution can
write: TensorRT 10.6 adds a copy for each. Further channels of zeros make the parts whole vectors; what reads them has
zeros in its weights for them, so all values stay as they were. A DenseNet with 24 channels a layer took 0.82 times as
long on an H200.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.fx import GraphModule, Node

from trtcompile.lowering.constants import drop_unused_constants
from trtcompile.node_info import is_dequantize, is_quantize
from trtcompile.ptq.connected import connected
from trtcompile.ptq.padded_channels import Padding

aten = torch.ops.aten

#: INT8 kernels read and write as many channels at a time.
_VECTOR = 32
#: Of more zeros the reading costs more than the copies.
_MOST_ADDED = 0.5


def align_channels(graph_module: GraphModule) -> None:
    """Widens, in place, the parts of INT8 concatenations to multiples of 32 channels.

    Parts that no convolution computes, and those that something reads for which zeros would matter, stay as they are,
    and so does whatever is concatenated with them.

    Args:
        graph_module: a graph with its Q/DQ, of FP32 data.
    """
    concatenations = list(filter(_is_int8, graph_module.graph.nodes))
    pairs = ((part, node) for node in concatenations for part in _concatenated(node))
    changes = [_align(graph_module, group) for group in connected(concatenations, pairs)]
    if any(changes):
        drop_unused_constants(graph_module)
        graph_module.graph.lint()
        graph_module.recompile()


def _align(graph_module: GraphModule, concatenations: list[Node]) -> bool:
    """Widens the parts of concatenations that have some in common; False if they stay as they are."""
    values = (value for node in concatenations for value in _concatenated(node))
    parts = list(dict.fromkeys(value for value in values if value not in concatenations))
    counts = [part.meta["val"].shape[1] for part in parts]
    wide = [-(-count // _VECTOR) * _VECTOR for count in counts]
    if not 0 < sum(wide) - sum(counts) <= _MOST_ADDED * sum(counts):
        return False
    padding = Padding(graph_module)
    if not (all(map(padding.widen, parts, wide)) and padding.reaches_readers()):
        return False
    padding.apply()
    return True


def _is_int8(node: Node) -> bool:
    """Whether a node concatenates channels of images, in INT8."""
    if node.target is not aten.cat.default or len(node.args) < 2 or node.args[1] != 1:
        return False
    if node.meta["val"].dim() not in (4, 5):
        return False
    ends = [*node.users, *(source.args[0] for source in node.all_input_nodes)]
    return (
        all(map(is_dequantize, node.all_input_nodes))
        and all(isinstance(end, Node) and is_quantize(end) for end in ends)
        and all(isinstance(end, Node) and end.meta["val"].dtype == torch.int8 for end in ends)
    )


def _concatenated(node: Node) -> Iterator[Node]:
    """The values that a concatenation reads through Q/DQ."""
    for dequantize in node.all_input_nodes:
        quantize = dequantize.args[0]
        assert isinstance(quantize, Node)
        yield quantize.all_input_nodes[0]
