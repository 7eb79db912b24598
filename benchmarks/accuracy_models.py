"""The models of the accuracy benchmark for 32x32 images, and how they are trained on the spot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accuracy_data import CLASSES, pixels, shifted_and_mirrored
from torch import nn
from torch.nn import functional as F
from workloads import with_example_on_path

BATCH = 128
WARM_UP = 0.2  # of the steps, until the learning rate is at its peak


@dataclass(frozen=True)
class ModelRecipe:
    """A model and how long it is trained.

    Attributes:
        build: makes it; a width of 1 is the benchmark's size, tests take less.
        learning_rate: of AdamW at the peak of a one-cycle schedule.
        steps: how many batches.
    """

    build: Callable[[float], nn.Module]
    learning_rate: float
    steps: int = 700


def _vgg16(width: float) -> nn.Module:
    """Half as wide as the paper's: 32 to 256 channels, a head of 2,048 units."""
    with_example_on_path()
    from vgg import VGG16

    return VGG16(width=0.5 * width, num_classes=CLASSES)


def _resnet18(width: float) -> nn.Module:
    """The stem for small images: a 3x3 convolution of stride 1 and no pooling."""
    from torchvision.models.resnet import BasicBlock, ResNet

    class Narrow(ResNet):
        """torchvision's ResNet has no option for the width of all stages."""

        def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
            return super()._make_layer(block, max(8, int(planes * width)), *args, **kwargs)

    model = Narrow(BasicBlock, [2, 2, 2, 2], num_classes=CLASSES)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    model.maxpool = nn.Identity()
    model.fc = nn.Linear(max(8, int(512 * width)), CLASSES)
    return model


def _mobilenet_v2(width: float) -> nn.Module:
    """Strides of 8 in all instead of 32."""
    from torchvision.models import mobilenet_v2

    settings = [  # expansion, channels, blocks, stride
        [1, 16, 1, 1],
        [6, 24, 2, 1],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    model = mobilenet_v2(
        num_classes=CLASSES, width_mult=width, inverted_residual_setting=settings, dropout=0.0
    )
    model.features[0][0].stride = (1, 1)
    return model


def _densenet(width: float) -> nn.Module:
    """DenseNet-BC with three blocks of six layers."""
    from torchvision.models import DenseNet

    growth = max(4, int(24 * width))
    model = DenseNet(growth, (6, 6, 6), num_init_features=2 * growth, num_classes=CLASSES)
    model.features.conv0 = nn.Conv2d(3, 2 * growth, 3, padding=1, bias=False)
    model.features.pool0 = nn.Identity()
    return model


class ConvolutionalStem(nn.Module):
    """Patches of 4x4 pixels as tokens, through three convolutions instead of one.

    Xiao et al., "Early Convolutions Help Transformers See Better" (2021): a transformer learns in far
    fewer steps with it. With one convolution, it still guesses after the steps that the others take.
    """

    def __init__(self, embed_dim: int, in_chans: int = 3, **_: Any) -> None:
        super().__init__()
        self.num_patches = 64  # timm's transformer asks for it
        first, second = embed_dim // 4, embed_dim // 2
        self.layers = nn.Sequential(
            nn.Conv2d(in_chans, first, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
            nn.Conv2d(first, second, 3, stride=2, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.Conv2d(second, embed_dim, 1),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens ``[N, 64, channels]``."""
        return self.layers(images).flatten(2).transpose(1, 2)


def _vit(width: float) -> nn.Module:
    """64 tokens, 6 blocks of 192 channels, 3 heads."""
    from timm.models.vision_transformer import VisionTransformer

    channels = max(24, int(192 * width) // 24 * 24)
    return VisionTransformer(
        img_size=32,
        patch_size=4,
        embed_dim=channels,
        depth=6,
        num_heads=3,
        num_classes=CLASSES,
        embed_layer=ConvolutionalStem,
    )


MODELS = {
    "vgg16": ModelRecipe(_vgg16, 1e-3),
    "resnet18": ModelRecipe(_resnet18, 2e-3),
    "mobilenet_v2": ModelRecipe(_mobilenet_v2, 3e-3),
    "densenet": ModelRecipe(_densenet, 3e-3),
    "vit": ModelRecipe(_vit, 1e-3, steps=2500),
}


def train(
    name: str,
    dataset: Any,
    *,
    seed: int,
    device: torch.device | str,
    steps: int | None = None,
    width: float = 1.0,
) -> nn.Module:
    """Trains a model from random weights; the same seed gives the same model on the same machine.

    All models have one recipe: batches of 128, AdamW with weight decay 0.05, a one-cycle schedule,
    label smoothing 0.1, gradients clipped to a norm of 1. Convolutions may use TF32.

    Args:
        name: a key of ``MODELS``.
        dataset: an ``ImageDataset`` of training images, which stay on the device.
        seed: determines weights, order, and dropout.
        device: where to train.
        steps: how many batches; None for the recipe's.
        width: multiplier of the model's size.

    Returns:
        The model on the CPU, in eval mode.
    """
    recipe = MODELS[name]
    steps = recipe.steps if steps is None else steps
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices), _training_kernels():
        torch.manual_seed(seed)
        model = recipe.build(width).to(device).train()
        images, labels = pixels(dataset, device)
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.AdamW(
            model.parameters(), lr=recipe.learning_rate, weight_decay=0.05
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=recipe.learning_rate, total_steps=steps, pct_start=WARM_UP
        )
        for _ in range(steps):
            chosen = torch.randint(0, len(images), (BATCH,), generator=generator).to(device)
            batch = images[chosen]
            if dataset.random_crop_and_flip:
                batch = shifted_and_mirrored(batch, generator)
            optimizer.zero_grad(set_to_none=True)
            loss = F.cross_entropy(model(batch), labels[chosen], label_smoothing=0.1)
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    return model.cpu().eval()


def _training_kernels() -> Any:
    """TF32 and deterministic convolutions; what was set before comes back afterwards."""
    return torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=True
    )


def trained(
    name: str, task: str, seed: int, fold: int, dataset: Any, *, folder: Path | None, **options: Any
) -> nn.Module:
    """A trained model: read from a folder, or trained and written there.

    Args:
        name: a key of ``MODELS``.
        task: a part of the file's name, with seed and fold.
        seed: also the training's.
        fold: the fold that is held out.
        dataset: training images.
        folder: holds checkpoints; None keeps none.
        **options: those of ``train`` that are left, which the checkpoint must have been made with.
    """
    steps = options.get("steps") or MODELS[name].steps
    made_with = {"steps": steps, "width": options.get("width", 1.0)}
    file = None if folder is None else folder / f"{name}-{task}-seed{seed}-fold{fold}.pt"
    if file is not None and file.is_file():
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if saved["made_with"] == made_with:
            model = MODELS[name].build(made_with["width"])
            model.load_state_dict(saved["state_dict"])
            return model.eval()
    model = train(name, dataset, seed=1000 * seed + fold, **options)
    if file is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_name(file.name + ".part")
        torch.save({"state_dict": model.state_dict(), "made_with": made_with}, unfinished)
        unfinished.replace(file)
    return model
