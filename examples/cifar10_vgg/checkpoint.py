"""A trained VGG16 on disk: weights and plain metadata, readable with `weights_only=True`."""

from __future__ import annotations

from pathlib import Path

import torch
from vgg import VGG16

Metadata = dict[str, str | int | float]


def save_checkpoint(path: str | Path, model: VGG16, metadata: Metadata) -> None:
    """Write `model` and `metadata`, which names at least its ``"width"``."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    weights = {name: tensor.cpu() for name, tensor in model.state_dict().items()}
    torch.save({"state_dict": weights, "metadata": metadata}, unfinished)
    unfinished.replace(path)


def load_checkpoint(path: str | Path) -> tuple[VGG16, Metadata]:
    """Read a checkpoint: the model in eval mode on the CPU, and its metadata."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no checkpoint '{path}'. Make one with train.py.")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    metadata: Metadata = saved["metadata"]
    model = VGG16(width=float(metadata["width"]))
    model.load_state_dict(saved["state_dict"])
    return model.eval(), metadata
