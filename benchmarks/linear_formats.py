"""Size and speed of linear layers in each number format: FP16, INT8, FP8, and FP16 with INT8 or INT4 weights.

    python benchmarks/linear_formats.py --shapes 4096x4096 4096x11008 --batch 1 16 256

A model is two layers, INxOUT with a ReLU and OUTxIN. Engines of one model and batch are timed in turns, as in
`latency.py`. Where no GPU can run them, plans are built and not timed, which shows their sizes alone.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import environment
import torch
from result_file import write_result
from timing import PlanRunner, interleave
from torch import nn

import trtcompile
from trtcompile import Device, _tensorrt
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

#: The options of each format; those of the first one are what the others are compared with.
FORMATS: Mapping[str, Mapping[str, Any]] = {
    "fp16": {"enabled_precisions": {torch.half}},
    "int8": {"enabled_precisions": {torch.half, torch.int8}},
    "fp8": {"enabled_precisions": {torch.half, torch.float8_e4m3fn}},
    "int8-weights": {"enabled_precisions": {torch.half}, "weight_only": "int8"},
    "int4-weights": {"enabled_precisions": {torch.half}, "weight_only": "int4"},
}


def model_of(inputs: int, outputs: int) -> nn.Module:
    """Two linear layers with random weights, the same in every run."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(inputs, outputs), nn.ReLU(), nn.Linear(outputs, inputs)
        ).eval()


def compile_format(
    model: nn.Module, data: torch.Tensor, name: str, device: Device
) -> trtcompile.TRTModule:
    """The model in a format, calibrated on ``data`` where the format has scales."""
    options = dict(FORMATS[name])
    if not options["enabled_precisions"].isdisjoint({torch.int8, torch.float8_e4m3fn}):
        options["calibrator"] = DataLoaderCalibrator(
            [data], algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
        )
    return trtcompile.compile(
        model, [data], device=device, require_full_compilation=True, **options
    )


def measure(
    shape: tuple[int, int], batch: int, formats: Sequence[str], device: Device, *, rounds: int
) -> list[dict[str, Any]]:
    """A row for each format: bytes of the plan, error of the simulation, and microseconds where a GPU can run it."""
    inputs, outputs = shape
    model = model_of(inputs, outputs)
    data = torch.randn(batch, inputs, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        exact = model(data)
    rows, runners = [], {}
    for name in formats:
        row: dict[str, Any] = {"shape": list(shape), "batch": batch, "format": name}
        rows.append(row)
        try:
            compiled = compile_format(model, data, name, device)
        except trtcompile.TRTCompileError as error:
            row["error"] = str(error).splitlines()[0]
            continue
        (engine,) = compiled.engines
        with torch.no_grad():
            simulated = compiled.lowered(data)
        row["plan_bytes"] = len(engine.plan)
        row["relative_error"] = float((simulated - exact).norm() / exact.norm())
        if not device.compute_capabilities:
            runners[name] = PlanRunner(engine.plan, data.cuda())
            computed = runners[name].run(data.cuda()).cpu()
            row["engine_difference"] = float((computed - simulated).norm() / exact.norm())
    measured = interleave(runners, rounds=rounds) if runners else {}
    for row in rows:
        if row["format"] in measured:
            medians = [turn.median_ms for turn in measured[row["format"]]]
            row["microseconds"] = round(1000 * statistics.median(medians), 2)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| layers | batch | format | plan | time | error |", "|---|---|---|---|---|---|"]
    for row in rows:
        inputs, outputs = row["shape"]
        cells = [f"{inputs}x{outputs}", str(row["batch"]), row["format"]]
        if "error" in row:
            cells += [row["error"], "", ""]
        else:
            time = f"{row['microseconds']} us" if "microseconds" in row else "-"
            cells += [f"{row['plan_bytes'] / 1e6:.1f} MB", time, f"{row['relative_error']:.2%}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shape(text: str) -> tuple[int, int]:
    sizes = text.split("x")
    if len(sizes) != 2 or not all(size.isdecimal() and int(size) > 0 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not INxOUT, such as 4096x11008")
    return int(sizes[0]), int(sizes[1])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shapes", type=_shape, nargs="+", default=[(4096, 4096), (4096, 11008)])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 16, 256])
    parser.add_argument("--formats", choices=list(FORMATS), nargs="+", default=list(FORMATS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    results = Path(__file__).resolve().parent / "results"
    parser.add_argument("--output", type=Path, default=results / "linear-formats.json")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    flavour = _tensorrt.load()
    device = Device(compute_capability="8.9") if flavour.builds_ahead_of_time else Device()
    rows: list[dict[str, Any]] = []
    for shape, batch in itertools.product(options.shapes, options.batch):
        rows += measure(shape, batch, options.formats, device, rounds=options.rounds)
        result = {
            "kind": "linear-formats",
            "environment": environment.describe(options.commit),
            "flavour": str(flavour),
            "rows": rows,
        }
        write_result(options.output, result)
    print(table(rows))
    print(f"wrote {options.output}")
    return int(any("error" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
