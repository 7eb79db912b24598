"""Train VGG16 on CIFAR-10 or on scikit-learn's digits and write a checkpoint."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from checkpoint import save_checkpoint
from data import DatasetMissingError, ImageDataset, load
from evaluate import accuracy, classify_all
from torch import nn
from torch.utils.data import DataLoader
from vgg import VGG16


def train(
    model: VGG16,
    dataset: ImageDataset,
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    device: torch.device,
) -> None:
    """Train in place with AdamW under a one-cycle learning rate that peaks at `lr`."""
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True)
    model.to(device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=lr, total_steps=epochs * len(loader)
    )
    loss_function = nn.CrossEntropyLoss()
    for epoch in range(1, epochs + 1):
        start, seen, correct, loss_sum = time.perf_counter(), 0, 0, 0.0
        for images, labels in loader:
            images, labels = images.to(device), labels.to(device)
            optimizer.zero_grad()
            logits = model(images)
            loss = loss_function(logits, labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            seen += len(labels)
            correct += int((logits.argmax(dim=1) == labels).sum())
            loss_sum += loss.item() * len(labels)
        print(
            f"epoch {epoch:>3}/{epochs}  loss {loss_sum / seen:.4f}  "
            f"training accuracy {100 * correct / seen:6.2f} %  "
            f"{time.perf_counter() - start:5.1f} s",
            flush=True,
        )
    model.eval()


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--data", choices=["cifar10", "digits"], default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--width", type=float, default=1.0, help="multiplier of all channels")
    parser.add_argument("--epochs", type=int, default=None, help="digits: 6, cifar10: 100")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--lr", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--threads",
        type=int,
        default=None,
        help="CPU threads; digits: 1, cifar10: PyTorch's choice",
    )
    parser.add_argument("--output", type=Path, default=Path("build/demo/vgg16.pt"))
    options = parser.parse_args(arguments)
    if options.epochs is None:
        options.epochs = {"digits": 6, "cifar10": 100}[options.data]
    if options.threads is None and options.data == "digits":
        options.threads = (
            1  # enough for a small task, and the result no longer depends on the CPU's cores
        )
    return options


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    device = torch.device(options.device)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    splits = load(options.data, data_dir=options.data_dir, seed=options.seed)
    model = VGG16(width=options.width)
    print(
        f"VGG16, width {options.width}, on {options.data}: "
        f"{len(splits.train)} training images made from {len(splits.plain_train)} originals, "
        f"{len(splits.test)} test images, on {device}"
    )
    train(
        model,
        splits.train,
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        device=device,
    )
    logits, labels = classify_all(model, splits.test, batch_size=options.batch_size, device=device)
    test_accuracy = accuracy(logits.argmax(dim=1), labels)
    print(f"FP32 test accuracy {100 * test_accuracy:.2f} %")
    save_checkpoint(
        options.output,
        model,
        {
            "data": options.data,
            "width": options.width,
            "epochs": options.epochs,
            "batch_size": options.batch_size,
            "lr": options.lr,
            "seed": options.seed,
            "test_accuracy": test_accuracy,
            "torch": str(torch.__version__),
        },
    )
    print(f"wrote {options.output}")


if __name__ == "__main__":
    try:
        main()
    except DatasetMissingError as error:
        sys.exit(str(error))
