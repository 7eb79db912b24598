"""Tasks and models of the accuracy benchmark: what is on which side of a fold."""

from __future__ import annotations

import accuracy_data
import accuracy_models
import pytest
import torch
from accuracy_data import (
    CELL,
    CROP,
    PhotographsMissingError,
    cell_corners,
    crop_splits,
    load_fold,
    photographs,
    pixels,
    shifted_and_mirrored,
)
from accuracy_models import MODELS, train, trained
from data import STD, ImageDataset


def coordinates(height: int, width: int) -> torch.Tensor:
    """An image whose pixels say where they are, row and column, with a chessboard for contrast."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([rows, columns, 255 * ((rows + columns) % 2)]).to(torch.uint8)


IMAGES = {"a": coordinates(250, 170), "b": coordinates(165, 250)}


def boxes(dataset: ImageDataset) -> list[tuple[int, int, int]]:
    """Label, top, and left of crops of ``IMAGES``."""
    tops, lefts = dataset.images[:, 0, 0, 0].tolist(), dataset.images[:, 1, 0, 0].tolist()
    return list(zip(dataset.labels.tolist(), tops, lefts, strict=True))


def test_the_guard_band_is_half_a_crop_wide():
    splits = crop_splits(IMAGES, seed=0, fold=0, dense=True, copies=1)
    assert least_distance(splits.plain_train, splits.test) == CROP // 2


@pytest.mark.parametrize("dense", [False, True])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_pixel_is_near_one_of_the_other_side(seed, dense):
    splits = crop_splits(IMAGES, seed=seed, fold=0, dense=dense, copies=2)
    assert least_distance(splits.plain_train, splits.test) >= 16


def least_distance(one: ImageDataset, other: ImageDataset) -> int:
    """How many pixels are between the nearest crops of two sides, in one photograph."""
    return min(
        max(abs(top - their_top), abs(left - their_left)) - CROP
        for label, top, left in boxes(one)
        for their_label, their_top, their_left in boxes(other)
        if label == their_label
    )


def test_crops_show_what_is_there():
    for crop, (_, top, left) in zip(
        crop_splits(IMAGES, seed=0, fold=1, copies=1).test.images,
        boxes(crop_splits(IMAGES, seed=0, fold=1, copies=1).test),
        strict=True,
    ):
        assert torch.equal(crop, coordinates(250, 250)[:, top : top + CROP, left : left + CROP])


def test_each_cell_is_held_out_once_per_seed_with_all_its_crops():
    folds = [crop_splits(IMAGES, seed=3, fold=fold, copies=3) for fold in range(2)]
    held_out = [set(fold.test.sources.tolist()) for fold in folds]
    assert not held_out[0] & held_out[1]
    cells = 3 * 2 + 2 * 3  # 250 x 170 and 165 x 250 pixels in cells of 80
    assert held_out[0] | held_out[1] == set(range(cells))
    for fold, sources in zip(folds, held_out, strict=True):
        assert set(fold.train.sources.tolist()) == set(fold.plain_train.sources.tolist())
        assert not set(fold.train.sources.tolist()) & sources
        assert len(fold.test) == 4 * len(sources)
        assert len(fold.train) == 3 * len(set(fold.train.sources.tolist()))
    # What one fold tests, the other one trains on.
    assert sorted(boxes(folds[0].test)) == sorted(boxes(folds[1].plain_train))


def test_the_seed_moves_the_cells_and_the_same_seed_does_not():
    first, again, other = (crop_splits(IMAGES, seed=s, fold=0, copies=1) for s in (0, 0, 1))
    assert torch.equal(first.train.images, again.train.images)
    assert boxes(first.test) != boxes(other.test)


def test_cells_lie_within_the_photograph():
    for seed in range(5):
        corners = cell_corners(
            torch.zeros(3, 3 * CELL, CELL + 7), torch.Generator().manual_seed(seed)
        )
        assert len(corners) == 3
        assert all(top % CELL == 0 and 0 <= left <= 7 for top, left in corners)


def test_even_crops_are_left_out():
    even = {"a": IMAGES["a"], "b": torch.full((3, 160, 160), 9, dtype=torch.uint8)}
    splits = crop_splits(even, seed=0, fold=0, copies=1)
    assert set(splits.test.labels.tolist()) == {0}


def test_a_fold_that_is_none_is_refused():
    with pytest.raises(ValueError, match="fold is 2"):
        crop_splits(IMAGES, seed=0, fold=2)
    with pytest.raises(ValueError, match="no task 'mnist'"):
        load_fold("mnist", 0, 0)


def test_photographs_of_packages_are_found_and_missing_ones_named(monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.setattr(
        accuracy_data, "PHOTOGRAPHS", {"sklearn": accuracy_data.PHOTOGRAPHS["sklearn"]}
    )
    found = photographs()
    assert {name: tuple(image.shape) for name, image in found.items()} == {
        "china": (3, 427, 640),
        "flower": (3, 427, 640),
    }
    assert found["china"].float().std() > 10
    for package in ("no_such_package", "sklearn"):
        monkeypatch.setattr(accuracy_data, "PHOTOGRAPHS", {package: ("no/such.jpg",)})
        with pytest.raises(PhotographsMissingError, match=package):
            photographs()


def test_digits_of_a_fold_are_on_one_side():
    pytest.importorskip("sklearn")
    folds = [load_fold("digits", 1, fold) for fold in range(2)]
    sources = [set(fold.test.sources.tolist()) for fold in folds]
    assert not sources[0] & sources[1] and len(sources[0] | sources[1]) == 1797
    assert not set(folds[0].train.sources.tolist()) & sources[0]


def test_cifar10_is_not_downloaded(tmp_path):
    from data import DatasetMissingError

    with pytest.raises(DatasetMissingError):
        load_fold("cifar10", 0, 0, data_dir=tmp_path)


def test_shifts_and_mirror_images_are_those_of_a_loop():
    images = torch.randn(6, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    moved = shifted_and_mirrored(images, torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(7)
    shifts = torch.randint(0, 9, (2, 6), generator=generator).tolist()
    mirrored = (torch.rand(6, generator=generator) < 0.5).tolist()
    assert any(mirrored) and not all(mirrored)
    for number, image in enumerate(images):
        padded = torch.zeros(3, 13, 12)
        padded[:, 4:9, 4:8] = image
        top, left = shifts[0][number], shifts[1][number]
        expected = padded[:, top : top + 5, left : left + 4]
        expected = expected.flip(-1) if mirrored[number] else expected
        assert torch.equal(moved[number], expected)


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 3, 32, 32), generator=generator, dtype=torch.uint8)
    return ImageDataset(images, torch.arange(40) % 10, torch.arange(40))


def test_pixels_are_those_of_the_data_set(dataset):
    images, labels = pixels(dataset, "cpu")
    expected, label = dataset[7]
    assert torch.allclose(images[7], expected, atol=1e-6)
    assert labels[7] == label
    assert images.std() == pytest.approx(0.289 / STD.mean().item(), rel=0.05)


@pytest.mark.parametrize("name", MODELS)
def test_models_classify_small_images(name):
    pytest.importorskip("timm" if name == "vit" else "torchvision")
    small = MODELS[name].build(0.125).eval()
    with torch.no_grad():
        assert small(torch.randn(2, 3, 32, 32)).shape == (2, 10)
    whole = MODELS[name].build(1.0)
    assert sum(p.numel() for p in whole.parameters()) > 4 * sum(
        p.numel() for p in small.parameters()
    )


def test_training_learns_and_is_determined_by_the_seed(dataset, monkeypatch):
    monkeypatch.setattr(accuracy_models, "BATCH", 16)
    before = torch.get_rng_state()
    models = [
        train("vgg16", dataset, seed=s, device="cpu", steps=3, width=0.125) for s in (0, 0, 1)
    ]
    assert torch.equal(torch.get_rng_state(), before)
    weights = [model.classifier[0].weight for model in models]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])
    assert not models[0].training


def test_checkpoints_are_read_where_the_settings_agree(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(accuracy_models, "BATCH", 16)
    options = {"folder": tmp_path, "device": "cpu", "width": 0.125}
    first = trained("vgg16", "digits", 0, 1, dataset, steps=1, **options)
    trainings = []

    def counted(*args, **kwargs):
        trainings.append(kwargs["seed"])
        return train(*args, **kwargs)

    monkeypatch.setattr(accuracy_models, "train", counted)
    again = trained("vgg16", "digits", 0, 1, dataset, steps=1, **options)
    assert trainings == []
    assert torch.equal(first.classifier[0].weight, again.classifier[0].weight)
    trained("vgg16", "digits", 0, 1, dataset, steps=2, **options)
    trained("vgg16", "digits", 1, 1, dataset, steps=2, **options)
    assert trainings == [1, 1001]
    assert [file.suffix for file in tmp_path.iterdir()] == [".pt"] * 2
