"""The accuracy benchmark: flips, scales put into a simulation, units, and the page."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import accuracy
import accuracy_run
import pytest
import torch
from accuracy_page import Cell, markdown
from accuracy_run import BAD, Settings, Unit, WithOutliers, algorithms, logits_of, run_unit, units
from data import ImageDataset, Splits
from paired_flips import PairedFlips, paired_flips, pooled
from simulation import set_scales, simulation
from torch import nn
from workloads import random_images, randomize, settle

from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

INT8 = {torch.float, torch.int8}


def test_flips_are_counted_one_by_one():
    generator = torch.Generator().manual_seed(0)
    before, after, labels = torch.randint(0, 3, (3, 200), generator=generator)
    flips = paired_flips(before, after, labels)
    lost = gained = right = 0
    for was, now, label in zip(before.tolist(), after.tolist(), labels.tolist(), strict=True):
        right += was == label
        lost += was == label != now
        gained += was != label == now
    assert (flips.images, flips.correct_before, flips.lost, flips.gained) == (
        200,
        right,
        lost,
        gained,
    )
    assert lost != gained
    assert flips.points_after == pytest.approx((after == labels).float().mean().item() * 100)
    assert flips.difference == pytest.approx(flips.points_after - flips.points_before)


def test_the_interval_is_that_of_agresti_and_min():
    # Proportions of a table with half a prediction more in each cell, by the definition of the variance.
    kept, lost, gained, wrong = 85.5, 10.5, 3.5, 4.5
    n = kept + lost + gained + wrong
    difference = (gained - lost) / n
    deviation = math.sqrt(((lost + gained) / n - difference**2) / n)
    expected = [100 * (difference + side * 1.959964 * deviation) for side in (-1, 1)]
    assert PairedFlips(102, 95, 10, 3).interval_95 == pytest.approx(expected, abs=1e-4)


def test_no_flips_still_leave_an_interval_that_shrinks():
    low, high = PairedFlips(100, 90, 0, 0).interval_95
    assert low == -high < 0
    assert PairedFlips(1000, 900, 0, 0).interval_95[1] < high / 5


def test_pooling_adds_the_counts():
    both = pooled([PairedFlips(10, 8, 1, 2), PairedFlips(20, 9, 3, 0)])
    assert both == PairedFlips(30, 17, 4, 2)


def small_model() -> nn.Module:
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.MaxPool2d(4),
        nn.Conv2d(16, 16, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * 36, 10),
    ).eval()
    randomize(model, seed=0)
    settle(model, random_images(16, 32, seed=1))
    return model


@pytest.mark.parametrize("precisions", [INT8, INT8 | {torch.half}])
def test_scales_put_in_are_those_it_could_have_been_made_with(precisions):
    images = random_images(8, 32, seed=2)
    made = {}
    for algo in (CalibrationAlgo.MINMAX_CALIBRATION, CalibrationAlgo.ENTROPY_CALIBRATION_2):
        calibrator = DataLoaderCalibrator([images], algo_type=algo, progress=False)
        made[algo] = simulation(small_model(), (8, 3, 32, 32), calibrator, precisions), calibrator
    changed, calibrator = made[CalibrationAlgo.MINMAX_CALIBRATION]
    expected, _ = made[CalibrationAlgo.ENTROPY_CALIBRATION_2]
    before = logits_of(changed, images, 8)
    set_scales(changed, calibrator.table(CalibrationAlgo.ENTROPY_CALIBRATION_2))
    assert torch.equal(logits_of(changed, images, 8), logits_of(expected, images, 8))
    assert not torch.equal(logits_of(changed, images, 8), before)
    with pytest.raises(KeyError):
        set_scales(changed, {"input_0": 1.0})


def test_logits_of_an_incomplete_batch_are_those_of_its_images():
    images = random_images(7, 32, seed=3)
    sizes = []

    def classify(batch: torch.Tensor) -> tuple[torch.Tensor]:
        sizes.append(len(batch))
        return (batch.mean(dim=(2, 3)),)

    assert torch.equal(logits_of(classify, images, 4), images.mean(dim=(2, 3)))
    assert sizes == [4, 4]


def test_algorithms_are_those_that_can_be_chosen():
    found = algorithms()
    assert (
        CalibrationAlgo.ENTROPY_CALIBRATION_2 in found and CalibrationAlgo.MSE_CALIBRATION in found
    )
    for algo in found:
        DataLoaderCalibrator([torch.zeros(1)], algo_type=algo)


def byte_images(count: int, seed: int, first_source: int) -> ImageDataset:
    images = (random_images(count, 32, seed=seed) * 40 + 128).clamp(0, 255).to(torch.uint8)
    labels = torch.arange(count) % 10
    return ImageDataset(images, labels, torch.arange(count) + first_source)


@pytest.fixture
def two_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Random images of two folds, and a model that is not trained."""

    def load_fold(task: str, seed: int, fold: int, *, data_dir: Path) -> Splits:
        train = byte_images(12, 10 + fold, 0)
        return Splits(train, train, byte_images(20, 20 + fold, 100))

    monkeypatch.setattr(accuracy_run, "load_fold", load_fold)
    monkeypatch.setattr(accuracy_run, "trained", lambda *_, **__: small_model())


