"""The quantization stage: place, calibrate, insert."""

from __future__ import annotations

import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import GraphModule, Node

from trtcompile.errors import CalibrationWarning, SettingsError
from trtcompile.node_info import layer_name
from trtcompile.ptq.fingerprint import fingerprints
from trtcompile.ptq.insert import insert_qdq
from trtcompile.ptq.native import as_calibrator
from trtcompile.ptq.number_format import NumberFormat
from trtcompile.ptq.placement import place
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable


@dataclass(frozen=True)
class Quantization:
    """What the stage did.

    Attributes:
        table: the scales; None where nothing could be quantized.
        skipped: tensor name of each weighted operator that stays in floating point, and why.
    """

    table: CalibrationTable | None
    skipped: dict[str, str]


def quantize(
    graph_module: GraphModule,
    taken: Collection[Node],
    calibrator: Any,
    arguments: tuple[Any, ...],
    device: torch.device,
    number_format: NumberFormat,
) -> Quantization:
    """Quantizes a lowered graph in place.

    Args:
        graph_module: the lowered FP32 graph.
        taken: the operators that TensorRT takes.
        calibrator: gives the scales; a ``Calibrator``, or one that was written for TensorRT.
        arguments: the model's arguments with an ``Input`` for each tensor.
        device: where to calibrate unless the calibrator names a device.
        number_format: what to quantize to.

    Raises:
        SettingsError: there is no calibrator, or something else in its place.
        CalibrationError: the calibration data or table cannot be used.
    """
    if calibrator is None:
        raise SettingsError(
            f"enabled_precisions has {number_format.dtype}, but there is no calibrator to measure activation ranges, "
            "and the model has no quantize nodes. Pass calibrator=trtcompile.ptq.DataLoaderCalibrator(dataloader), or "
            "CacheCalibrator(cache_file) to reuse a calibration table."
        )
    refused = {node: number_format.refuses(node) for node in taken}
    placement = place(graph_module, {node for node in taken if refused[node] is None})
    skipped = {
        layer_name(node): refused.get(node) or reason for node, reason in placement.skipped.items()
    }
    if not placement.readers:
        return Quantization(None, skipped)
    hashes = fingerprints(graph_module)
    output = next(iter(reversed(graph_module.graph.nodes)))
    nodes = {layer_name(node): node for group in placement.groups for node in group}
    request = CalibrationRequest(
        graph=graph_module,
        groups=tuple(tuple(layer_name(node) for node in group) for group in placement.groups),
        nodes=nodes,
        fingerprints={name: hashes[node] for name, node in nodes.items()},
        graph_hash=hashes[output],
        arguments=arguments,
        device=device,
    )
    table = as_calibrator(calibrator).calibrate(request)
    _warn_of_algorithm(table, number_format)
    insert_qdq(graph_module, placement, table, number_format)
    return Quantization(table, skipped)


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
