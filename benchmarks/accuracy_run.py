"""One unit of the accuracy benchmark: a model on a task with a seed, trained, calibrated, and tested."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy_data import TASK_FOLDS, load_fold, pixels
from accuracy_models import trained
from metrics import sqnr_db
from paired_flips import PairedFlips, paired_flips, pooled
from simulation import set_scales, simulation
from torch import nn
from torch.utils.data import DataLoader, Dataset
from workloads import with_example_on_path

from trtcompile.errors import CalibrationError
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.algorithms import options_of
from trtcompile.ptq.request import CalibrationRequest

with_example_on_path()
from data import calibration_subset, require_disjoint  # noqa: E402 (the example's module)

#: The row of the configuration that must lose, and what it calibrates with.
BAD = "MINMAX_CALIBRATION, one pixel of each image set to 1000"
OUTLIER = 1000.0  # normalized pixels lie within -2.1 and 2.2
BATCH = 128


@dataclass(frozen=True)
class Unit:
    """What one job does: all folds of one repetition."""

    model: str
    task: str
    seed: int


@dataclass(frozen=True)
class Settings:
    """How units are run.

    Attributes:
        calibration_images: at most so many of the training originals.
        steps: training steps; None for each model's own.
        width: multiplier of the models' sizes.
        data_dir: holds CIFAR-10.
        checkpoints: folder of trained models; None keeps none.
        half: what is not INT8 is FP16 where it can be, as engines have it; slow on a CPU.
    """

    calibration_images: int = 512
    steps: int | None = None
    width: float = 1.0
    data_dir: Path = Path("data")
    checkpoints: Path | None = None
    half: bool = True

    @property
    def precisions(self) -> set[torch.dtype]:
        """As ``enabled_precisions``."""
        return {torch.float, torch.int8} | ({torch.half} if self.half else set())


def algorithms() -> list[CalibrationAlgo]:
    """The algorithms that are implemented, in the order of their definition."""
    found = []
    for algo in CalibrationAlgo:
        try:
            options_of(algo)
        except CalibrationError:
            continue
        found.append(algo)
    return found


def run_unit(unit: Unit, settings: Settings, device: torch.device | str) -> dict[str, Any]:
    """Trains, calibrates, and tests; all numbers are counts over the unit's folds.

    Raises:
        DatasetMissingError: CIFAR-10 is not there.
    """
    folds = [_run_fold(unit, fold, settings, device) for fold in range(TASK_FOLDS[unit.task])]
    names = folds[0]["algorithms"]
    rows = {}
    for name in names:
        tested = [fold["algorithms"][name] for fold in folds]
        rows[name] = {
            **asdict(pooled(flips for flips, _ in tested)),
            "sqnr_db": [round(sqnr, 2) for _, sqnr in tested],
        }
    return {
        **asdict(unit),
        "folds": [{k: v for k, v in fold.items() if k != "algorithms"} for fold in folds],
        "algorithms": rows,
    }


def _run_fold(
    unit: Unit, fold: int, settings: Settings, device: torch.device | str
) -> dict[str, Any]:
    splits = load_fold(unit.task, unit.seed, fold, data_dir=settings.data_dir)
    chosen, indices = calibration_subset(
        splits.plain_train, min(settings.calibration_images, len(splits.plain_train)), unit.seed
    )
    require_disjoint(chosen, splits.test)
    start = time.perf_counter()
    model = trained(
        unit.model,
        unit.task,
        unit.seed,
        fold,
        splits.train,
        folder=settings.checkpoints,
        device=device,
        steps=settings.steps,
        width=settings.width,
    )
    trained_after = time.perf_counter()
    images, labels = pixels(splits.test, device)
    with exact_kernels():
        expected = logits_of(model.to(device), images)
        model.cpu()
        tested = {
            name: (
                paired_flips(expected.argmax(dim=1), actual.argmax(dim=1), labels.cpu()),
                sqnr_db(expected, actual),
            )
            for name, actual in _quantized_logits(model, chosen, images, settings)
        }
    return {
        "fold": fold,
        "train_images": len(splits.train),
        "test_images": len(splits.test),
        "calibration_images": len(indices),
        "calibration_indices": ",".join(map(str, indices)),
        "train_seconds": round(trained_after - start, 1),
        "test_seconds": round(time.perf_counter() - trained_after, 1),
        "algorithms": tested,
    }


def _quantized_logits(
    model: nn.Module, chosen: Dataset[Any], images: torch.Tensor, settings: Settings
) -> list[tuple[str, torch.Tensor]]:
    """Logits of the simulation with the scales of each algorithm, from one pass over the data, and of the bad one."""
    shape, device = (BATCH, *images.shape[1:]), images.device
    loader = DataLoader(chosen, batch_size=64)
    calibrator = DataLoaderCalibrator(loader, device=device, progress=False)
    spoiled = DataLoaderCalibrator(
        DataLoader(WithOutliers(chosen), batch_size=64),
        algo_type=CalibrationAlgo.MINMAX_CALIBRATION,
        device=device,
        progress=False,
    )
    graph = simulation(model, shape, BothCalibrators(calibrator, spoiled), settings.precisions)
    tables = {algo.name: calibrator.table(algo) for algo in algorithms()}
    tables[BAD] = spoiled.table()
    graph.to(device)
    found = []
    for name, table in tables.items():
        set_scales(graph, table)
        found.append((name, logits_of(graph, images)))
    return found


class BothCalibrators(Calibrator):
    """Calibrates twice for one graph, and gives the first calibrator's scales."""

    def __init__(self, first: Calibrator, second: Calibrator) -> None:
        self.first, self.second = first, second

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """The table of the first; the second keeps its own."""
        self.second.calibrate(request)
        return self.first.calibrate(request)


class WithOutliers(Dataset[tuple[torch.Tensor, int]]):
    """Images of another data set, each with one pixel far out of range, at a place that varies."""

    def __init__(self, images: Dataset[Any]) -> None:
        self.images: Any = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image, label = self.images[index]
        image = image.clone()
        _, height, width = image.shape
        image[index % 3, (7 * index) % height, (11 * index) % width] = OUTLIER
        return image, label


@torch.no_grad()
def logits_of(classify: Any, images: torch.Tensor, batch: int = BATCH) -> torch.Tensor:
    """Logits float32 ``[images, classes]``, on the CPU; ``classify`` gets full batches only."""
    found = []
    for part in images.split(batch):
        count = len(part)
        if count < batch:
            part = torch.cat([part, part[-1:].expand(batch - count, -1, -1, -1)])
        outputs = classify(part)
        logits = outputs if isinstance(outputs, torch.Tensor) else outputs[0]
        found.append(logits[:count].float().cpu())
    return torch.cat(found)


def exact_kernels() -> Any:
    """FP32 means FP32 within this context, not TF32."""
    torch.backends.cuda.matmul.allow_tf32 = False
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )


def flips_of(row: dict[str, Any]) -> PairedFlips:
    """The counts of a unit's row."""
    return PairedFlips(row["images"], row["correct_before"], row["lost"], row["gained"])


def units(models: Sequence[str], tasks: Sequence[str], seeds: Sequence[int]) -> list[Unit]:
    """All combinations, in an order in which an early end leaves whole seeds."""
    return [Unit(model, task, seed) for seed in seeds for task in tasks for model in models]
