"""Two ten-class data sets of 32x32 colour images: CIFAR-10 and scikit-learn's digits."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset

if TYPE_CHECKING:
    from torchvision.datasets import CIFAR10

# Channel statistics of CIFAR-10's training images, used for both data sets.
MEAN = torch.tensor([0.4914, 0.4822, 0.4465]).view(3, 1, 1)
STD = torch.tensor([0.2470, 0.2435, 0.2616]).view(3, 1, 1)

CIFAR10_TRAINING_IMAGES = 50_000
MAX_CALIBRATION_IMAGES = 1024
CROP_PADDING = 4
GLYPH_FRACTION = 28 / 32  # a digit covers 28 of the 32 pixels, so that a shift keeps it whole
MIN_CONTRAST = 0.35  # least difference of mean brightness between stroke and ground, of 1.0


class DatasetMissingError(FileNotFoundError):
    """The images are neither in the data directory nor could they be downloaded."""


class ImageDataset(Dataset[tuple[torch.Tensor, int]]):
    """Images kept as bytes and normalised when read.

    Args:
        images: uint8 ``[N, 3, 32, 32]``.
        labels: int64 ``[N]``.
        sources: int64 ``[N]``: which original image each one was made from. Training and test
            images are numbered together, so equal numbers mean the same original.
        random_crop_and_flip: Shift by up to 4 pixels and mirror at random (torch's global
            generator) each time an image is read.

    Items are ``(image, label)``: float32 ``[3, 32, 32]``, normalised, and an int.
    """

    def __init__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        sources: torch.Tensor,
        *,
        random_crop_and_flip: bool = False,
    ) -> None:
        self.images = images
        self.labels = labels
        self.sources = sources
        self.random_crop_and_flip = random_crop_and_flip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        image = (self.images[index].float() / 255 - MEAN) / STD
        if self.random_crop_and_flip:
            image = F.pad(image, (CROP_PADDING,) * 4)
            top, left = torch.randint(0, 2 * CROP_PADDING + 1, (2,)).tolist()
            image = image[:, top : top + 32, left : left + 32]
            if torch.rand(()) < 0.5:
                image = image.flip(-1)
        return image, int(self.labels[index])


class Splits(NamedTuple):
    """Three views of one data set.

    Attributes:
        train: Training images, augmented.
        plain_train: The same training images without augmentation, to calibrate with.
        test: Held-out images without augmentation.
    """

    train: ImageDataset
    plain_train: ImageDataset
    test: ImageDataset


def load(name: str, *, data_dir: str | Path, seed: int) -> Splits:
    """Load the data set called ``"cifar10"`` or ``"digits"``."""
    if name == "cifar10":
        return cifar10(data_dir)
    if name == "digits":
        return digits(seed=seed)
    raise ValueError(f"There is no data set {name!r}. Choose 'cifar10' or 'digits'.")


def cifar10(data_dir: str | Path, *, download: bool = True) -> Splits:
    """CIFAR-10 with its own split: 50,000 training and 10,000 test images.

    Args:
        data_dir: Folder that holds, or will hold, ``cifar-10-batches-py``.
        download: Fetch the archive if it is not there yet.

    Raises:
        DatasetMissingError: It is not there and was not downloaded.
    """
    from torchvision.datasets import CIFAR10

    try:
        train = CIFAR10(root=str(data_dir), train=True, download=download)
        test = CIFAR10(root=str(data_dir), train=False, download=False)
    except (OSError, RuntimeError) as error:
        raise DatasetMissingError(
            f"CIFAR-10 was not found in '{data_dir}' and could not be downloaded ({error}). "
            "Run this once where there is a network, or unpack cifar-10-python.tar.gz into that "
            "folder, or choose the digits, which need neither: --data digits."
        ) from error
    train_images, train_labels = _from_torchvision(train)
    test_images, test_labels = _from_torchvision(test)
    train_sources = torch.arange(len(train_images))
    test_sources = torch.arange(len(test_images)) + CIFAR10_TRAINING_IMAGES
    return Splits(
        ImageDataset(train_images, train_labels, train_sources, random_crop_and_flip=True),
        ImageDataset(train_images, train_labels, train_sources),
        ImageDataset(test_images, test_labels, test_sources),
    )


def _from_torchvision(dataset: CIFAR10) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.asarray(dataset.data)).permute(0, 3, 1, 2).contiguous()
    return images, torch.tensor(dataset.targets)


def digits(*, seed: int = 0, fold: int = 0, folds: int = 4, copies: int = 4) -> Splits:
    """scikit-learn's 1,797 handwritten digits (8x8 pixels) as 32x32 colour images.

    Each digit is enlarged bilinearly and drawn in one random colour on another, light on dark
    or dark on light. The training split is one of `folds` stratified folds; every copy of a
    digit stays on that digit's side of the split.

    Args:
        seed: Determines the split, the colours and the augmentation.
        fold: Which fold to hold out as test images, from 0 to ``folds - 1``.
        folds: Number of folds; 4 hold out a quarter.
        copies: Augmented copies of each training digit: other colours, turned by up to 10
            degrees, resized by up to 10 % and shifted by up to 3 pixels.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import StratifiedKFold

    if not 0 <= fold < folds:
        raise ValueError(f"fold is {fold} of {folds}. Give a number from 0 to {folds - 1}.")
    bunch = load_digits()
    glyphs = torch.from_numpy(bunch.images).float() / 16  # 0 is the ground, 1 the full stroke
    labels = torch.from_numpy(bunch.target).long()
    kfold = StratifiedKFold(n_splits=folds, shuffle=True, random_state=seed)
    train_index, test_index = list(kfold.split(np.zeros(len(labels)), labels.numpy()))[fold]

    generator = torch.Generator().manual_seed(seed)
    plain = _draw(glyphs, generator)
    train_sources = torch.from_numpy(train_index)
    copy_sources = train_sources.repeat(copies)
    augmented = _draw(glyphs[copy_sources], generator, augment=True)
    test_sources = torch.from_numpy(test_index)
    return Splits(
        ImageDataset(augmented, labels[copy_sources], copy_sources),
        ImageDataset(plain[train_sources], labels[train_sources], train_sources),
        ImageDataset(plain[test_sources], labels[test_sources], test_sources),
    )


