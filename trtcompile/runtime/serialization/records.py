"""Inputs, engines, reports, and calibration tables <-> JSON."""

from __future__ import annotations

import math
from typing import Any

import torch

from trtcompile.engine import Binding, Engine
from trtcompile.engine import Provenance as EngineProvenance
from trtcompile.inputs import Input, is_constant
from trtcompile.partition.report import NodeRow, PartitionReport, PlacementRow
from trtcompile.ptq import CalibrationAlgo, CalibrationTable
from trtcompile.ptq.table import Provenance as TableProvenance
from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_dtype,
    as_float,
    as_int,
    as_list,
    as_mapping,
    as_sizes,
    as_text,
    dtype_name,
    fields,
    record_from_json,
    record_to_json,
    shown,
)
from trtcompile.runtime.serialization.trees import UnsavableError


def _name_of(dtype: torch.dtype) -> str:
    name = dtype_name(dtype)
    if name is None:
        raise UnsavableError(f"an input or output of dtype {dtype}")
    return name


def argument_to_json(value: Any) -> dict[str, Any]:
    """A leaf of a module's arguments: an ``Input``, or a constant."""
    if is_constant(value):
        if isinstance(value, float) and not math.isfinite(value):
            raise UnsavableError(f"the argument {value}")
        return {"constant": value}
    if not isinstance(value, Input):
        raise UnsavableError(f"an argument of the type {type(value).__name__}")
    return _input_to_json(value)


def argument_from_json(value: Any) -> Any:
    """The inverse of ``argument_to_json``."""
    if isinstance(value, dict) and list(value) == ["constant"]:
        if not is_constant(value["constant"]):
            raise MalformedError(f"the constant argument {shown(value['constant'])}")
        return value["constant"]
    return _input_from_json(value)


def _input_to_json(value: Input) -> dict[str, Any]:
    return {
        "min_shape": list(value.min_shape),
        "opt_shape": list(value.opt_shape),
        "max_shape": list(value.max_shape),
        "dtype": _name_of(value.dtype),
        "name": value.name,
        "dims": [list(dim) for dim in value.named_dims],
    }


def _input_from_json(value: Any) -> Input:
    names = ("min_shape", "opt_shape", "max_shape", "dtype", "name", "dims")
    low, opt, high, dtype, name, dims = fields(value, *names)
    return Input(
        min_shape=as_sizes(low),
        opt_shape=as_sizes(opt),
        max_shape=as_sizes(high),
        dtype=as_dtype(dtype),
        name=None if name is None else as_text(name),
        dims=dict(_dim(dim) for dim in as_list(dims)),
    )


def _dim(value: Any) -> tuple[int, str]:
    pair = as_list(value)
    if len(pair) != 2:
        raise MalformedError(f"{shown(value)} stands where a dimension and its name should")
    return as_int(pair[0]), as_text(pair[1])


def engine_to_json(engine: Engine) -> dict[str, Any]:
    """All of an engine but its plan."""
    return {
        "name": engine.name,
        "inputs": [_binding_to_json(binding) for binding in engine.inputs],
        "outputs": [_binding_to_json(binding) for binding in engine.outputs],
        "profiles": [
            [[list(shape) for shape in shapes] for shapes in profile] for profile in engine.profiles
        ],
        "provenance": record_to_json(engine.provenance),
    }


def engine_from_json(value: Any, plan: bytes) -> Engine:
    """The inverse of ``engine_to_json``, with the plan."""
    names = ("name", "inputs", "outputs", "profiles", "provenance")
    name, inputs, outputs, profiles, provenance = fields(value, *names)
    engine = Engine(
        name=as_text(name),
        plan=plan,
        inputs=tuple(_binding_from_json(binding) for binding in as_list(inputs)),
        outputs=tuple(_binding_from_json(binding) for binding in as_list(outputs)),
        profiles=tuple(
            tuple(_shape_range(shapes) for shapes in as_list(profile))
            for profile in as_list(profiles)
        ),
        provenance=record_from_json(EngineProvenance, provenance),
    )
    ranges = [len(profile) for profile in engine.profiles]
    if not ranges or any(count != len(engine.inputs) for count in ranges):
        raise MalformedError(
            f"{engine.name} has {len(engine.inputs)} inputs, and its profiles have {ranges} shape ranges"
        )
    return engine


def _binding_to_json(binding: Binding) -> dict[str, Any]:
    return {
        "name": binding.name,
        "dtype": _name_of(binding.dtype),
        "shape": list(binding.shape),
    }


def _binding_from_json(value: Any) -> Binding:
    name, dtype, shape = fields(value, "name", "dtype", "shape")
    return Binding(as_text(name), as_dtype(dtype), as_sizes(shape))


def _shape_range(value: Any) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    shapes = [as_sizes(shape) for shape in as_list(value)]
    if len(shapes) != 3:
        raise MalformedError(f"{shown(value)} stands where a min, opt, and max shape should")
    return shapes[0], shapes[1], shapes[2]


def report_to_json(report: PartitionReport) -> dict[str, Any]:
    """A report with all its rows."""
    return {
        "rows": [record_to_json(row) for row in report.rows],
        "placement": [record_to_json(row) for row in report.placement],
    }


def report_from_json(value: Any) -> PartitionReport:
    """The inverse of ``report_to_json``."""
    rows, placement = fields(value, "rows", "placement")
    return PartitionReport(
        rows=tuple(record_from_json(NodeRow, row) for row in as_list(rows)),
        placement=tuple(record_from_json(PlacementRow, row) for row in as_list(placement)),
    )


def table_to_json(table: CalibrationTable) -> dict[str, Any]:
    """A calibration table with its algorithm and provenance."""
    provenance = table.provenance
    return {
        "algorithm": table.algo.value,
        "scales": dict(table),
        "provenance": None if provenance is None else record_to_json(provenance),
    }


def table_from_json(value: Any) -> CalibrationTable:
    """The inverse of ``table_to_json``."""
    algorithm, scales, provenance = fields(value, "algorithm", "scales", "provenance")
    return CalibrationTable(
        {name: as_float(scale) for name, scale in as_mapping(scales).items()},
        algo=CalibrationAlgo(as_text(algorithm)),
        provenance=None if provenance is None else record_from_json(TableProvenance, provenance),
    )
