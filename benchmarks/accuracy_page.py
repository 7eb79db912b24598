"""``docs/accuracy.md``, made from the result file of ``accuracy.py`` and nothing else."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from accuracy_run import BAD, flips_of
from paired_flips import PairedFlips, pooled

BAR_POINTS = 0.2  # INT8 may lose so much on average
JUDGED = ("ENTROPY_CALIBRATION_2", "AUTO")
LEAST_PREDICTIONS, LEAST_SEEDS = 5000, 3

_TASKS = {
    "digits": "scikit-learn's 1,797 digits as colour images, two stratified folds for each seed",
    "crops": "32x32 crops of ten photographs inside scikit-learn and scikit-image, ten classes, two "
    "folds for each seed, 16 pixels between training and test crops",
    "cifar10": "CIFAR-10's own 10,000 test images",
}

_COLUMNS = (
    "| model | algorithm | predictions | FP32, % | INT8, % | difference | flips | 95 % interval | SQNR, dB | "
    "at most 0.2 lost |"
)
_LEGEND = (
    "Difference: INT8 minus FP32 in percentage points, the mean of the seeds, and in parentheses the least and the "
    "greatest of them. Flips: predictions that became wrong and that became right. The interval is the 95 % interval "
    "of Agresti and Min (2005) for paired predictions, all seeds together; predictions of one original by several "
    "seeds count as independent. SQNR: of the centred logits against FP32, median over the folds."
)


class Cell:
    """All seeds of one algorithm on one model and task.

    Args:
        rows: the result's rows of that model and task.
        algorithm: a key of their ``"algorithms"``.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], algorithm: str) -> None:
        found = [row["algorithms"][algorithm] for row in rows if algorithm in row["algorithms"]]
        self.seeds: list[PairedFlips] = [flips_of(row) for row in found]
        self.together = pooled(self.seeds)
        self.sqnr_db = statistics.median(value for row in found for value in row["sqnr_db"])

    @property
    def mean_difference(self) -> float:
        """Mean over the seeds, in percentage points."""
        return statistics.mean(seed.difference for seed in self.seeds)

    @property
    def verdict(self) -> str:
        """Whether the bar of 0.2 points is met, or why that is not judged."""
        if len(self.seeds) < LEAST_SEEDS:
            return f"not judged: {len(self.seeds)} seeds"
        if self.together.images < LEAST_PREDICTIONS:
            return f"not judged: {self.together.images} predictions"
        return "met" if self.mean_difference >= -BAR_POINTS else "not met"


def markdown(result: Mapping[str, Any]) -> str:
    """The page."""
    environment = result["environment"]
    machine, versions = environment["machine"], environment["versions"]
    algorithms = list(dict.fromkeys(n for row in result["rows"] for n in row["algorithms"]))
    where = f"{machine['gpu'] or machine['processor']}, torch {versions['torch']}"
    settings = result["settings"]
    lines = [
        "# Accuracy after calibration",
        "",
        "Made by `python benchmarks/accuracy.py` from `benchmarks/results/accuracy.json`; do not edit.",
        f"Measured on {environment['date'][:10]} at commit {(environment['commit'] or 'unknown')[:12]} on {where}.",
        "",
        _how(settings),
        "",
        *(f"- `{task}`: {text}." for task, text in _TASKS.items()),
        "",
        _LEGEND,
        "",
    ]
    lines += ["## Overview", "", *_overview(result, algorithms), ""]
    for task in dict.fromkeys(row["task"] for row in (*result["rows"], *result["not_run"])):
        lines += [f"## {task}", "", *_task_table(result, task, algorithms), ""]
    return "\n".join(lines).rstrip() + "\n"


def _how(settings: Mapping[str, Any]) -> str:
    return (
        "Models are trained on the spot, with FP32 accuracies that leave room for mistakes. Each seed is a repetition "
        "with its own folds, weights, and augmentation. INT8 is the simulation that engines are compared with "
        f"(`compiled.lowered`, {'FP16' if settings['half'] else 'FP32'} where not INT8), calibrated once on at most "
        f"{settings['calibration_images']} training images whose numbers are in the result file; every algorithm chose "
        "its scales from the same pass. No calibration image stems from a test original (asserted)."
    )


def _rows(result: Mapping[str, Any], model: str, task: str) -> list[Mapping[str, Any]]:
    return [row for row in result["rows"] if (row["model"], row["task"]) == (model, task)]


def _pairs(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((row["model"], row["task"]) for row in result["rows"]))


def _overview(result: Mapping[str, Any], algorithms: Sequence[str]) -> list[str]:
    """Mean difference in points: algorithms by models."""
    pairs = sorted(_pairs(result), key=lambda pair: (pair[1], pair[0]))
    lines = [
        "Mean difference in percentage points:",
        "",
        "| algorithm | " + " | ".join(f"{model}, {task}" for model, task in pairs) + " |",
        "|---|" + "---:|" * len(pairs),
    ]
    for algorithm in algorithms:
        cells = [_mean(_rows(result, *pair), algorithm) for pair in pairs]
        lines.append(f"| {_name(algorithm)} | " + " | ".join(cells) + " |")
    return lines


def _mean(rows: Sequence[Mapping[str, Any]], algorithm: str) -> str:
    if not any(algorithm in row["algorithms"] for row in rows):
        return "-"
    return f"{Cell(rows, algorithm).mean_difference:+.2f}"


def _task_table(result: Mapping[str, Any], task: str, algorithms: Sequence[str]) -> list[str]:
    lines = [
        _COLUMNS,
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---|",
    ]
    models = [model for model, of in _pairs(result) if of == task]
    for model in models:
        rows = _rows(result, model, task)
        for algorithm in algorithms:
            if not any(algorithm in row["algorithms"] for row in rows):
                continue
            lines.append(_line(model, algorithm, Cell(rows, algorithm)))
    for model, reason in dict.fromkeys(
        (row["model"], row["reason"]) for row in result["not_run"] if row["task"] == task
    ):
        lines.append(f"| {model} | - | not run: {reason} | | | | | | | |")
    return lines


def _line(model: str, algorithm: str, cell: Cell) -> str:
    together = cell.together
    differences = [seed.difference for seed in cell.seeds]
    low, high = together.interval_95
    return (
        f"| {model} | {_name(algorithm)} | {together.images} | {together.points_before:.2f} | "
        f"{together.points_after:.2f} | {cell.mean_difference:+.2f} ({min(differences):+.2f} to "
        f"{max(differences):+.2f}) | -{together.lost} +{together.gained} | {low:+.2f} to {high:+.2f} | "
        f"{cell.sqnr_db:.1f} | {cell.verdict if algorithm in JUDGED else '-'} |"
    )


def _name(algorithm: str) -> str:
    return f"*bad on purpose:* {algorithm}" if algorithm == BAD else algorithm
