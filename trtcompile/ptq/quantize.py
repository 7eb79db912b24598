"""The quantization stage: place, calibrate, insert."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationWarning, SettingsError
from trtcompile.node_info import layer_name
from trtcompile.products import PRODUCTS
from trtcompile.ptq.align_channels import align_channels
from trtcompile.ptq.calibrators import channel_maxima_of, table_of
from trtcompile.ptq.fingerprint import fingerprints
from trtcompile.ptq.insert import insert_qdq
from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.native import as_calibrator
from trtcompile.ptq.number_format import NumberFormat
from trtcompile.ptq.placement import Decision, Placement, place
from trtcompile.ptq.request import CalibrationRequest, Reader
from trtcompile.ptq.smooth_quant import smooth
from trtcompile.ptq.table import CalibrationTable
from trtcompile.settings import CompileSpec


@dataclass(frozen=True)
class Quantization:
    """What the stage did.

    Attributes:
        table: the scales; None where nothing could be quantized.
        placement: where Q/DQ were placed, and where not; None for a model that was not quantized here.
    """

    table: CalibrationTable | None = None
    placement: Placement | None = None


def quantize(
    graph_module: GraphModule,
    taken: Collection[Node],
    spec: CompileSpec,
    arguments: tuple[Any, ...],
    device: torch.device,
    number_format: NumberFormat,
) -> Quantization:
    """Quantizes a lowered graph in place.

    A table belongs to the graph that was quantized: with ``smooth_quant``, to the smoothed one, whose tensors and
    fingerprints differ with the factors.

    Args:
        graph_module: the lowered FP32 graph.
        taken: the operators that TensorRT takes.
        spec: the settings, with the calibrator that gives the scales.
        arguments: the model's arguments with an ``Input`` for each tensor.
        device: where to calibrate unless the calibrator names a device.
        number_format: what to quantize to.

    Raises:
        SettingsError: there is no calibrator, or something else in its place.
        CalibrationError: the calibration data or table cannot be used.
    """
    if spec.calibrator is None:
        raise SettingsError(
            f"enabled_precisions has {number_format.dtype}, but there is no calibrator to measure activation ranges, "
            "and the model has no quantize nodes. Pass calibrator=trtcompile.ptq.DataLoaderCalibrator(dataloader), or "
            "CacheCalibrator(cache_file) to reuse a calibration table."
        )
    served = as_calibrator(spec.calibrator)
    unsmoothed: dict[Node, str] = {}
    if spec.smooth_quant is not None:

        def measure(values: Sequence[Node]) -> Mapping[str, Tensor]:
            groups = [(value,) for value in values]
            return channel_maxima_of(served, _request(graph_module, groups, arguments, device))

        unsmoothed = smooth(graph_module, taken, spec.smooth_quant, measure)
    refused = {node: number_format.refuses(node) for node in taken}
    placement = place(graph_module, {node for node in taken if refused[node] is None}, spec)
    for node in list(placement.skipped):
        reason = refused.get(node)
        if reason is not None and node.target in PRODUCTS:
            placement.skipped[node] = Decision("number format", reason)
        elif reason is not None:  # it would only have followed a product
            del placement.skipped[node]
    for norm, reason in unsmoothed.items():
        placement.skipped[norm] = Decision("smooth_quant", reason)
    if not placement.readers:
        return Quantization(None, placement)
    request = _request(
        graph_module, placement.groups, arguments, device, _readers(placement), _carried(placement)
    )
    table = table_of(served, request)
    _warn_of_algorithm(table, number_format)
    insert_qdq(graph_module, placement, table, number_format)
    if number_format.dtype == torch.int8:
        align_channels(graph_module)
    return Quantization(table, placement)


def _warn_of_algorithm(table: CalibrationTable, number_format: NumberFormat) -> None:
    if number_format.algos is None or table.algo in number_format.algos:
        return
    fitting = ", ".join(sorted(f"CalibrationAlgo.{algo.name}" for algo in number_format.algos))
    warnings.warn(
        f"the ranges were chosen with {table.algo.name}, which cuts off large values for the sake of even steps; "
        f"{number_format.name} has no even steps and only loses by it. Pass algo_type={fitting} to the calibrator.",
        CalibrationWarning,
        stacklevel=5,
    )


def _request(
    graph_module: GraphModule,
    groups: Sequence[tuple[Node, ...]],
    arguments: tuple[Any, ...],
    device: torch.device,
    readers: Mapping[str, tuple[Reader, ...]] | None = None,
    carried: frozenset[str] = frozenset(),
) -> CalibrationRequest:
    hashes = fingerprints(graph_module)
    output = next(iter(reversed(graph_module.graph.nodes)))
    nodes = {layer_name(node): node for group in groups for node in group}
    return CalibrationRequest(
        graph=graph_module,
        groups=tuple(tuple(layer_name(node) for node in group) for group in groups),
        nodes=nodes,
        fingerprints={name: hashes[node] for name, node in nodes.items()},
        graph_hash=hashes[output],
        arguments=arguments,
        device=device,
        readers=readers or {},
        carried=carried,
    )


def _readers(placement: Placement) -> dict[str, tuple[Reader, ...]]:
    """The operators that compute with each value; what movements read is judged where it is read in turn."""
    weighted = {
        w.node: Reader(w.node, w.weight, w.weight_axis) for w in placement.weighted.values()
    }
    return {
        layer_name(value): tuple(
            weighted.get(node, Reader(node)) for node in nodes if not only_moves(node)
        )
        for value, nodes in placement.readers.items()
    }


def _carried(placement: Placement) -> frozenset[str]:
    return frozenset(
        layer_name(value)
        for value, nodes in placement.readers.items()
        if all(map(only_moves, nodes)) or _is_in_larger(value, placement)
    )


def _is_in_larger(value: Node, placement: Placement) -> bool:
    """Whether a value is all part of a concatenation that something computes with."""
    return any(
        node.target is torch.ops.aten.cat.default
        and (
            not all(map(only_moves, placement.readers.get(node, ())))
            or _is_in_larger(node, placement)
        )
        for node in placement.readers.get(value, ())
    )
