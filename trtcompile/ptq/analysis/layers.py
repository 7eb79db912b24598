"""Which layers of a simulation are quantized, and which Q/DQ belong to which of them."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationError
from trtcompile.node_info import is_dequantize, is_qdq, is_quantize, layer_name
from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.placement.operators import AVERAGING, SUM
from trtcompile.scale_shift import scaled_value, written_value

#: These, and norms, read INT8 only where the kernels in front can write it.
_WRITTEN_IN_INT8 = AVERAGING | {torch.ops.aten.cat.default}


@dataclass(frozen=True)
class QuantizedLayer:
    """What is quantized, or left in higher precision, as a whole.

    Attributes:
        name: the tensor name of its result, as in ``report.rows``.
        node: the operator.
        weight: the dequantize node of its constant weight; None if it has none.
        tensors: names of the quantized tensors that it needs, a residual that it adds included.
    """

    name: str
    node: Node
    weight: Node | None
    tensors: tuple[str, ...]


class QuantizedLayers:
    """The Q/DQ of a graph, by layer.

    A layer is an operator of which two operands are dequantized: a product of INT8 factors. The other readers of
    dequantized values are there for a layer's sake, and their Q/DQ belong to it: an addition, to the layer whose result
    it adds to; an average pool or a movement, to the layers that its result goes to. What leads to none is a layer of
    its own. An average pool reads quantized values only where the layers that compute them are on as well. These are
    the rules of ``placement`` read backward: leaving a layer out of the placement takes away the same Q/DQ, but for an
    addition whose other side is a layer too, which then takes the addition over.

    A Q/DQ pair whose quantized value is also read as integers is always on, and belongs to nobody.

    Args:
        graph_module: a lowered graph with Q/DQ.
    """

    def __init__(self, graph_module: GraphModule) -> None:
        nodes = list(graph_module.graph.nodes)
        #: Each dequantize node that can be switched off, and its quantize node.
        self.pairs: dict[Node, Node] = {
            node: source for node in nodes if (source := _switchable_source(node)) is not None
        }
        self.quantizers = frozenset(self.pairs.values())
        self._owners: dict[Node, tuple[Node, ...]] = {}
        products = {node for node in nodes if _is_product(node)}
        for node in reversed(nodes):
            if any(source in self.pairs for source in node.all_input_nodes):
                self._owners[node] = self._owners_of(node, products)
        for node, value in self._quantized_norms():
            others = (
                o for other in self._readers_besides(node, value) for o in self._owners[other]
            )
            self._owners[node] = tuple(dict.fromkeys([*self._owners[node], *others]))
        self._in_front = {
            reader: self._writers(reader, products)
            for reader in self._owners
            if reader.target in _WRITTEN_IN_INT8 or scaled_value(reader) is not None
        }
        owning = {owner for owners in self._owners.values() for owner in owners}
        self.layers: tuple[QuantizedLayer, ...] = tuple(
            self._layer(node) for node in nodes if node in owning
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all layers, in the order of the graph."""
        return tuple(layer.name for layer in self.layers)

    def readers(self, names: Collection[str]) -> frozenset[Node]:
        """The nodes that read quantized values when only the layers of these names are quantized."""
        on = {layer.node for layer in self.layers if layer.name in names}
        return frozenset(
            reader
            for reader, owners in self._owners.items()
            # Q/DQ in front of a movement repeats those behind it, and is placed only where all of them are.
            if (all if _moves(reader) else any)(owner in on for owner in owners)
            and on.issuperset(self._in_front.get(reader, ()))
        )

    def readers_of(self, quantizer: Node) -> tuple[str, ...]:
        """The names of the layers for whose sake a quantize node is there."""
        owners = {
            owner
            for dequantizer, source in self.pairs.items()
            if source is quantizer
            for reader in dequantizer.users
            for owner in self._owners[reader]
        }
        return tuple(layer.name for layer in self.layers if layer.node in owners)

    def _owners_of(self, reader: Node, products: set[Node]) -> tuple[Node, ...]:
        if reader in products:
            return (reader,)
        if reader.target is SUM:
            mains = tuple(n for n in map(_before_cast, reader.all_input_nodes) if n in products)
            if mains:
                return mains
        return self._downstream(reader) or (() if scaled_value(reader) else (reader,))

    def _quantized_norms(self) -> Iterator[tuple[Node, Node]]:
        """The norms that read quantized values, and these values."""
        for reader in self._owners:
            value = scaled_value(reader)
            if value is not None:
                yield reader, value

    def _readers_besides(self, norm: Node, value: Node) -> Iterator[Node]:
        """What else reads the value that a norm reads, or one that is concatenated to it, but does not move it."""
        tensors = self._tensors_in(value)
        for dequantizer, quantizer in self.pairs.items():
            if quantizer.args[0] in tensors:
                yield from (u for u in dequantizer.users if u is not norm and not _moves(u))

    def _tensors_in(self, value: Node) -> set[Node]:
        """The tensor that a node dequantizes, and those that are moved to it quantized."""
        if value not in self.pairs:
            return set()
        tensor = self.pairs[value].args[0]
        assert isinstance(tensor, Node)
        moved = tensor.all_input_nodes if _moves(tensor) else []
        return {tensor}.union(*map(self._tensors_in, moved))

    def _writers(self, reader: Node, products: set[Node]) -> frozenset[Node]:
        """The layers whose kernels write what a norm, a pool, or a concatenation reads.

        A concatenation reads quantized values only where those that it is moved on to do, too.
        """
        seen: set[Node] = set()
        concatenations = self._moved_on(reader) if _moves(reader) else [reader]
        pending = [node for one in concatenations for node in one.all_input_nodes]
        while pending:
            node = pending.pop()
            if node in seen:
                continue
            seen.add(node)
            if node in products:
                continue
            if node.target is SUM:  # in the kernel of a product that it adds
                pending += [n for n in node.all_input_nodes if _before_cast(n) in products]
            else:
                pending += node.all_input_nodes
        return frozenset(seen & products)

    def _moved_on(self, concatenation: Node) -> list[Node]:
        """A concatenation and those that it is part of, quantized or not."""
        found = [concatenation]
        for node in found:
            found += [u for u in node.users if _moves(u) and u not in found]
        return [node for node in found if node.target in _WRITTEN_IN_INT8]

    def _downstream(self, reader: Node) -> tuple[Node, ...]:
        """The layers that what a kernel writes reaches through nothing but movements and Q/DQ."""
        found: dict[Node, None] = {}
        written = reader if scaled_value(reader) is None else written_value(reader)
        pending = list(written.users)
        while pending:
            user = pending.pop(0)
            if user in self._owners:
                found.update(dict.fromkeys(self._owners[user]))
            elif _moves(user):
                pending.extend(user.users)
        return tuple(found)

    def _layer(self, node: Node) -> QuantizedLayer:
        weights = [
            source
            for source in node.all_input_nodes
            if source in self.pairs and self.pairs[source].args[0].op == "get_attr"  # type: ignore[union-attr]
        ]
        tensors = {
            tensor_of(self.pairs[source]): None
            for reader, owners in reversed(self._owners.items())
            if node in owners
            for source in reader.all_input_nodes
            if source in self.pairs and source not in weights
        }
        weight = weights[0] if weights else None
        return QuantizedLayer(layer_name(node), node, weight, tuple(tensors))


