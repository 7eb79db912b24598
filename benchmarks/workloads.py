"""The models and images of the benchmarks. Nothing is downloaded: weights are random, or trained."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

EXAMPLE = Path(__file__).resolve().parents[1] / "examples" / "cifar10_vgg"
IMAGE_SIZE = {
    "vgg16": 32,
    "resnet18": 224,
    "resnet50": 224,
    "mobilenet_v2": 224,
    "densenet": 32,
    "densenet121": 224,
    "vit_base_patch16_224": 224,
}
SETTLING_IMAGES = 32


@dataclass(frozen=True)
class Workload:
    """A model and the data of one row; both sides of a comparison get the same.

    Attributes:
        name: a key of ``IMAGE_SIZE``.
        model: in eval mode, on the CPU.
        batch: batch size of the engine.
        calibration: float32 images ``[N, 3, H, W]`` on the CPU, N a multiple of ``batch``.
        evaluation: other images of the same kind; N a multiple of ``batch``.
        seed: what weights and images were made from.
    """

    name: str
    model: nn.Module
    batch: int
    calibration: torch.Tensor
    evaluation: torch.Tensor
    seed: int

    @property
    def input_shape(self) -> tuple[int, int, int, int]:
        """The shape of one batch."""
        return (self.batch, *self.calibration.shape[1:])


def workload(name: str, batch: int, *, images: int = 64, seed: int = 0) -> Workload:
    """A model with random weights, and random images.

    Args:
        name: a key of ``IMAGE_SIZE``; ``"vgg16"`` has 13 convolutions, full width, and 32x32 images, ``"densenet"`` is
            the small one of the accuracy benchmark.
        batch: batch size of the engine.
        images: how many images to calibrate and to evaluate with, rounded up to whole batches.
        seed: determines weights and images.
    """
    size = IMAGE_SIZE[name]
    count = math.ceil(images / batch) * batch
    model = build(name)
    randomize(model, seed)
    settle(model, random_images(SETTLING_IMAGES, size, seed=seed + 1))
    calibration = random_images(count, size, seed=seed + 2)
    evaluation = random_images(count, size, seed=seed + 3)
    return Workload(name, model.eval(), batch, calibration, evaluation, seed)


def build(name: str) -> nn.Module:
    """An untrained model in eval mode."""
    if name == "vgg16":
        with_example_on_path()
        from vgg import VGG16

        return VGG16().eval()
    if name == "densenet":
        from accuracy_models import MODELS  # which imports this module

        return MODELS[name].build(1.0).eval()
    if name.startswith("vit_"):
        from timm import create_model

        return create_model(name, pretrained=False).eval()
    if name in IMAGE_SIZE:
        from torchvision.models import get_model

        return get_model(name, weights=None).eval()
    raise ValueError(f"There is no model {name!r}. Choose one of {', '.join(IMAGE_SIZE)}.")


def with_example_on_path() -> None:
    """Lets the modules of ``examples/cifar10_vgg`` be imported."""
    if str(EXAMPLE) not in sys.path:
        sys.path.insert(0, str(EXAMPLE))


def randomize(model: nn.Module, seed: int) -> None:
    """Sets every parameter and buffer to a value that a mistake would show on.

    An untrained model has biases of 0, batch norms that do nothing, and, in ResNets that say so,
    residual branches multiplied by 0: dropping any of them would change nothing.

    Weights of convolutions and linear layers are normal with the deviation of He et al. (2015),
    norm weights have magnitudes from 0.5 to 1.5 and both signs, norm biases lie from 0 to 1.5 (an
    offset lets more of the signal through a ReLU), other biases and running means are normal,
    running variances lie from 0.5 to 1.5.

    Raises:
        ValueError: a parameter or buffer belongs to a kind of layer not named above.
    """
    generator = torch.Generator().manual_seed(seed)
    for path, module in model.named_modules():
        for name, tensor in _own_tensors(module):
            values = _values(module, name, tensor, generator)
            if values is None:
                raise ValueError(
                    f"{path}.{name} is of a {type(module).__name__}, for which randomize has no "
                    "values. Add that kind of layer to it."
                )
            with torch.no_grad():
                tensor.copy_(values)


def _own_tensors(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    yield from module.named_parameters(recurse=False)
    yield from module.named_buffers(recurse=False)


def _values(
    module: nn.Module, name: str, tensor: torch.Tensor, generator: torch.Generator
) -> torch.Tensor | None:
    is_weighted = isinstance(module, (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d))
    if name == "bias" and is_weighted:
        return 0.2 * torch.randn(tensor.shape, generator=generator)
    if name == "weight" and is_weighted:
        fan_in = tensor[0].numel()
        return math.sqrt(2 / fan_in) * torch.randn(tensor.shape, generator=generator)
    if name in ("cls_token", "pos_embed"):  # of vision transformers
        return 0.2 * torch.randn(tensor.shape, generator=generator)
    if not isinstance(module, (_BatchNorm, nn.LayerNorm)):
        return None
    if name == "bias":
        return 1.5 * torch.rand(tensor.shape, generator=generator)
    if name == "running_mean":
        return 0.2 * torch.randn(tensor.shape, generator=generator)
    if name == "running_var":
        return 0.5 + torch.rand(tensor.shape, generator=generator)
    if name == "weight":
        signs = torch.randint(0, 2, tensor.shape, generator=generator) * 2 - 1
        return signs * (0.5 + torch.rand(tensor.shape, generator=generator))
    return torch.ones_like(tensor)  # num_batches_tracked


@torch.no_grad()
def settle(model: nn.Module, images: torch.Tensor) -> None:
    """Fits what a trained model has in balance: running statistics, and the mean of the outputs.

    Running statistics become those that ``images`` have at each batch norm, and the last linear
    layer's bias centres its outputs. Otherwise 50 layers would multiply the range of activations
    until FP16 overflows, and one class would be predicted for every image.
    """
    settle_norms(model, images)
    head = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    head.bias -= model(images).mean(dim=0)


@torch.no_grad()
def settle_norms(model: nn.Module, *args: Any, **kwargs: Any) -> list[_BatchNorm]:
    """Makes the running statistics of all batch norms, which it returns, those of one call of the model."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    kept = [(norm, norm.momentum) for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0  # the statistics of this batch alone
    try:
        model(*args, **kwargs)
    finally:
        for norm, momentum in kept:
            norm.eval()
            norm.momentum = momentum
    return norms


def random_images(count: int, size: int, *, seed: int) -> torch.Tensor:
    """Random images ``[count, 3, size, size]`` with large patches, fine noise, and own contrasts.

    Like photographs, they differ from one another in more than noise, so that a network's outputs
    differ as well.
    """
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 3, 4, 4, generator=generator)
    fine = torch.randn(count, 3, size, size, generator=generator)
    contrast = 0.5 + torch.rand(count, 1, 1, 1, generator=generator)
    patches = F.interpolate(coarse, size=(size, size), mode="bilinear", align_corners=False)
    return contrast * (patches + 0.3 * fine)
