"""The models and data that the caches in ``fixtures`` were made with."""

from __future__ import annotations

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trtcompile import compiler
from trtcompile.inputs import parse_inputs
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.settings import CompileSpec

FIXTURES = Path(__file__).parent / "fixtures"
BATCH, BATCHES = 4, 3

Batches = list[Tensor]


def randomized(model: nn.Module) -> nn.Module:
    """Every parameter and buffer drawn anew, with magnitudes that keep activations in range."""
    generator = torch.Generator().manual_seed(0)
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if not value.is_floating_point():
            continue
        with torch.no_grad():
            if name.endswith("running_var"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            elif value.dim() > 1:
                deviation = math.sqrt(2 / value[0].numel())
                value.copy_(deviation * torch.randn(value.shape, generator=generator))
            elif name.endswith("weight"):
                value.copy_(0.5 + torch.rand(value.shape, generator=generator))
            else:
                value.copy_(0.2 * torch.randn(value.shape, generator=generator))
    return model.eval()


def images(size: int) -> Batches:
    return [
        torch.randn(BATCH, 3, size, size, generator=torch.Generator().manual_seed(seed))
        for seed in range(BATCHES)
    ]


@torch.no_grad()
def settled(model: nn.Module, batch: Tensor) -> nn.Module:
    """Running statistics as the batch has them: otherwise deep models overflow."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    model(batch)
    return model.eval()


def vgg() -> tuple[nn.Module, Batches]:
    """The example's VGG16 at an eighth of its width."""
    layers: list[nn.Module] = []
    channels = 3
    for stage in ((8, 8), (16, 16), (32, 32, 32), (64, 64, 64), (64, 64, 64)):
        for outputs in stage:
            layers += [
                nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                nn.BatchNorm2d(outputs),
                nn.ReLU(inplace=True),
            ]
            channels = outputs
        layers.append(nn.MaxPool2d(2, 2))

    class VGG16(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(*layers)
            self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
            self.classifier = nn.Sequential(
                nn.Linear(64, 512),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(512, 512),
                nn.ReLU(),
                nn.Dropout(),
                nn.Linear(512, 10),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    return randomized(VGG16()), images(32)


def resnet18() -> tuple[nn.Module, Batches]:
    from torchvision.models import resnet18 as make

    batches = images(64)
    return settled(randomized(make(weights=None)), batches[0]), batches


def squeezenet() -> tuple[nn.Module, Batches]:
    from torchvision.models import squeezenet1_1

    return randomized(squeezenet1_1(weights=None)), images(64)


def densenet() -> tuple[nn.Module, Batches]:
    from torchvision.models import DenseNet

    batches = images(64)
    return settled(randomized(DenseNet(8, (2, 2, 2), 16)), batches[0]), batches


def vit() -> tuple[nn.Module, Batches]:
    from torchvision.models import VisionTransformer

    model = VisionTransformer(
        image_size=64, patch_size=16, num_layers=2, num_heads=2, hidden_dim=32, mlp_dim=64
    )
    return randomized(model), images(64)


def bert() -> tuple[nn.Module, Batches]:
    pytest.importorskip("transformers", reason="needs its BERT: pip install transformers")
    from transformers import BertConfig, BertModel

    config = BertConfig(
        vocab_size=100,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=32,
    )
    config._attn_implementation = "eager"

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = BertModel(config)
            self.head = nn.Linear(32, 5)

        def forward(self, input_ids: Tensor) -> Tensor:
            mask = torch.ones_like(input_ids)
            output = self.bert(input_ids=input_ids, attention_mask=mask, return_dict=False)
            return self.head(output[1])

    model = randomized(Pooled())
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "embeddings" in name and value.dim() > 1:
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(3)))
    ids = [
        torch.randint(0, 100, (BATCH, 16), generator=torch.Generator().manual_seed(seed))
        for seed in range(BATCHES)
    ]
    return model, ids


class _Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
        self.q, self.k, self.v, self.o = (nn.Linear(32, 32) for _ in range(4))
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32)
        self.act = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm1(x)
        heads = [f(h).reshape(-1, 16, 2, 16).transpose(1, 2) for f in (self.q, self.k, self.v)]
        a = F.scaled_dot_product_attention(*heads)
        x = x + self.o(a.transpose(1, 2).reshape(-1, 16, 32))
        return x + self.down(self.act(self.up(self.norm2(x))))


class _Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 32, 16, 16)
        self.blocks = nn.ModuleList(_Block() for _ in range(2))
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = block(x)
        return self.head(x.mean(1))


def encoder() -> tuple[nn.Module, Batches]:
    """Linear layers on three dimensions, which ONNX writes as MatMul and Add."""
    return randomized(_Encoder()), images(64)


