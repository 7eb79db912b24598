"""Latency of trtcompile's engines and of the ONNX route, on the same GPU, in one process.

    python benchmarks/latency.py --model vgg16 --batch 1 128
    python benchmarks/latency.py --summarize benchmarks/results/latency-*.json

Every (model, batch) row is one JSON file, written anew after each build and each pass of timing,
so that a run which is cut short leaves what it measured. The exit status is 1 if a side failed or
its outputs are wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import environment
import torch
from contenders import contenders, kept
from result_file import ResultFileError, read_result, write_result
from row import Row, Settings
from summary import markdown
from timing import PlanRunner
from workloads import IMAGE_SIZE, workload

from trtcompile import _tensorrt

RESULTS = Path(__file__).resolve().parent / "results"
DEFAULT_CONTENDERS = ("ours-int8", "ours-fp16", "onnx-int8")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    defaults = Settings()
    parser.add_argument(
        "--summarize", nargs="+", type=Path, metavar="FILE", help="print the table of result files"
    )
    parser.add_argument("--model", choices=list(IMAGE_SIZE))
    parser.add_argument("--batch", type=_positive, nargs="+", default=[1], help="one row each")
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=list(contenders()),
        default=list(DEFAULT_CONTENDERS),
        help="default: %(default)s",
    )
    parser.add_argument("--builds", type=_positive, default=defaults.builds)
    parser.add_argument("--rounds", type=_positive, default=defaults.rounds)
    parser.add_argument("--seconds-per-turn", type=float, default=defaults.seconds_per_turn)
    parser.add_argument(
        "--layers", action="store_true", help="also time each layer of each side's first engine"
    )
    parser.add_argument(
        "--images", type=_positive, default=64, help="to calibrate, and to check outputs with"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--time-limit",
        type=float,
        metavar="SECONDS",
        help="start no further build that would not end in time, counted from the start",
    )
    parser.add_argument(
        "--route-caches",
        type=Path,
        metavar="FOLDER",
        help="keep the route's calibration cache of each model there, and use one that is there "
        "instead of calibrating again; build times of such rows are not judged",
    )
    parser.add_argument(
        "--kept-builds",
        type=Path,
        metavar="FOLDER",
        help="keep builds there, and reuse those that are there, so that processes on several GPUs "
        "can build the sides of one row; use it with one machine and one commit",
    )
    parser.add_argument("--commit", help="the commit to name in the results, where git cannot tell")
    parser.add_argument(
        "--output",
        type=Path,
        default=RESULTS,
        help="folder for latency-MODEL-bBATCH.json, or a .json file for a single row",
    )
    options = parser.parse_args(arguments)
    if (options.model is None) == (options.summarize is None):
        parser.error("give either --model or --summarize")
    if options.output.suffix == ".json" and len(options.batch) > 1:
        parser.error("--output is a file, but several batch sizes are several rows: give a folder")
    return options


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def output_file(output: Path, model: str, batch: int) -> Path:
    """Where a row goes."""
    return output if output.suffix == ".json" else output / f"latency-{model}-b{batch}.json"


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.summarize is not None:
        return summarize(options.summarize)
    if not torch.cuda.is_available():
        sys.exit(
            "This benchmark runs engines: it needs an NVIDIA GPU and a TensorRT that runs on it."
        )
    start = time.monotonic()
    # The reference in FP32, not in TF32.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    machine = environment.describe(options.commit)
    print(f"{machine['machine']['gpu']}, {machine['versions']}", flush=True)
    startup_seconds = start_tensorrt()
    settings = Settings(
        options.builds, options.rounds, options.seconds_per_turn, layers=options.layers
    )
    sides = contenders(options.route_caches)
    chosen = [sides[name] for name in options.contenders]
    if options.kept_builds is not None:
        chosen = [kept(side, options.kept_builds) for side in chosen]
    files, good = [], True
    for batch in options.batch:
        file = output_file(options.output, options.model, batch)
        print(f"\n{options.model}, batch {batch} -> {file}", flush=True)
        extra = {"environment": machine, "tensorrt_startup_seconds": round(startup_seconds, 3)}

        def save(
            result: Mapping[str, Any], file: Path = file, extra: dict[str, Any] = extra
        ) -> None:
            write_result(file, {**result, **extra})

        row = Row(
            workload(options.model, batch, images=options.images, seed=options.seed),
            chosen,
            settings,
            make_runner=PlanRunner,
            save=save,
            seconds_left=None
            if options.time_limit is None
            else lambda: options.time_limit - (time.monotonic() - start),
            clocks=environment.clocks,
        )
        good = row.measure() and good
        files.append(file)
    summarize(files)
    return 0 if good else 1


def start_tensorrt() -> float:
    """Loads what TensorRT loads once per process, so that no side's build time includes it.

    Returns:
        The seconds it took.
    """
    start = time.perf_counter()
    trt = _tensorrt.load().trt
    torch.cuda.init()
    builder = trt.Builder(_tensorrt.new_logger())
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    x = network.add_input("x", trt.DataType.FLOAT, (1, 8))
    network.mark_output(network.add_activation(x, trt.ActivationType.RELU).get_output(0))
    if builder.build_serialized_network(network, builder.create_builder_config()) is None:
        raise RuntimeError("TensorRT could not build a network of one ReLU.")
    return time.perf_counter() - start


def summarize(files: Sequence[Path]) -> int:
    """Prints the table of result files; those of other benchmarks are named and left out."""
    rows = []
    for file in files:
        try:
            rows.append(read_result(file, "latency"))
        except ResultFileError as error:
            print(f"left out: {error}", file=sys.stderr)
    if not rows:
        print("There are no latency results to summarize.", file=sys.stderr)
        return 1
    print(f"\n{markdown(rows)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
