"""VGG16 with batch norm for 32x32 colour images."""

from __future__ import annotations

import torch
from torch import nn

CONVOLUTION_STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
CLASSIFIER_UNITS = 4096


def scaled_channels(channels: int, width: float) -> int:
    """Multiply a channel count by `width`, rounded to a multiple of 8 and at least 8."""
    return max(8, round(channels * width / 8) * 8)


class VGG16(nn.Module):
    """Configuration D of Simonyan & Zisserman, "Very Deep Convolutional Networks" (2014).

    13 convolutions of 3x3, each followed by batch norm and ReLU, in five stages that end in
    max-pooling, then a head of three linear layers.

    Args:
        width: Multiplier of every layer's channels; 1.0 is the full network (64-512 channels).
        num_classes: Number of outputs.
        dropout: Probability with which the head drops a unit in training.

    Shapes:
        input ``[N, 3, 32, 32]`` float32, output ``[N, num_classes]`` logits.
    """

    def __init__(self, width: float = 1.0, num_classes: int = 10, dropout: float = 0.2) -> None:
        super().__init__()
        if not width > 0:
            raise ValueError(f"width is {width}. Give a number above 0, such as 1.0 or 0.25.")
        layers: list[nn.Module] = []
        channels = 3
        for stage in CONVOLUTION_STAGES:
            for full_width in stage:
                outputs = scaled_channels(full_width, width)
                # No bias: batch norm would subtract it again.
                layers += [
                    nn.Conv2d(channels, outputs, kernel_size=3, padding=1, bias=False),
                    nn.BatchNorm2d(outputs),
                    nn.ReLU(inplace=True),
                ]
                channels = outputs
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        units = scaled_channels(CLASSIFIER_UNITS, width)
        self.classifier = nn.Sequential(
            nn.Linear(channels, units),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(units, units),
            nn.ReLU(inplace=True),
            nn.Dropout(dropout),
            nn.Linear(units, num_classes),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))
