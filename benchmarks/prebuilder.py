"""Time of everything before NVIDIA's builder: export, lower, quantize without data, partition, convert.

    python benchmarks/prebuilder.py

It needs a TensorRT and no GPU: networks are made and not built. Every repetition is a process of
its own, which measures twice: the first compilation of a process includes what PyTorch imports at
the first export, the second does not. The first one is judged: the exit status is 1 if its median
is over the bar of 5 seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import environment
import torch
from result_file import write_result
from stages import BUILDER, timed_stages
from workloads import IMAGE_SIZE, build, randomize

from trtcompile import _tensorrt, compiler
from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq.unit_scales import UnitScales
from trtcompile.settings import CompileSpec, Device

BAR_SECONDS = 5.0


def measure_once(model_name: str, batch: int) -> dict[str, float]:
    """Seconds of each stage and of all together, in this process.

    ``total_cpu`` is processor time, which a busy machine does not lengthen as much.
    """
    model = build(model_name)
    randomize(model, seed=0)
    size = IMAGE_SIZE[model_name]
    flavour = _tensorrt.load()
    device = Device(compute_capability="8.9") if flavour.builds_ahead_of_time else Device()
    spec = CompileSpec(
        enabled_precisions={torch.float, torch.half, torch.int8},
        calibrator=UnitScales(),
        device=device,
        require_full_compilation=True,
    )
    with timed_stages() as stages:
        start, cpu_start = time.perf_counter(), time.process_time()
        captured = compiler.capture(
            model,
            parse_inputs([Input((batch, 3, size, size))]),
            undecomposed=compiler.undecomposed_operators(),
        )
        _, quantization = compiler.prepare(captured, spec)
        partitioned, report = compiler.split(captured, spec, quantization)
        networks = [compiler.convert(part.graph_module) for part in partitioned.engines]
        total, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    if len(networks) != 1 or report.multiply_add_share("INT8") < 0.99:
        raise RuntimeError(f"this is not the INT8 network it should be:\n{report}")
    del stages[BUILDER]
    return {**stages, "total": total, "total_cpu": cpu}


def measure_in_new_process(model_name: str, batch: int, cores: int) -> list[dict[str, float]]:
    """``measure_once`` twice in a process of its own that has at most ``cores`` cores."""
    command = [sys.executable, str(Path(__file__).resolve()), "--once", "--model", model_name]
    command += ["--batch", str(batch), "--cores", str(cores)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"a measurement failed:\n{done.stderr}")
    seconds: list[dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def limit_cores(cores: int) -> None:
    """Keeps this process to the first ``cores`` of the cores it may use."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    torch.set_num_threads(cores)


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(IMAGE_SIZE), default="resnet50")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument(
        "--once", action="store_true", help="measure in this process, print JSON alone"
    )
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    parser.add_argument("--output", type=Path, help="default: results/prebuilder-MODEL.json")
    options = parser.parse_args(arguments)
    if options.output is None:
        results = Path(__file__).resolve().parent / "results"
        options.output = results / f"prebuilder-{options.model}.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.once:
        limit_cores(options.cores)
        print(json.dumps([measure_once(options.model, options.batch) for _ in range(2)]))
        return 0
    load = os.getloadavg()[0]
    runs = [
        measure_in_new_process(options.model, options.batch, options.cores)
        for _ in range(options.repetitions)
    ]
    first, second = (
        {stage: statistics.median(run[turn][stage] for run in runs) for stage in runs[0][turn]}
        for turn in (0, 1)
    )
    result = {
        "kind": "prebuilder",
        "environment": environment.describe(options.commit),
        "settings": {"model": options.model, "batch": options.batch, "cores": options.cores},
        "load_average_before": load,
        "runs_seconds": runs,
        "median_seconds": {"first": first, "second": second},
        "bar_seconds": BAR_SECONDS,
    }
    write_result(options.output, result)
    print(f"{'':<14} {'first':>9} {'second':>9}   medians, seconds")
    for stage in first:
        print(f"{stage:<14} {first[stage]:9.3f} {second[stage]:9.3f}")
    print(f"wrote {options.output}")
    return 0 if first["total"] <= BAR_SECONDS else 1


if __name__ == "__main__":
    sys.exit(main())
