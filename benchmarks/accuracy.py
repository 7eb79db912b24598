"""Accuracy of every calibration algorithm on models trained on the spot, and ``docs/accuracy.md``.

    python benchmarks/accuracy.py --devices 0 1 2 3 --jobs 3
    python benchmarks/accuracy.py --page

Each (model, task, seed) is trained, calibrated once, and tested in the simulation with the scales of
every algorithm. The result file is written anew after each of them, and those that it has already
are not run again unless ``--again`` is given. The page is made from the file alone. The exit status is 1 if something
failed or is missing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import environment
import torch
from accuracy_data import TASK_FOLDS
from accuracy_models import MODELS
from accuracy_page import markdown
from accuracy_run import Settings, Unit, run_unit, units
from result_file import ResultFileError, read_result, write_result
from workloads import with_example_on_path

KIND = "accuracy"
RESULTS = Path(__file__).resolve().parent / "results"
PAGE = Path(__file__).resolve().parents[1] / "docs" / "accuracy.md"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--tasks", nargs="+", choices=list(TASK_FOLDS), default=list(TASK_FOLDS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--devices", nargs="+", metavar="GPU", help="numbers of GPUs; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="processes for each GPU")
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="then no unit is begun")
    parser.add_argument("--steps", type=int, help="training steps; default: each model's own")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of the models' sizes")
    parser.add_argument("--calibration-images", type=int, default=Settings().calibration_images)
    parser.add_argument("--no-half", action="store_true", help="FP32 where others have FP16")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--output", type=Path, default=RESULTS / "accuracy.json")
    parser.add_argument("--again", action="store_true", help="also run what the file has")
    parser.add_argument("--page", action="store_true", help="only write the page from the file")
    parser.add_argument("--page-file", type=Path, default=PAGE)
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.page:
        result = read_result(options.output, KIND)
        options.page_file.write_text(markdown(result))
        print(f"wrote {options.page_file}")
        return 0
    result = started_result(options)
    wanted = units(options.models, options.tasks, options.seeds)
    not_run = {task: reason for task in options.tasks if (reason := why_not(task, options))}
    result["not_run"] = [
        {"model": unit.model, "task": unit.task, "seed": unit.seed, "reason": not_run[unit.task]}
        for unit in wanted
        if unit.task in not_run
    ]
    done = {(row["model"], row["task"], row["seed"]) for row in result["rows"]}
    due = [
        unit
        for unit in wanted
        if unit.task not in not_run
        and (options.again or (unit.model, unit.task, unit.seed) not in done)
    ]
    failed = 0
    for unit, outcome in run_all(due, options):
        if isinstance(outcome, str):
            failed += 1
            print(f"{unit}: FAILED: {outcome}", flush=True)
            continue
        result["rows"] = [r for r in result["rows"] if _key(r) != _key(outcome)] + [outcome]
        write_result(options.output, result)
        print_row(outcome)
    write_result(options.output, result)
    options.page_file.write_text(markdown(result))
    print(f"wrote {options.output} and {options.page_file}")
    return 1 if failed else 0


def _key(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["model"], row["task"], row["seed"]


def started_result(options: argparse.Namespace) -> dict[str, Any]:
    """The result file's content so far, if it was made with the same settings; else a new one."""
    settings = {
        "calibration_images": options.calibration_images,
        "steps": options.steps,
        "width": options.width,
        "half": not options.no_half,
    }
    if not options.again and options.output.is_file():
        try:
            result = read_result(options.output, KIND)
        except ResultFileError as error:
            print(f"begun anew: {error}", file=sys.stderr)
        else:
            if result["settings"] == settings:
                return result
            print(f"begun anew: {options.output} has other settings", file=sys.stderr)
    return {
        "kind": KIND,
        "environment": environment.describe(options.commit),
        "settings": settings,
        "rows": [],
        "not_run": [],
    }


def why_not(task: str, options: argparse.Namespace) -> str | None:
    """Why a task cannot be run here, or None."""
    if task != "cifar10":
        return None
    with_example_on_path()
    from data import DatasetMissingError, cifar10

    try:
        cifar10(options.data_dir, download=False)
    except DatasetMissingError:
        return "data not present"
    return None


def run_all(
    due: Sequence[Unit], options: argparse.Namespace
) -> Iterator[tuple[Unit, dict[str, Any] | str]]:
    """Runs units in processes, ``jobs`` on each GPU; yields each one's row, or what went wrong."""
    settings = Settings(
        calibration_images=options.calibration_images,
        steps=options.steps,
        width=options.width,
        data_dir=options.data_dir,
        checkpoints=options.checkpoints,
        half=not options.no_half,
    )
    gpus = options.devices or [str(number) for number in range(torch.cuda.device_count())]
    context = multiprocessing.get_context("spawn")  # CUDA cannot be used in forked processes
    places = context.Queue()
    for place in (gpus or [None]) * options.jobs:
        places.put(place)
    deadline = None if options.time_limit is None else time.time() + options.time_limit
    count = max(1, len(gpus)) * options.jobs
    with ProcessPoolExecutor(count, context, initializer=take_place, initargs=(places,)) as pool:
        running = {pool.submit(_run, unit, settings, deadline): unit for unit in due}
        for finished in as_completed(running):
            try:
                yield running[finished], finished.result()
            except Exception as error:  # noqa: BLE001 - a worker died; the others go on
                yield running[finished], f"{type(error).__name__}: {error}"


def take_place(places: Any) -> None:
    """Makes one GPU the only one that this process sees."""
    gpu = places.get()
    torch.set_num_threads(1)
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu


def _run(unit: Unit, settings: Settings, deadline: float | None) -> dict[str, Any] | str:
    if deadline is not None and time.time() > deadline:
        return "the time limit was over"
    device = "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        return run_unit(unit, settings, device)
    except Exception as error:  # noqa: BLE001 - a row of the table
        traceback.print_exc()
        return f"{type(error).__name__}: {error}"


def print_row(row: dict[str, Any]) -> None:
    seconds = sum(fold["train_seconds"] + fold["test_seconds"] for fold in row["folds"])
    first = next(iter(row["algorithms"].values()))
    print(
        f"{row['model']} {row['task']} seed {row['seed']}: {seconds:.0f} s, FP32 "
        f"{100 * first['correct_before'] / first['images']:.2f} % of {first['images']}; "
        + ", ".join(f"{n} -{r['lost']} +{r['gained']}" for n, r in row["algorithms"].items()),
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
