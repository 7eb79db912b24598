"""Predictions and latency of anything that maps a batch of images to logits."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.data import DataLoader, Dataset

Classifier = Callable[[torch.Tensor], torch.Tensor]


@torch.no_grad()
def predict(
    classify: Classifier,
    dataset: Dataset[tuple[torch.Tensor, int]],
    *,
    batch_size: int,
    device: torch.device,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run `classify` over a data set in batches of exactly `batch_size`.

    An engine may take one batch size only, so the last batch is filled up with copies of its
    last image, whose predictions are left out.

    Returns:
        Predicted and true classes, int64 ``[len(dataset)]`` each, on the CPU.
    """
    predicted, true = [], []
    for images, labels in DataLoader(dataset, batch_size=batch_size):
        missing = batch_size - len(images)
        if missing:
            images = torch.cat([images, images[-1:].expand(missing, -1, -1, -1)])
        logits = classify(images.to(device))
        predicted.append(logits[: len(labels)].argmax(dim=1).cpu())
        true.append(labels)
    return torch.cat(predicted), torch.cat(true)


def accuracy(predicted: torch.Tensor, true: torch.Tensor) -> float:
    """Share of equal entries, from 0 to 1."""
    return (predicted == true).float().mean().item()


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
