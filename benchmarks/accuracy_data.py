"""The tasks of the accuracy benchmark: folds of digits, crops of photographs, and CIFAR-10 where it is.

Digits and crops need no download. Each repetition (a seed) divides the originals into two folds, and a
model is trained for each: on the other fold's originals. So every original is predicted once per seed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from workloads import with_example_on_path

with_example_on_path()
from data import ImageDataset, Splits, cifar10, digits  # noqa: E402 (the example's module)

FOLDS = 2
#: Tasks, and how many folds one seed of them has: CIFAR-10 comes divided.
TASK_FOLDS = {"digits": FOLDS, "crops": FOLDS, "cifar10": 1}
CLASSES = 10

#: Colour photographs inside the packages, each of which is a class: none of them is fetched.
PHOTOGRAPHS = {
    "sklearn": ("datasets/images/china.jpg", "datasets/images/flower.jpg"),
    "skimage": (
        "data/astronaut.png",
        "data/chelsea.png",
        "data/coffee.png",
        "data/hubble_deep_field.jpg",
        "data/ihc.png",
        "data/motorcycle_left.png",
        "data/retina.jpg",
        "data/rocket.jpg",
    ),
}

CROP = 32
CELL = 80  # pixels; a cell's crops lie in its middle, so that 16 pixels separate those of two cells
MARGIN = 8
MOST_CELLS = 200  # of one photograph, so that the largest one does not make up most of the data
LEAST_DEVIATION = 4.0  # of 255; an even crop (black sky) belongs to no photograph
DIGIT_COPIES, CROP_COPIES = 8, 48  # augmented copies of each training original


class PhotographsMissingError(FileNotFoundError):
    """A package that holds photographs is not installed."""


def load_fold(
    task: str, seed: int, fold: int, *, data_dir: Path = Path("data"), dense: bool = False
) -> Splits:
    """Training images, the same without augmentation, and test images of one fold.

    Args:
        task: a key of ``TASK_FOLDS``.
        seed: determines the division into folds, and the augmentation.
        fold: the fold to hold out.
        data_dir: holds CIFAR-10, which is not downloaded.
        dense: test crops at every eighth pixel instead of side by side, for more predictions of one
            model; they overlap, so they are no independent samples. The other tasks have none.

    Raises:
        DatasetMissingError: CIFAR-10 is not in ``data_dir``.
        PhotographsMissingError: scikit-learn or scikit-image is not installed.
    """
    if task == "cifar10":
        return cifar10(data_dir, download=False)
    if task == "digits":
        return digits(seed=seed, fold=fold, folds=FOLDS, copies=DIGIT_COPIES)
    if task == "crops":
        return crop_splits(photographs(), seed=seed, fold=fold, dense=dense)
    raise ValueError(f"There is no task {task!r}. Choose one of {', '.join(TASK_FOLDS)}.")


def photographs() -> dict[str, torch.Tensor]:
    """The photographs by name, uint8 ``[3, height, width]``.

    The packages are not imported: scikit-image alone would need several others.

    Raises:
        PhotographsMissingError: a package or a file of it is not there.
    """
    from PIL import Image

    found = {}
    for package, files in PHOTOGRAPHS.items():
        spec = importlib.util.find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            raise PhotographsMissingError(
                f"The crops are cut from photographs inside {package}, which is not installed. "
                "Install scikit-learn and scikit-image, or leave the task out: --tasks digits."
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
        for file in files:
            if not (folder / file).is_file():
                raise PhotographsMissingError(f"{folder / file} is missing. Reinstall {package}.")
            with Image.open(folder / file) as image:
                pixels = torch.from_numpy(np.array(image.convert("RGB")))
            found[Path(file).stem] = pixels.permute(2, 0, 1).contiguous()
    return found


def crop_splits(
    images: Mapping[str, torch.Tensor],
    *,
    seed: int,
    fold: int,
    dense: bool = False,
    copies: int = CROP_COPIES,
) -> Splits:
    """Crops of photographs, each of which is a class.

    A photograph is divided into square cells, whose origin depends on the seed, and its cells into
    folds. All crops of a cell are on one side. They lie in the middle of the cell, so that no pixel
    is on both sides, nor within 16 pixels of one on the other.

    Args:
        images: photographs, uint8 ``[3, height, width]``.
        seed: determines origins, folds, and augmentation.
        fold: the fold to hold out, from 0 to ``FOLDS - 1``.
        dense: test crops overlap.
        copies: training crops of each cell: anywhere in its middle, mirrored or not, with up to
            20 % more or less brightness and contrast.

    Returns:
        Images with the number of their cell as the source.
    """
    if not 0 <= fold < FOLDS:
        raise ValueError(f"fold is {fold} of {FOLDS}. Give a number from 0 to {FOLDS - 1}.")
    generator = torch.Generator().manual_seed(seed)
    train, plain, test = _Crops(), _Crops(), _Crops()
    source = 0
    for label, image in enumerate(images.values()):
        corners = cell_corners(image, generator)
        order = torch.randperm(len(corners), generator=generator)[:MOST_CELLS].tolist()
        for rank, cell in enumerate(order):
            top, left = corners[cell]
            middle = image[
                :, top + MARGIN : top + CELL - MARGIN, left + MARGIN : left + CELL - MARGIN
            ]
            held_out = rank % FOLDS == fold
            drawn = _random_crops(middle, copies, generator)  # also where unused: folds draw alike
            if held_out:
                test.add(_grid_crops(middle, CROP // 4 if dense else CROP), label, source)
            else:
                plain.add(_grid_crops(middle, CROP), label, source)
                train.add(drawn, label, source)
            source += 1
    return Splits(train.dataset(), plain.dataset(), test.dataset())


def cell_corners(image: torch.Tensor, generator: torch.Generator) -> list[tuple[int, int]]:
    """Top and left of the cells of a photograph, the first one at a random place."""
    starts = []
    for size in image.shape[1:]:
        slack = size % CELL
        offset = int(torch.randint(0, slack + 1, (), generator=generator))
        starts.append(range(offset, size - CELL + 1, CELL))
    return [(top, left) for top in starts[0] for left in starts[1]]


def _grid_crops(middle: torch.Tensor, stride: int) -> torch.Tensor:
    crops = middle.unfold(1, CROP, stride).unfold(2, CROP, stride)
    return crops.permute(1, 2, 0, 3, 4).reshape(-1, 3, CROP, CROP)


def _random_crops(middle: torch.Tensor, count: int, generator: torch.Generator) -> torch.Tensor:
    room = middle.shape[-1] - CROP
    places = torch.randint(0, room + 1, (count, 2), generator=generator)
    mirrored = torch.rand(count, generator=generator) < 0.5
    change = 0.8 + 0.4 * torch.rand(count, 2, 1, 1, 1, generator=generator)
    crops = torch.stack([middle[:, y : y + CROP, x : x + CROP] for y, x in places.tolist()]).float()
    crops = torch.where(mirrored[:, None, None, None], crops.flip(-1), crops)
    means = crops.mean(dim=(1, 2, 3), keepdim=True)
    crops = ((crops - means) * change[:, 0] + means) * change[:, 1]
    return crops.round().clamp(0, 255).to(torch.uint8)


class _Crops:
    """Collects crops; those of an even colour are left out."""

    def __init__(self) -> None:
        self.images: list[torch.Tensor] = []
        self.labels: list[int] = []
        self.sources: list[int] = []

    def add(self, crops: torch.Tensor, label: int, source: int) -> None:
        kept = crops[crops.float().mean(dim=1).std(dim=(1, 2)) >= LEAST_DEVIATION]
        self.images.append(kept)
        self.labels += [label] * len(kept)
        self.sources += [source] * len(kept)

    def dataset(self) -> ImageDataset:
        labels, sources = torch.tensor(self.labels), torch.tensor(self.sources)
        return ImageDataset(torch.cat(self.images), labels, sources)


def pixels(dataset: Any, device: torch.device | str) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of a data set, normalized, float32 ``[N, 3, 32, 32]``, and labels, on a device."""
    from data import MEAN, STD

    images = (dataset.images.to(device).float() / 255 - MEAN.to(device)) / STD.to(device)
    return images, dataset.labels.to(device)


def shifted_and_mirrored(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """CIFAR-10's augmentation: shifts of up to 4 pixels and mirror images, drawn for each image.

    Args:
        images: ``[N, 3, H, W]``.
        generator: on the CPU.
    """
    count, _, height, width = images.shape
    padded = F.pad(images, (4, 4, 4, 4))
    shifts = torch.randint(0, 9, (2, count), generator=generator).to(images.device)
    mirrored = (torch.rand(count, generator=generator) < 0.5).to(images.device)
    rows = shifts[0][:, None] + torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    columns = torch.where(mirrored[:, None], columns.flip(0), columns) + shifts[1][:, None]
    chosen = torch.arange(count, device=images.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[chosen, rows[:, :, None], columns[:, None, :]]
    return moved.permute(0, 3, 1, 2)