def test_a_unit_counts_all_folds_and_the_bad_configuration_loses(two_folds, monkeypatch):
    settings = Settings(calibration_images=8, half=False)
    row = run_unit(Unit("vgg16", "digits", 3), settings, "cpu")
    assert (row["model"], row["task"], row["seed"]) == ("vgg16", "digits", 3)
    assert set(row["algorithms"]) == {*(algo.name for algo in algorithms()), BAD}
    for tested in row["algorithms"].values():
        assert tested["images"] == 40 and len(tested["sqnr_db"]) == 2
    for fold in row["folds"]:
        indices = [int(index) for index in fold["calibration_indices"].split(",")]
        assert len(set(indices)) == 8 and set(indices) < set(range(12))
    minmax = row["algorithms"]["MINMAX_CALIBRATION"]
    assert min(minmax["sqnr_db"]) > 25
    assert max(row["algorithms"][BAD]["sqnr_db"]) < min(minmax["sqnr_db"]) - 15
    json.dumps(row, allow_nan=False)


def test_calibrating_with_test_images_is_refused(two_folds, monkeypatch):
    leaky = byte_images(12, 0, 0)
    monkeypatch.setattr(accuracy_run, "load_fold", lambda *_, **__: Splits(leaky, leaky, leaky))
    with pytest.raises(ValueError, match="also test images"):
        run_unit(Unit("vgg16", "digits", 0), Settings(), "cpu")


def test_outliers_are_one_pixel_of_each_image():
    images = byte_images(5, 0, 0)
    spoiled = WithOutliers(images)
    assert len(spoiled) == 5
    for index in range(5):
        changed = spoiled[index][0] != images[index][0]
        assert changed.sum() == 1
        assert spoiled[index][0][changed].item() == accuracy_run.OUTLIER


def row(model: str, seed: int, lost: int, *, images: int = 2000) -> dict[str, Any]:
    flips = {"images": images, "correct_before": 1900, "lost": lost, "gained": 1, "sqnr_db": [30.0]}
    return {
        "model": model,
        "task": "digits",
        "seed": seed,
        "folds": [{"train_seconds": 1.0, "test_seconds": 2.0}],
        "algorithms": {"ENTROPY_CALIBRATION_2": flips, BAD: {**flips, "lost": 900}},
    }


@pytest.mark.parametrize(
    ("lost", "images", "seeds", "verdict"),
    [
        (5, 2000, 3, "met"),
        (6, 2000, 3, "not met"),
        (0, 1600, 3, "not judged: 4800 predictions"),
        (0, 9000, 2, "not judged: 2 seeds"),
    ],
)
def test_the_bar_is_the_mean_of_enough_seeds_and_predictions(lost, images, seeds, verdict):
    rows = [row("vgg16", seed, lost, images=images) for seed in range(seeds)]
    assert Cell(rows, "ENTROPY_CALIBRATION_2").verdict == verdict


def test_the_page_says_what_the_rows_say(tmp_path):
    result = {
        "environment": accuracy.environment.describe("abc"),
        "settings": {"calibration_images": 512, "half": True},
        "rows": [row("vgg16", 0, 3), row("vgg16", 1, 5), row("vgg16", 2, 10)],
        "not_run": [{"model": "vit", "task": "cifar10", "seed": 0, "reason": "data not present"}],
    }
    page = markdown(result)
    assert (
        "| vgg16 | ENTROPY_CALIBRATION_2 | 6000 | 95.00 | 94.75 | -0.25 (-0.45 to -0.10) | -18 +3 | "
    ) in page
    assert "| 30.0 | not met |" in page
    assert f"| *bad on purpose:* {BAD} | -44.95 |" in page
    assert "| vit | - | not run: data not present |" in page
    assert "commit abc on" in page


def test_units_of_a_seed_come_together():
    listed = units(["a", "b"], ["t", "u"], [0, 1])
    assert len(set(listed)) == 8
    assert [unit.seed for unit in listed] == [0] * 4 + [1] * 4


def run_main(monkeypatch: pytest.MonkeyPatch, folder: Path, *extra: str) -> tuple[int, list[Unit]]:
    """The command with units that are not run."""
    ran: list[Unit] = []

    def run_all(due: list[Unit], options: Any) -> Any:
        for unit in due:
            ran.append(unit)
            yield unit, "no luck" if unit.model == "vit" else row(unit.model, unit.seed, 1)

    monkeypatch.setattr(accuracy, "run_all", run_all)
    files = ["--output", str(folder / "a.json"), "--page-file", str(folder / "a.md")]
    return accuracy.main([*files, "--data-dir", str(folder), *extra]), ran


def test_a_run_goes_on_where_the_last_one_ended(tmp_path, monkeypatch, capsys):
    tasks = ("--tasks", "digits", "cifar10")
    code, ran = run_main(monkeypatch, tmp_path, "--models", "vgg16", "vit", "--seeds", "0", *tasks)
    assert code == 1 and len(ran) == 2
    assert "FAILED: no luck" in capsys.readouterr().out
    code, ran = run_main(monkeypatch, tmp_path, "--models", "vgg16", "--seeds", "0", "1", *tasks)
    assert code == 0
    assert ran == [Unit("vgg16", "digits", 1)]
    result = json.loads((tmp_path / "a.json").read_text())
    assert [r["seed"] for r in result["rows"]] == [0, 1]
    assert {r["task"] for r in result["not_run"]} == {"cifar10"}
    assert "not run: data not present" in (tmp_path / "a.md").read_text()
    code, ran = run_main(
        monkeypatch,
        tmp_path,
        "--models",
        "vgg16",
        "--seeds",
        "0",
        "--tasks",
        "digits",
        "--steps",
        "9",
    )
    assert ran == [Unit("vgg16", "digits", 0)]  # other settings: begun anew
    (tmp_path / "a.md").unlink()
    assert run_main(monkeypatch, tmp_path, "--page") == (0, [])
    assert (tmp_path / "a.md").is_file()
