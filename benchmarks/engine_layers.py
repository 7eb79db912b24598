"""Which layers of an engine compute in INT8, read from TensorRT's engine inspector."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from trtcompile import PartitionReport

WEIGHTED = ("aten.convolution.default", "aten.linear.default")

# How the inspector joins the names of layers that were fused.
_SEPARATORS = re.compile(r"\s*\+\s*|\s*\|\|\s*|[\[\](){},;]|\.\.\.")


@dataclass(frozen=True)
class LayerPrecision:
    """An operator that is to compute in INT8, as the engine has it.

    Attributes:
        operator: its tensor name in the lowered graph.
        verdict: ``"INT8"``, ``"not INT8"``, or ``"not found"``.
        layer: the engine's layer; empty if there is none.
        kind: the engine's type of that layer.
        inputs: formats of the layer's inputs.
        weights: type of the layer's weights, if it says so.
        tactic: the kernel, if it says so.
    """

    operator: str
    verdict: str
    layer: str = ""
    kind: str = ""
    inputs: tuple[str, ...] = ()
    weights: str | None = None
    tactic: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def expected_int8(report: PartitionReport) -> tuple[list[str], list[str]]:
    """Names of the convolutions and of the linear layers that are INT8 in the lowered graph."""
    names = {
        operator: [r.name for r in report.rows if r.operator == operator and r.precision == "INT8"]
        for operator in WEIGHTED
    }
    return names[WEIGHTED[0]], names[WEIGHTED[1]]


def int8_layers(inspection: str, operators: Iterable[str]) -> list[LayerPrecision]:
    """Looks up operators in an engine.

    A layer is INT8 if its first input is, and its weights are where the inspector names their type.

    Args:
        inspection: JSON of an engine built with detailed profiling verbosity.
        operators: tensor names of convolutions and linear layers; ``name`` is in the layer that has
            a part ``name/convolution`` or ``name/matmul``.

    Raises:
        ValueError: the inspection has no details of layers.
    """
    layers = json.loads(inspection).get("Layers", [])
    if not layers or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("the engine was not built with detailed profiling verbosity.")
    parts = [(layer, _parts(layer)) for layer in layers]
    return [_verdict(operator, parts) for operator in operators]


def floating_convolutions(inspection: str, left_out: Mapping[str, str]) -> list[dict[str, str]]:
    """The convolution kernels of an engine that read FP32 or FP16.

    Args:
        inspection: JSON of an engine built with detailed profiling verbosity.
        left_out: operators that the compiler left in floating point, and the rule for it.

    Returns:
        For each its layer, what it reads, its operator, and the rule; without an operator or a rule
        these are empty. A linear layer that is built as a convolution is listed as well.
    """
    found = []
    for layer in json.loads(inspection).get("Layers", []):
        formats = _input_formats(layer)
        is_convolution = "convolution" in str(layer.get("ParameterType", "")).lower()
        if not is_convolution or not formats or _reads_int8(formats):
            continue
        matches = (re.fullmatch(r"(.+)/convolution(\.\d+)?", part) for part in _parts(layer))
        operator = next((match[1] for match in matches if match), "")
        found.append(
            {
                "layer": str(layer.get("Name", "")),
                "reads": formats[0],
                "operator": operator,
                "rule": left_out.get(operator, ""),
            }
        )
    return found


def int8_layer_count(inspection: str) -> int:
    """How many layers of an engine read INT8, whatever they compute.

    Args:
        inspection: JSON of an engine built with detailed profiling verbosity.
    """
    layers = json.loads(inspection).get("Layers", [])
    return sum(_reads_int8(_input_formats(layer)) for layer in layers)


def int8_summary(
    inspection: str, operators: Sequence[str], left_out: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """How many of the operators are INT8 layers of the engine, and the names of the others.

    Nothing is raised: an inspection that cannot be read is a ``"problem"`` in the result.

    Args:
        inspection: JSON of an engine built with detailed profiling verbosity.
        operators: those that are INT8 in the lowered graph.
        left_out: operators that are not, and the rule for it; if given, the floating-point
            convolutions of the engine are listed as well.
    """
    summary: dict[str, Any] = {"expected": len(operators)}
    if not operators:
        return summary
    try:
        layers = int8_layers(inspection, operators)
    except ValueError as error:
        return {**summary, "problem": str(error)}
    summary["INT8"] = sum(layer.verdict == "INT8" for layer in layers)
    for verdict in ("not INT8", "not found"):
        names = [layer.operator for layer in layers if layer.verdict == verdict]
        if names:
            summary[verdict] = names
    if left_out is not None:
        summary["floating convolutions"] = floating_convolutions(inspection, left_out)
    return summary


def _input_formats(layer: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(one.get("Format/Datatype", "")) for one in layer.get("Inputs", []))


def _reads_int8(formats: Sequence[str]) -> bool:
    """Whether the first input is INT8; the others may be a residual."""
    return bool(formats) and "int8" in formats[0].lower()


def _parts(layer: Mapping[str, Any]) -> set[str]:
    return set(filter(None, _SEPARATORS.split(str(layer.get("Name", "")))))


def _verdict(operator: str, parts: list[tuple[Mapping[str, Any], set[str]]]) -> LayerPrecision:
    wanted = re.compile(rf"{re.escape(operator)}/(convolution|matmul)(\.\d+)?")
    holding = [layer for layer, names in parts if any(map(wanted.fullmatch, names))]
    if not holding:
        return LayerPrecision(operator, "not found")
    layer = holding[0]
    formats = _input_formats(layer)
    weights = layer.get("Weights")
    weight_type = str(weights["Type"]) if isinstance(weights, dict) and "Type" in weights else None
    is_int8 = _reads_int8(formats) and (weight_type is None or weight_type.lower() == "int8")
    return LayerPrecision(
        operator=operator,
        verdict="INT8" if is_int8 else "not INT8",
        layer=str(layer.get("Name", "")),
        kind=str(layer.get("ParameterType") or layer.get("LayerType", "")),
        inputs=formats,
        weights=weight_type,
        tactic=layer.get("TacticName"),
    )
