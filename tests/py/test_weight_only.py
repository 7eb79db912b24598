"""Weights in INT8 or INT4 beside products in floating point: the graph, its values, the plan, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import build_device, install_oracle, operators, partition_for_test, randomize
from torch import nn

import trtcompile
from trtcompile import Device, Input, SettingsError, _tensorrt
from trtcompile.ptq import DataLoaderCalibrator

QW, DQW = (
    f"quantized_decomposed.{kind}_per_channel.default" for kind in ("quantize", "dequantize")
)
Q4, D4 = (f"trtcompile.{kind}_int4_blocks.default" for kind in ("quantize", "dequantize"))


class Layers(nn.Module):
    """Two linear layers around a product of two computed matrices."""

    def __init__(self, width: int = 256) -> None:
        super().__init__()
        self.up = nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.gelu(self.up(x))
        return self.down((x @ x.transpose(0, 1)) @ x)


def model(width: int = 256) -> Layers:
    net = Layers(width)
    randomize(net, 3)
    return net


def rows(width: int = 256, seed: int = 0) -> torch.Tensor:
    return torch.randn(4, width, generator=torch.Generator().manual_seed(seed)) * 0.3


def compiled(net: nn.Module, x: torch.Tensor, **options: Any) -> trtcompile.TRTModule:
    return trtcompile.compile(
        net, [Input(tuple(x.shape))], **{"device": build_device(disable_tf32=True), **options}
    )


@pytest.mark.parametrize(("kind", "names"), [("int8", (QW, DQW)), ("int4", (Q4, D4))])
def test_the_graph(kind: str, names: tuple[str, str]) -> None:
    captured, _, _ = partition_for_test(model(), [rows()], weight_only=kind)
    weighted = [*names, "aten.linear.default"]
    found = operators(captured.graph_module)
    assert found[:3] == weighted and found[-3:] == weighted
    assert len(found) == 10 and "aten.gelu.default" in found[3:7]


def test_weights_of_convolutions_have_a_scale_for_each_output_channel(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 8, 3)
            self.second = nn.ConvTranspose2d(8, 5, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.second(torch.relu(self.first(x)))

    net = Convolutions()
    randomize(net, 1)
    x = torch.randn(2, 3, 9, 9, generator=torch.Generator().manual_seed(0))
    captured, _, _ = partition_for_test(net, [x], weight_only="int8")
    nodes = [n for n in captured.graph_module.graph.nodes if str(n.target) == QW]
    assert [n.args[3] for n in nodes] == [0, 1]
    assert [tuple(n.args[1].meta["val"].shape) for n in nodes] == [(8,), (5,)]
    install_oracle(monkeypatch)
    result = compiled(net, x, weight_only="int8")
    with torch.no_grad():
        for weight in (net.first.weight, net.second.weight.transpose(0, 1)):
            channels = weight.flatten(1)
            weight.copy_(kept(channels, channels.shape[1], 127).reshape(weight.shape))
        for actual in (result.lowered(x), result(x)):
            torch.testing.assert_close(actual, net(x), rtol=1e-4, atol=1e-4)


def kept(weight: torch.Tensor, block: int, largest: int) -> torch.Tensor:
    """A weight through levels and back, block by block of each row."""
    result = torch.empty_like(weight)
    for row, out in zip(weight, result, strict=True):
        for start in range(0, len(row), block):
            values = row[start : start + block]
            scale = values.abs().max() / largest
            out[start : start + block] = torch.round(values / scale) * scale
    return result


@pytest.mark.parametrize(("kind", "error"), [("int8", 5e-3), ("int4", 0.1)])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_values(kind: str, error: float, half: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)
    net, x = model(), rows()
    precisions = {torch.float, torch.half} if half else {torch.float}
    result = compiled(net, x, weight_only=kind, enabled_precisions=precisions)
    with torch.no_grad():
        block, largest = (1 << 30, 127) if kind == "int8" else (128, 7)
        by_hand = model()
        for layer in (by_hand.up, by_hand.down):
            layer.weight.copy_(kept(layer.weight, block, largest))
        expected, plain = by_hand(x), net(x)
        tolerance = 2e-2 if half else 1e-4
        for actual in (result.lowered(x), result(x)):
            assert (actual - expected).norm() < tolerance * expected.norm()
    assert error / 3 < (expected - plain).norm() / plain.norm() < 3 * error
    assert result.calibration_table is None


@pytest.mark.gpu
@pytest.mark.parametrize("kind", ["int8", "int4"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_the_engine_computes_what_the_simulation_does(kind: str, half: bool) -> None:
    precisions = {torch.float, torch.half} if half else {torch.float}
    x = rows()
    if kind == "int8" and not _tensorrt.load().keeps_int8_weights:
        with pytest.raises(SettingsError, match="as large and as slow as in FP16"):
            compiled(model(), x, weight_only=kind, enabled_precisions=precisions)
        return
    result = compiled(model(), x, weight_only=kind, enabled_precisions=precisions)
    with torch.no_grad():
        expected, actual = result.lowered(x), result(x.cuda()).cpu()
    assert (actual - expected).norm() < (2e-2 if half else 1e-3) * expected.norm()


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.35), ("int4", 0.25)])
def test_the_plan_is_smaller(kind: str, share: float) -> None:
    net, x = nn.Sequential(nn.Linear(1024, 1024), nn.ReLU()).eval(), rows(1024)
    (whole,) = compiled(net, x).engines
    (small,) = compiled(net, x, weight_only=kind).engines
    assert len(small.plan) < share * len(whole.plan)


def test_int8_weights_that_gain_nothing_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt.Flavour, "keeps_int8_weights", property(lambda _: False))
    with pytest.raises(SettingsError, match=r"weight_only is 'int8'.*Use 'int4'"):
        compiled(model(), rows(), weight_only="int8")


def test_the_report() -> None:
    report = trtcompile.dry_run(
        model(), [rows()], weight_only="int4", enabled_precisions=torch.half
    )
    assert report.multiply_add_share("FP16") == 1.0
    assert [row.weights for row in report.rows if row.operator == "aten.linear.default"] == [
        "INT4"
    ] * 2
    assert "weights alone: INT4 in 2 operator(s)" in str(report)


class Left(nn.Module):
    """Weights that INT4 cannot have."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(144, 128)
        self.kept = nn.Linear(128, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.kept(self.linear(self.convolution(x).flatten(1)))
        return F.linear(x, x)


def test_what_is_left_as_it_is_and_why() -> None:
    report = trtcompile.dry_run(Left().eval(), [torch.randn(2, 3, 8, 8)], weight_only="int4")
    assert report.not_quantized == {
        "convolution": "TensorRT has INT4 weights for products of matrices only",
        "linear": "its 144 inputs are no multiple of the block size, 128",
        "linear_2": "its weight is computed by the model",
    }
    grouped = nn.ConvTranspose2d(4, 4, 3, groups=2).eval()
    report = trtcompile.dry_run(grouped, [torch.randn(1, 4, 5, 5)], weight_only="int8")
    assert "grouped transposed" in report.not_quantized["convolution"]


class ConstantFactors(nn.Module):
    """Weights with their output channels along the last axis, as GPT-2's, and one that is a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.bias = nn.Parameter(torch.empty(32, 24)), nn.Parameter(torch.empty(24))
        self.down = nn.Parameter(torch.empty(24, 8))
        self.score = nn.Parameter(torch.empty(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.addmm(self.bias, x, self.up) @ self.down
        return x * F.linear(x, self.score).unsqueeze(1)


def test_products_with_a_constant(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each output channel, a column here, has a scale of its own."""
    install_oracle(monkeypatch)
    net, x = randomize(ConstantFactors(), 4), rows(32)
    excluded = {"torch_executed_ops": {"aten.linear"}, "min_block_size": 1}
    result = compiled(net, x, weight_only="int8", **excluded)
    with torch.no_grad():
        expected = randomize(ConstantFactors(), 4)
        for weight in (expected.up, expected.down):
            weight.copy_(kept(weight.T, 1 << 30, 127).T)
    for actual in (result.lowered(x), result(x)):
        torch.testing.assert_close(actual, expected(x), rtol=1e-4, atol=1e-5)
    assert (result(x) - net(x)).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("kind", "reasons"),
    [
        ("int8", {"linear": "a weight of shape [8] has no single output-channel axis"}),
        (
            "int4",
            {
                "addmm": "its weight [32, 24] is no matrix of [outputs, inputs], whose rows have INT4's blocks",
                "matmul": "its weight [24, 8] is no matrix of [outputs, inputs], whose rows have INT4's blocks",
                "linear": "its weight [8] is no matrix of [outputs, inputs], whose rows have INT4's blocks",
            },
        ),
    ],
)
def test_weights_of_other_shapes(kind: str, reasons: dict[str, str]) -> None:
    report = trtcompile.dry_run(ConstantFactors().eval(), [rows(32)], weight_only=kind)
    assert report.not_quantized == reasons


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"weight_only": "int2"}, "weight_only is 'int2'. Use 'int8', 'int4', or None"),
            (
                {
                    "weight_only": "int8",
                    "enabled_precisions": {torch.int8},
                    "calibrator": DataLoaderCalibrator([rows()]),
                },
                "weight_only is 'int8', but enabled_precisions has torch.int8",
            ),
            (
                {"weight_only": "int4", "device": Device(compute_capability="7.5")},
                "compute capability 7.5 has no INT4: 8.0 is the first that does",
            ),
        ],
        ids=["unknown", "with int8", "no int4"],
    )
    def test_options(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsError) as caught:
            compiled(model(), rows(), **options)
        assert said in str(caught.value)
