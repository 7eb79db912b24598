"""What quantization does to each tensor and each layer, observed while a simulation runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from trtcompile.errors import CalibrationError
from trtcompile.ptq.analysis.layers import QuantizedLayers, tensor_of
from trtcompile.ptq.analysis.noise import NoiseRatio
from trtcompile.ptq.analysis.switched import SwitchedSimulation
from trtcompile.ptq.batches import FittedBatch
from trtcompile.ptq.collect import samples_of
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.padded_channels import without_padding


@dataclass
class ObservedTensor:
    """Statistics of a quantized tensor's values without quantization.

    Attributes:
        scale: the scale in use; None for a value that is quantized per channel.
        amax: the largest value that it represents; None likewise.
        histogram: of the absolute values.
        noise: of this tensor's Q/DQ alone.
        clipped: how many values are larger than ``amax``.
    """

    scale: float | None
    amax: float | None
    histogram: AbsHistogram
    noise: NoiseRatio = field(default_factory=NoiseRatio)
    clipped: Tensor | int = 0


@dataclass
class ObservedLayer:
    """Noise in a layer's result.

    Attributes:
        own: with its own operands quantized, and nothing else.
        accumulated: with every layer quantized.
        weight: of its weight, not of its result.
    """

    own: NoiseRatio = field(default_factory=NoiseRatio)
    accumulated: NoiseRatio = field(default_factory=NoiseRatio)
    weight: NoiseRatio = field(default_factory=NoiseRatio)


class Observer:
    """Runs a graph without and with quantization side by side, so that one batch's live values are all it keeps.

    Args:
        simulation: what to run.
        layers: its Q/DQ by layer.
        device: where it runs.

    Attributes:
        tensors: by quantize node, in the order of the graph.
        layers: by layer name, in the order of the graph.
    """

    def __init__(
        self, simulation: SwitchedSimulation, layers: QuantizedLayers, device: torch.device
    ) -> None:
        self._structure = layers
        self._reference = simulation
        self._quantized = simulation.twin()
        self._first_of = {quantizer: node for node, quantizer in reversed(layers.pairs.items())}
        self._layer_at = {layer.node: layer for layer in layers.layers}
        self._layer_of_weight = {
            layer.weight: layer for layer in layers.layers if layer.weight is not None
        }
        self.tensors = {
            node: ObservedTensor(
                _scale_of(node), _amax_of(self._first_of[node], node), AbsHistogram(device)
            )
            for node in simulation.graph_module.graph.nodes
            if node in layers.quantizers and node.args[0].op != "get_attr"
        }
        self.layers = {layer.name: ObservedLayer() for layer in layers.layers}
        self._weights_seen = False

    def add(self, batch: FittedBatch) -> None:
        """Runs one batch.

        Raises:
            CalibrationError: the model fails on it, or a tensor holds NaN or infinity.
        """
        lanes = zip(
            self._reference.steps(batch, (), observed=True),
            self._quantized.steps(batch, self._structure.names),
            strict=True,
        )
        for node, _ in lanes:
            if node in self._layer_of_weight:
                self._observe_weight(node)
            elif node in self._structure.pairs:
                self._observe_tensor(node, batch)
            elif node in self._layer_at:
                self._observe_layer(node, batch)
        self._weights_seen = True

    def check_finite(self) -> None:
        """Waits for the device.

        Raises:
            CalibrationError: a tensor held NaN or infinity.
        """
        for quantizer, observed in self.tensors.items():
            with _naming(quantizer, "some batch of the data"):
                observed.histogram.check_finite()

    def _observe_tensor(self, node: Node, batch: FittedBatch) -> None:
        quantizer = self._structure.pairs[node]
        observed = self.tensors.get(quantizer)
        if observed is None or self._first_of[quantizer] is not node:
            return
        values = self._reference.env[quantizer], self._reference.dequantized(node)
        plain, dequantized = (without_padding(quantizer, samples_of(v, batch)) for v in values)
        with _naming(quantizer, f"batch {batch.loader_batch} of the data"):
            observed.histogram.update(plain)
        observed.noise.add(plain, dequantized)
        observed.clipped = observed.clipped + _count_clipped(plain, observed.amax)

    def _observe_weight(self, node: Node) -> None:
        if not self._weights_seen:
            plain = self._reference.env[self._structure.pairs[node]]
            noise = self.layers[self._layer_of_weight[node].name].weight
            noise.add(plain, self._reference.dequantized(node))

    def _observe_layer(self, node: Node, batch: FittedBatch) -> None:
        layer = self._layer_at[node]
        observed = self.layers[layer.name]
        lanes = (
            self._reference.env[node],
            self._reference.with_quantized_operands(node),
            self._quantized.env[node],
        )
        for plain, own, accumulated in zip(*map(_float_tensors, lanes), strict=True):
            reference = samples_of(plain, batch)
            observed.own.add(reference, samples_of(own, batch))
            observed.accumulated.add(reference, samples_of(accumulated, batch))


@contextlib.contextmanager
def _naming(quantizer: Node, where: str) -> Iterator[None]:
    """Adds the tensor's name to a calibration error."""
    try:
        yield
    except CalibrationError as error:
        raise CalibrationError(f"Tensor {tensor_of(quantizer)!r}, {where}: {error}") from error


def _float_tensors(value: Any) -> list[Tensor]:
    """One for an operator; several for the graph's output, where that is quantized."""
    leaves = pytree.tree_leaves(value)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor) and leaf.is_floating_point()]


def _scale_of(quantizer: Node) -> float | None:
    scale = quantizer.args[1]
    return float(scale) if isinstance(scale, (int, float)) else None


def _amax_of(dequantizer: Node, quantizer: Node) -> float | None:
    """What a pair makes of the largest float32, in whatever format it has; None for one per channel."""
    if _scale_of(quantizer) is None:
        return None
    value: Any = torch.tensor([torch.finfo(torch.float32).max])
    for node in (quantizer, dequantizer):
        operator: Any = node.target
        value = operator(value, *node.args[1:], **node.kwargs)
    return float(value)


def _count_clipped(values: Tensor, amax: float | None) -> Tensor | int:
    """How many values are larger than ``amax`` by more than its rounding to float32."""
    if amax is None:
        return 0
    larger: Tensor = values.float().abs() > amax * (1 + 2.0**-20)
    return larger.sum()