class _Drawn:
    """Weights in the order in which the program that used the network API drew them."""

    def __init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)

    def __call__(self, *shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, generator=self.generator)

    def convolution(self, inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        layer = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2)
        scale = math.sqrt(2 / (kernel * kernel * inputs))
        layer.weight.data = self(outputs, inputs, kernel, kernel, scale=scale)
        layer.bias.data = self(outputs, scale=0.2)
        return layer

    def norm(self, channels: int) -> nn.BatchNorm2d:
        norm = nn.BatchNorm2d(channels, eps=1e-12)
        norm.bias.data = self(channels, scale=0.2)
        norm.weight.data = 1 + self(channels, scale=0.2)
        return norm


def api_chain() -> tuple[nn.Module, Batches]:
    """Norms as scale layers, max-pooling, and a linear layer as product and sum."""
    drawn = _Drawn()
    layers: list[nn.Module] = []
    channels = 3
    for outputs, pools in ((8, False), (8, True), (16, False), (16, True)):
        layers.append(drawn.convolution(channels, outputs, 3))
        layers += [drawn.norm(outputs)] if channels != 3 else []
        layers.append(nn.ReLU())
        layers += [nn.MaxPool2d(2)] if pools else []
        channels = outputs
    head = nn.Linear(1024, 10)
    head.weight.data = drawn(1024, 10, scale=1 / 32).T.contiguous()
    head.bias.data = drawn(1, 10)[0]
    return nn.Sequential(*layers, nn.Flatten(), head).eval(), images(32)


class _Residual(nn.Module):
    def __init__(self, drawn: _Drawn) -> None:
        super().__init__()
        self.stem = drawn.convolution(3, 8, 3)
        self.down = drawn.convolution(8, 8, 3, 2)
        self.main = drawn.convolution(8, 8, 3)
        self.shortcut = drawn.convolution(8, 8, 1, 2)
        self.narrow = drawn.convolution(8, 8, 1)
        self.wide = drawn.convolution(8, 8, 3)
        self.merge = drawn.convolution(16, 8, 1)
        self.head = drawn.convolution(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(self.main(torch.relu(self.down(x))) + self.shortcut(x))
        x = torch.cat([torch.relu(self.narrow(x)), torch.relu(self.wide(x))], 1)
        return self.head(self.merge(x).mean((2, 3), keepdim=True))


def api_residual() -> tuple[nn.Module, Batches]:
    """A residual with a projection, a concatenation, and an average."""
    return _Residual(_Drawn()).eval(), images(32)


MODELS: dict[str, Callable[[], tuple[nn.Module, Batches]]] = {
    make.__name__: make
    for make in (vgg, resnet18, squeezenet, densenet, vit, bert, encoder, api_chain, api_residual)
}


class _Recording(Calibrator):
    """Keeps the request, and what our own calibrator makes of it."""

    def __init__(self, batches: Sequence[Any] | None) -> None:
        self.batches = batches
        self.request: CalibrationRequest | None = None
        self.table: CalibrationTable | None = None

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        self.request = request
        if self.batches is not None:
            minmax = DataLoaderCalibrator(
                list(self.batches), algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
            )
            self.table = minmax.calibrate(request)
        raise _EnoughError


class _EnoughError(Exception):
    """The graph is wanted as it is before Q/DQ are inserted."""


def request_of(
    model: nn.Module, batch: Any, batches: Sequence[Any] | None = None
) -> tuple[CalibrationRequest, CalibrationTable | None]:
    """What a compilation asks of its calibrator, and our min-max scales if there are batches."""
    recording = _Recording(batches)
    spec = CompileSpec(
        enabled_precisions=frozenset({torch.float32, torch.int8}),
        calibrator=recording,
    )
    captured = compiler.capture(
        model.eval(), parse_inputs([batch]), undecomposed=compiler.undecomposed_operators()
    )
    with contextlib.suppress(_EnoughError):
        compiler.prepare(captured, spec)
    assert recording.request is not None
    return recording.request, recording.table


def export_onnx(model: nn.Module, batch: Any, path: Path, *, dynamo: bool = False) -> Path:
    """The ONNX file that the cache of a model was made from."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        if dynamo:
            program = torch.onnx.export(model, (batch,), dynamo=True, verbose=False)
            assert program is not None
            path.write_bytes(program.model_proto.SerializeToString())
        else:
            enabled = torch.backends.mha.get_fastpath_enabled()
            torch.backends.mha.set_fastpath_enabled(False)
            try:
                file = io.BytesIO()
                torch.onnx.export(model, (batch,), file, dynamo=False, opset_version=17)
            finally:
                torch.backends.mha.set_fastpath_enabled(enabled)
            path.write_bytes(file.getvalue())
    return path
