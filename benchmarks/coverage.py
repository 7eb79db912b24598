"""How much of popular models goes into TensorRT, and whether the numbers are right.

    python benchmarks/coverage.py
    python benchmarks/coverage.py --dynamic --models bert resnet18

Each model of ``coverage_models.py`` is compiled in a process of its own, in FP32 without TF32, whole,
with random weights. With no GPU that can run engines, NVIDIA's builder builds them and the oracle of
the tests computes the numbers.
"""

from __future__ import annotations

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

if __name__ == "coverage":
    # Packages such as numba look for the tool of that name, and this folder may be on their way.
    raise ImportError("benchmarks/coverage.py is a script, and not the package coverage.")

import environment
import torch
from coverage_models import MODELS, Model
from result_file import read_result, write_result

LARGEST_ERROR = {"oracle": 1e-4, "engine": 1e-3}  # of the output's standard deviation, FP32
LONGEST_BEFORE_BUILDER = 15.0  # seconds on two cores
LEAST_WHOLE = 0.95  # share of the list in one engine with no fallback
MEMORY_PER_WEIGHT_BYTE, MEMORY_MORE = 2.5, 1e9
_ORDER = {model.name: number for number, model in enumerate(MODELS)}
RESULTS = Path(__file__).resolve().parent / "results"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", metavar="TEXT", help="those whose name has a text")
    parser.add_argument("--dynamic", action="store_true", help="dynamic batch and sequence length")
    parser.add_argument("--no-build", action="store_true", help="leave out NVIDIA's builder")
    parser.add_argument(
        "--optimization-level",
        type=int,
        help="of the builder; 0 is quick, and the numbers are what this is about",
    )
    parser.add_argument("--jobs", type=int, default=1, help="models at a time, on all GPUs in turn")
    parser.add_argument("--time-limit", type=float, default=600, help="seconds for each model")
    parser.add_argument(
        "--keep-others",
        action="store_true",
        help="keep the rows that the output file has of models that are not run now",
    )
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    parser.add_argument(
        "--output", type=Path, help="default: results/coverage-{static,dynamic}.json"
    )
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.one is not None:
        return run_one(options)
    chosen = [m for m in MODELS if _is_chosen(m, options)]
    if not chosen:
        print("no model of the list has that in its name", file=sys.stderr)
        return 1
    output = (
        options.output or RESULTS / f"coverage-{'dynamic' if options.dynamic else 'static'}.json"
    )
    described = environment.describe(options.commit)
    rows = _kept_rows(output, chosen) if options.keep_others else []
    for row in _rows(chosen, options):
        # Rows may be of several runs.
        row |= {name: described[name] for name in ("commit", "uncommitted_changes", "date")}
        print(_line(row), flush=True)
        rows = sorted([*rows, row], key=lambda row: _ORDER[row["model"]])
        result = {
            "kind": "coverage",
            "environment": described,
            "dynamic": options.dynamic,
            "listed": sum(model.dynamic or not options.dynamic for model in MODELS),
            "rows": rows,
        }
        write_result(output, result)
    print(f"\n{summary(rows, result['listed'])}\nwrote {output}")
    return 0 if all(row["problem"] is None for row in rows) else 1


def _kept_rows(output: Path, chosen: Sequence[Model]) -> list[dict[str, Any]]:
    names = {model.name for model in chosen}
    rows: list[dict[str, Any]] = read_result(output, "coverage")["rows"]
    return [row for row in rows if row["model"] not in names]


def _is_chosen(model: Model, options: argparse.Namespace) -> bool:
    if options.dynamic and not model.dynamic:
        return False
    return options.models is None or any(text in model.name for text in options.models)


