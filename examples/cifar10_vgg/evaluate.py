"""Logits, accuracy and latency of anything that maps a batch of images to logits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset

Classifier = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def classify_all(
    classify: Classifier,
    dataset: Dataset[tuple[torch.Tensor, int]],
    *,
    batch_size: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run `classify` over a data set in batches of exactly `batch_size`.

    An engine may take one batch size only, so the last batch is filled up with copies of its
    last image, whose logits are left out.

    Returns:
        Logits, float32 ``[len(dataset), classes]``, and true classes, int64 ``[len(dataset)]``,
        on the CPU.
    """
    all_logits, all_labels = [], []
    for images, labels in DataLoader(dataset, batch_size=batch_size):
        missing = batch_size - len(images)
        if missing:
            images = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        logits = classify(images.to(device))
        all_logits.append(logits[: len(labels)].float().cpu())
        all_labels.append(labels)
    return torch.cat(all_logits), torch.cat(all_labels)


def accuracy(predicted: torch.Tensor, labels: torch.Tensor) -> float:
    """Share of predicted classes that are the labels, from 0 to 1."""
    return (predicted == labels).double().mean().item()


def signal_to_noise_db(reference: torch.Tensor, logits: torch.Tensor) -> float:
    """How far logits are from a reference: 20 dB means a tenth of the reference's spread.

    The spread is that across images, each class's mean taken out: a constant output scores 0.
    """
    reference, logits = reference.double(), logits.double()
    spread = (reference - reference.mean(dim=0)).square().mean()
    return 10 * torch.log10(spread / (logits - reference).square().mean()).item()


@torch.no_grad()
def median_latency_ms(classify: Classifier, images: torch.Tensor, *, runs: int = 200) -> float:
    """Median milliseconds of one call on a CUDA device, after 20 calls to warm up."""
    for _ in range(20):
        classify(images)
    milliseconds = []
    for _ in range(runs):
        torch.cuda.synchronize(images.device)
        start = time.perf_counter()
        classify(images)
        torch.cuda.synchronize(images.device)
        milliseconds.append((time.perf_counter() - start) * 1000)
    return statistics.median(milliseconds)