def quantized_layers(graph_module: GraphModule) -> QuantizedLayers:
    """The quantized layers of a lowered graph.

    Raises:
        CalibrationError: it has none.
    """
    structure = QuantizedLayers(graph_module)
    if not structure.layers:
        raise CalibrationError(
            "the lowered graph has nothing that is quantized, so there is nothing to analyze. Enable torch.int8 with a "
            "calibrator; the report of trtcompile.dry_run says what was left out of INT8, and why."
        )
    return structure


def tensor_of(quantizer: Node) -> str:
    """The name of the tensor that a quantize node reads."""
    source = quantizer.args[0]
    assert isinstance(source, Node)
    return layer_name(source)


def _before_cast(node: Node) -> Node:
    """A value before it was rounded to another type."""
    return node.all_input_nodes[0] if node.target is torch.ops.aten._to_copy.default else node


def _switchable_source(node: Node) -> Node | None:
    """The quantize node of a dequantize node, if nothing but dequantize nodes reads it."""
    if not is_dequantize(node):
        return None
    source = node.args[0]
    if not isinstance(source, Node) or not is_quantize(source):
        return None
    alone = all(map(is_dequantize, source.users))
    return source if alone else None


def _is_product(node: Node) -> bool:
    dequantized = list(filter(is_dequantize, node.all_input_nodes))
    return node.op == "call_function" and len(dequantized) >= 2 and not _moves(node)


def _moves(node: Node) -> bool:
    return only_moves(node) or is_qdq(node)