def _draw(glyphs: torch.Tensor, generator: torch.Generator, augment: bool = False) -> torch.Tensor:
    """Draw glyphs ``[N, 8, 8]`` with values in [0, 1] as uint8 images ``[N, 3, 32, 32]``."""
    count = len(glyphs)
    angle, shrink = torch.zeros(count), torch.full((count,), 1 / GLYPH_FRACTION)
    shift = torch.zeros(count, 2)
    if augment:
        angle = _uniform((count,), -torch.pi / 18, torch.pi / 18, generator)
        shrink = shrink * _uniform((count,), 0.9, 1.1, generator)
        shift = _uniform((count, 2), -3 / 16, 3 / 16, generator)  # 16 pixels are half the image
    cosine, sine = shrink * angle.cos(), shrink * angle.sin()
    transform = torch.stack(
        [
            torch.stack([cosine, -sine, shift[:, 0]], dim=1),
            torch.stack([sine, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(transform, [count, 1, 32, 32], align_corners=False)
    stroke = F.grid_sample(glyphs[:, None], grid, mode="bilinear", align_corners=False)
    foreground, ground = _colour_pairs(count, generator)
    images = ground + stroke * (foreground - ground)
    return (images * 255).round().to(torch.uint8)


def _colour_pairs(count: int, generator: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of random colours ``[count, 3, 1, 1]`` that differ in brightness."""
    candidates = _uniform((count, 256, 2, 3), 0.0, 1.0, generator)
    brightness = candidates.mean(dim=3)
    contrast = (brightness[:, :, 0] - brightness[:, :, 1]).abs()
    # The first pair with enough contrast, which about one in seven has.
    chosen = (contrast >= MIN_CONTRAST).int().argmax(dim=1)
    pairs = candidates[torch.arange(count), chosen]
    return pairs[:, 0, :, None, None], pairs[:, 1, :, None, None]


def _uniform(
    shape: tuple[int, ...], low: float, high: float, generator: torch.Generator
) -> torch.Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def calibration_subset(
    train_dataset: ImageDataset, count: int = MAX_CALIBRATION_IMAGES, seed: int = 0
) -> tuple[Subset[tuple[torch.Tensor, int]], list[int]]:
    """Choose training images at random to calibrate with.

    Args:
        train_dataset: Training images; `Splits.plain_train` looks most like the test images.
        count: How many, at most 1,024; all of them if the data set holds fewer.
        seed: Determines the choice.

    Returns:
        The chosen images and their indices in `train_dataset`, in ascending order.
    """
    if not 1 <= count <= MAX_CALIBRATION_IMAGES:
        raise ValueError(
            f"{count} calibration images were asked for. "
            f"Choose a number from 1 to {MAX_CALIBRATION_IMAGES}."
        )
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(train_dataset), generator=generator)
    indices = sorted(order[:count].tolist())
    return Subset(train_dataset, indices), indices


def require_disjoint(chosen: Subset[tuple[torch.Tensor, int]], test: ImageDataset) -> None:
    """Raise ValueError if an image of `chosen` was made from the same original as a test image."""
    train = chosen.dataset
    if not isinstance(train, ImageDataset):
        raise TypeError(f"The subset is of a {type(train).__name__}. Choose from an ImageDataset.")
    shared = set(train.sources[list(chosen.indices)].tolist()) & set(test.sources.tolist())
    if shared:
        raise ValueError(
            f"{len(shared)} calibration images are also test images, such as number {min(shared)}. "
            "Choose calibration images from the training split."
        )
