"""Where an engine spends its time, layer by layer, by TensorRT's profiler."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from trtcompile import _tensorrt

WARM_UP_RUNS, RUNS = 10, 50


def profile(context: Any, execute: Callable[[], None]) -> dict[str, float]:
    """Milliseconds of each layer, the mean over ``RUNS`` executions.

    The profiler records an event around each layer, so layers neither overlap nor follow closely:
    the sum is above the latency of an engine that runs as a CUDA graph.

    Args:
        context: an execution context whose addresses are set; it keeps the profiler.
        execute: launches the context and waits for it.
    """
    trt = _tensorrt.load().trt
    total: dict[str, float] = {}

    class Profiler(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)  # not super(): TensorRT's classes demand it so

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            total[layer_name] = total.get(layer_name, 0.0) + ms

    context.profiler = Profiler()
    for _ in range(WARM_UP_RUNS):
        execute()
    total.clear()
    for _ in range(RUNS):
        execute()
    return {name: ms / RUNS for name, ms in total.items()}


def layer_rows(inspection: str, times_ms: Mapping[str, float]) -> list[dict[str, Any]]:
    """The layers of an engine in its order: name, type, kernel, formats, and milliseconds.

    Args:
        inspection: TensorRT's JSON of an engine built with detailed profiling verbosity.
        times_ms: from ``profile``; layers that it has and the inspection lacks come last.
    """
    layers = [
        layer for layer in json.loads(inspection).get("Layers", []) if isinstance(layer, dict)
    ]
    rows = []
    for layer in layers:
        name = str(layer.get("Name", ""))
        rows.append(
            {
                "name": name,
                "type": layer.get("LayerType"),
                "kernel": layer.get("TacticName"),
                "stream": layer.get("StreamId"),
                "inputs": [_format(tensor) for tensor in layer.get("Inputs", [])],
                "outputs": [_format(tensor) for tensor in layer.get("Outputs", [])],
                "ms": round(times_ms[name], 6) if name in times_ms else None,
            }
        )
    known = {row["name"] for row in rows}
    others = {name: ms for name, ms in times_ms.items() if name not in known}
    return rows + [{"name": name, "ms": round(ms, 6)} for name, ms in others.items()]


def _format(tensor: Mapping[str, Any]) -> str:
    sizes = "x".join(str(size) for size in tensor.get("Dimensions", []))
    return f"{sizes} {tensor.get('Format/Datatype', '')}".strip()
