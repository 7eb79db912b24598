"""Latency of INT8 on the models that people run, as rows of ``latency.py`` on several GPUs, and the bars for it.

    python benchmarks/speed.py --devices 0 1 2 3 --time-limit 590
    python benchmarks/speed.py --summarize benchmarks/results/latency-*.json

Each (model, batch) row is a process of its own, alone on its GPU. Rows that are finished already are not
run again, so that the command can be repeated until all are there. The exit status is 1 if a bar is
missed or a row is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu_queue import Job, run_jobs
from latency import DEFAULT_CONTENDERS, output_file
from result_file import ResultFileError, read_result
from speed_summary import CNNS, markdown, problems
from workloads import IMAGE_SIZE

BENCHMARKS = Path(__file__).resolve().parent
#: A first build of each side and one pass of timing, the route not calibrating, on an H200; longest first.
SECONDS_NEEDED = {
    "densenet121": 330,
    "resnet50": 250,
    "vit_base_patch16_224": 240,
    "mobilenet_v2": 240,
    "densenet": 200,
    "resnet18": 160,
    "vgg16": 120,
}


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(IMAGE_SIZE), default=list(CNNS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--devices", nargs="+", metavar="GPU", default=["0"])
    parser.add_argument("--builds", type=int, default=3, help="of each side, as latency.py has it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--row-seconds", type=float, default=540.0, help="at most, for one row")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for all rows together")
    parser.add_argument("--again", action="store_true", help="also run rows that are finished")
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    parser.add_argument("--output", type=Path, default=BENCHMARKS / "results", help="a folder")
    parser.add_argument("--logs", type=Path, default=Path("build/speed"))
    parser.add_argument("--summarize", nargs="+", type=Path, metavar="FILE")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.summarize is not None:
        return summarize(options.summarize)
    order = list(SECONDS_NEEDED)
    rows = [
        (model, batch)
        for model in sorted(options.models, key=order.index)
        for batch in options.batches
    ]
    jobs = [
        job_of(model, batch, options)
        for model, batch in rows
        if options.again or not is_finished(output_file(options.output, model, batch))
    ]
    for done in run_jobs(jobs, options.devices, options.logs, options.time_limit):
        print(f"{done.job.name}: {done.seconds:.0f} s, {done.problem or 'measured'}", flush=True)
    return summarize([output_file(options.output, *row) for row in rows])


def job_of(model: str, batch: int, options: argparse.Namespace) -> Job:
    """The row as a command; it starts no build that would not end in its time."""
    seconds = options.row_seconds
    if options.time_limit is not None:
        seconds = min(seconds, options.time_limit)
    command = [sys.executable, str(BENCHMARKS / "latency.py"), "--model", model]
    command += ["--batch", str(batch), "--builds", str(options.builds)]
    command += ["--rounds", str(options.rounds), "--output", str(options.output)]
    command += ["--time-limit", str(seconds - 20)]
    command += ["--route-caches", str(options.logs / "route-caches")]
    if options.commit is not None:
        command += ["--commit", options.commit]
    return Job(f"latency-{model}-b{batch}", command, seconds, needs=SECONDS_NEEDED[model])


def is_finished(file: Path) -> bool:
    """Whether a row was measured to its end, with every side."""
    try:
        result = read_result(file, "latency")
    except ResultFileError:
        return False
    return bool(result["finished"]) and result["contenders"].keys() >= set(DEFAULT_CONTENDERS)


def summarize(files: Sequence[Path]) -> int:
    """Prints the table and the bars; files that are missing are named."""
    results, missing = [], []
    for file in files:
        try:
            results.append(read_result(file, "latency"))
        except ResultFileError as error:
            missing.append(str(error))
    print(f"\n{markdown(results)}")
    found = [*problems(results), *missing]
    for problem in found:
        print(f"PROBLEM: {problem}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