def _rows(models: Sequence[Model], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The rows in the order of the models, ``--jobs`` processes at a time."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(n) for n in range(torch.cuda.device_count())] or [""]
    free: queue.Queue[str] = queue.Queue()
    for job in range(options.jobs):
        free.put(gpus[job % len(gpus)])

    def run(model: Model) -> dict[str, Any]:
        gpu = free.get()
        try:
            return _in_a_process(model, options, gpu)
        finally:
            free.put(gpu)

    with ThreadPoolExecutor(options.jobs) as pool:
        yield from pool.map(run, models)


def _in_a_process(model: Model, options: argparse.Namespace, gpu: str) -> dict[str, Any]:
    variables = {**os.environ, **({"CUDA_VISIBLE_DEVICES": gpu} if gpu else {})}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "row.json"
        command = [sys.executable, __file__, "--one", model.name, "--output", str(file)]
        command += ["--dynamic"] * options.dynamic + ["--no-build"] * options.no_build
        if options.optimization_level is not None:
            command += ["--optimization-level", str(options.optimization_level)]
        start = time.perf_counter()
        try:
            done = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=options.time_limit,
                check=False,
                env=variables,
            )
        except subprocess.TimeoutExpired:
            return _failed(model, f"not finished after {options.time_limit:.0f} s")
        if not file.exists():
            said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
            return _failed(model, said[-1])
        row: dict[str, Any] = json.loads(file.read_text())
        return {**row, "process_seconds": round(time.perf_counter() - start, 1)}


def _failed(model: Model, problem: str) -> dict[str, Any]:
    return {"model": model.name, "problem": problem}


def run_one(options: argparse.Namespace) -> int:
    """Compiles one model in this process and writes its row."""
    import coverage_run

    model = next(model for model in MODELS if model.name == options.one)
    row = coverage_run.measure(
        model,
        dynamic=options.dynamic,
        build=not options.no_build,
        optimization_level=options.optimization_level,
    )
    row["problem"] = problem_of(row)
    options.output.write_text(json.dumps(row))
    return 0


def problem_of(row: Mapping[str, Any]) -> str | None:
    """What keeps a row from its targets, or None."""
    if row.get("error") is not None:
        return str(row["error"])
    problems = []
    if not is_right(row):
        problems.append(f"largest error {row['largest_error']}")
    if row["fallbacks"]:
        problems.append(f"fallbacks: {', '.join(row['fallbacks'])}")
    elif row["engines"] != 1:
        problems.append(f"{row['engines']} engines")
    if row["seconds_before_builder"] > LONGEST_BEFORE_BUILDER:
        problems.append(f"{row['seconds_before_builder']:.0f} s before the builder")
    allowed = MEMORY_PER_WEIGHT_BYTE * row["weight_bytes"] + MEMORY_MORE
    if row["peak_bytes"] > allowed:
        problems.append(f"{row['peak_bytes'] / 1e9:.1f} GB of host memory")
    return "; ".join(problems) or None


def is_whole(row: Mapping[str, Any]) -> bool:
    """Whether the model is one engine with no fallback."""
    return row.get("engines") == 1 and not row["fallbacks"]


def is_right(row: Mapping[str, Any]) -> bool:
    """Whether its numbers are right."""
    error = row.get("largest_error")
    return error is not None and bool(error <= LARGEST_ERROR[row["computed_by"]])


def summary(rows: Sequence[Mapping[str, Any]], listed: int) -> str:
    """The shares that the targets are about; a model that was not run counts as not reached."""
    whole, right = sum(map(is_whole, rows)), sum(map(is_right, rows))
    return (
        f"{len(rows)} of {listed} models run; in one engine with no fallback: {whole} "
        f"({whole / listed:.0%}, target {LEAST_WHOLE:.0%}); right: {right} ({right / listed:.0%}, target 100%)"
    )


def _line(row: Mapping[str, Any]) -> str:
    if "nodes" not in row:
        return f"{row['model']:45} {row['problem']}"
    return (
        f"{row['model']:45} {row['nodes_in_tensorrt']:4}/{row['nodes']:4} nodes  {row['engines']} engines  "
        f"{row['seconds_before_builder']:5.1f} s + {row['seconds_in_builder']:5.1f} s  "
        f"{row['peak_bytes'] / 1e9:4.1f} GB  error {row['largest_error']}  {row['problem'] or 'ok'}"
    )


if __name__ == "__main__":
    sys.exit(main())
