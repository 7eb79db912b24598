"""From a DataLoader to an FP8 network: the graph, the simulation, the oracle, the table, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import (
    build_device,
    builds_fp8,
    capture_for_test,
    install_oracle,
    operators,
    randomize,
)
from network_oracle.float8 import nearest_e4m3
from torch import nn
from torch.fx import GraphModule

import trtcompile
from trtcompile import (
    CalibrationError,
    CalibrationWarning,
    Device,
    Input,
    PrecisionWarning,
    SettingsError,
    TRTModule,
    float8,
)
from trtcompile.compiler import prepare
from trtcompile.ptq import (
    CacheCalibrator,
    CalibrationAlgo,
    CalibrationTable,
    DataLoaderCalibrator,
)
from trtcompile.settings import CompileSpec

E4M3 = torch.float8_e4m3fn
MINMAX = CalibrationAlgo.MINMAX_CALIBRATION
FP8 = {torch.float, E4M3}

pytestmark = pytest.mark.skipif(
    not builds_fp8(), reason="this GPU has no FP8: one of compute capability 8.9 or later does"
)


class Block(nn.Module):
    """What a transformer has between two attentions, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(32)
        self.up = nn.Linear(32, 64)
        self.down = nn.Linear(64, 32)
        self.head = nn.Linear(32, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


class Mixed(nn.Module):
    """A convolution, a residual addition, and an average pool in front of linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.pool = nn.AvgPool2d(4)
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.stem(x))
        return self.head(self.pool(torch.relu(self.body(x) + x)).flatten(1))


def tokens(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 8, 32, generator=torch.Generator().manual_seed(seed))


def images(seed: int = 0) -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def calibrator(data: torch.Tensor, **arguments: Any) -> DataLoaderCalibrator:
    return DataLoaderCalibrator([data], algo_type=MINMAX, **arguments)


def compile_fp8(model: nn.Module, data: torch.Tensor, **options: Any) -> TRTModule:
    return trtcompile.compile(
        model,
        [Input(tuple(data.shape))],
        **{
            "enabled_precisions": FP8,
            "calibrator": calibrator(data),
            "device": build_device(disable_tf32=True),
            **options,
        },
    )


@pytest.fixture(scope="module")
def model() -> Block:
    net = Block()
    randomize(net, 3)
    return net


Q, DQ = "trtcompile.quantize_fp8.default", "trtcompile.dequantize_fp8.default"
QW, DQW = (f"trtcompile.{kind}_fp8_per_channel.default" for kind in ("quantize", "dequantize"))


def test_the_graph(model: Block) -> None:
    graph, _ = quantized(model, tokens())
    linear = [Q, DQ, QW, DQW, "aten.linear.default"]
    assert operators(graph) == [
        "aten.native_layer_norm.default",
        "<built-in function getitem>",
        *linear,
        "aten.gelu.default",
        *linear,
        "aten.add.Tensor",
        *linear,
    ]


def test_the_scales_map_the_largest_value_to_448(model: Block) -> None:
    graph, _ = quantized(model, tokens())
    first = next(n for n in graph.graph.nodes if str(n.target) == Q)
    with torch.no_grad():
        amax = float(model.norm(tokens()).abs().max())
    assert first.args[1] * 448 == pytest.approx(amax, rel=1e-6)
    weight = next(n for n in graph.graph.nodes if str(n.target) == QW)
    _, scales, axis = weight.args
    largest = [float(row.abs().max()) / 448 for row in model.up.weight.detach()]
    assert axis == 0
    torch.testing.assert_close(getattr(graph, scales.target), torch.tensor(largest))


def by_hand(layer: nn.Linear, x: torch.Tensor, amax: float) -> torch.Tensor:
    """A linear layer in FP8, its rounding from the format's definition."""
    scale = torch.tensor(amax / 448)
    data = nearest_e4m3(x / scale).float() * scale
    weight = []
    for row in layer.weight:
        step = row.abs().max() / 448
        weight.append(nearest_e4m3(row / step).float() * step)
    return data @ torch.stack(weight).T + layer.bias


def test_the_simulation_against_the_definition(model: Block) -> None:
    graph, _ = quantized(model, tokens())
    x = 1.5 * tokens(seed=1)  # some of it is beyond the calibrated range
    with torch.no_grad():
        seen = {"up": model.norm(tokens())}
        seen["down"] = F.gelu(model.up(seen["up"]))
        seen["head"] = tokens() + model.down(seen["down"])
        amax = {name: float(value.abs().max()) for name, value in seen.items()}
        hidden = F.gelu(by_hand(model.up, model.norm(x), amax["up"]))
        expected = by_hand(model.head, x + by_hand(model.down, hidden, amax["down"]), amax["head"])
        (actual,), unquantized = graph(x), model(x)
    error = (actual - unquantized).norm() / unquantized.norm()
    assert 5e-3 < error < 0.1
    # A value that falls on the other side of a tie is off by a sixteenth of itself, and there are few.
    assert (actual - expected).norm() < 0.05 * (actual - unquantized).norm()


@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_the_network_computes_what_its_graph_does(
    half: bool, model: Block, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_oracle(monkeypatch)
    precisions = FP8 | ({torch.half} if half else set())
    compiled = compile_fp8(model, tokens(), enabled_precisions=precisions)
    x = tokens(seed=1)
    with torch.no_grad():
        expected, (simulated,), computed = model(x), compiled.network_graph(x), compiled(x)
    error = (simulated - expected).norm()
    assert 5e-3 < error / expected.norm() < 0.1
    # FP16 rounds a few values to the other side of a tie, and such a value is off by a whole step of FP8.
    assert (computed - simulated).norm() < (0.3 if half else 1e-3) * error
    report = compiled.report
    assert report is not None and not report.fallbacks
    assert report.multiply_add_share("FP8") == 1.0 and "multiply-adds: FP8 100.0%" in str(report)


@pytest.mark.gpu
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_the_engine_computes_what_the_simulation_does(half: bool, model: Block) -> None:
    precisions = FP8 | ({torch.half} if half else set())
    compiled = compile_fp8(model, tokens(), enabled_precisions=precisions)
    x = tokens(seed=1)
    with torch.no_grad():
        simulated, computed = compiled.lowered(x), compiled(x.cuda()).cpu()
        expected = model(x)
    error = (simulated - expected).norm()
    # Accumulated in another order, or rounded to FP16, a value may fall on the other side of a tie of the next layer.
    # Then it is off by a whole step of FP8, and as near to FP32 as before.
    assert (computed - expected).norm() / error < 1.15
    assert (computed - simulated).norm() / error < (0.6 if half else 0.3)


def test_what_has_no_fp8_kernels_stays_in_floating_point() -> None:
    net = Mixed()
    randomize(net, 4)
    report = trtcompile.dry_run(net, [images()], enabled_precisions=FP8 | {torch.half})
    precisions = {row.name: row.precision for row in report.rows if row.multiply_adds}
    assert precisions == {
        "convolution": "FP16",
        "convolution_1": "FP16",
        "linear": "FP8",
        "linear_1": "FP8",
    }
    reason = "TensorRT has no FP8 kernels for convolutions"
    assert report.not_quantized == {"convolution": reason, "convolution_1": reason}
    assert f"number format  2      convolution: {reason}" in str(report).split("not quantized:")[1]
    graph, _ = quantized(net, images())
    # Neither the residual branch nor the pool's input, which INT8 has Q/DQ on.
    assert operators(graph).count(Q) == 2


def quantized(
    model: nn.Module, data: torch.Tensor, **options: Any
) -> tuple[GraphModule, CalibrationTable]:
    """The graph with Q/DQ and the table, without building anything."""
    options = {"enabled_precisions": FP8, "calibrator": calibrator(data), **options}
    captured = capture_for_test(model, [data])
    _, quantization = prepare(captured, CompileSpec(device=build_device(), **options))
    assert quantization.table is not None
    return captured.graph_module, quantization.table


class TestTable:
    """A table says amax / 127, whichever format it is used for."""

    def test_a_table_of_int8_serves_fp8(self, model: Block, tmp_path: Path) -> None:
        cache = tmp_path / "calibration.cache"
        _, written = quantized(
            model,
            tokens(),
            enabled_precisions={torch.int8},
            calibrator=calibrator(tokens(), cache_file=cache),
        )
        from_cache = CacheCalibrator(cache, algo_type=MINMAX)
        read_graph, read = quantized(model, tokens(), calibrator=from_cache)
        graph, measured = quantized(model, tokens())
        assert read == written == measured
        x = tokens(seed=1)
        with torch.no_grad():
            assert torch.equal(*read_graph(x), *graph(x))

    def test_a_table_of_fp8_serves_int8_where_it_has_all_tensors(
        self, model: Block, tmp_path: Path
    ) -> None:
        cache = tmp_path / "calibration.cache"
        _, written = quantized(model, tokens(), calibrator=calibrator(tokens(), cache_file=cache))
        from_cache = CacheCalibrator(cache, algo_type=MINMAX)
        _, read = quantized(model, tokens(), enabled_precisions={torch.int8}, calibrator=from_cache)
        assert read == written
        with torch.no_grad():
            amax = float(model.norm(tokens()).abs().max())
        assert next(iter(read.values())) == pytest.approx(amax / 127, rel=1e-6)

    def test_a_table_of_fp8_lacks_the_inputs_of_convolutions(self, tmp_path: Path) -> None:
        net = Mixed()
        randomize(net, 4)
        cache = tmp_path / "calibration.cache"
        quantized(net, images(), calibrator=calibrator(images(), cache_file=cache))
        from_cache = CacheCalibrator(cache, algo_type=MINMAX)
        with pytest.raises(CalibrationError, match="'input_0' \\(not in it\\)"):
            quantized(net, images(), enabled_precisions={torch.int8}, calibrator=from_cache)

    def test_ranges_that_cut_off_values_are_a_warning(self, model: Block) -> None:
        with pytest.warns(CalibrationWarning, match="ENTROPY_CALIBRATION_2, which cuts off"):
            quantized(model, tokens(), calibrator=DataLoaderCalibrator([tokens()]))


def test_little_fp8_warns() -> None:
    net = Mixed()
    randomize(net, 4)
    with pytest.warns(PrecisionWarning, match="FP8 was asked for, but only 1% of"):
        compile_fp8(net, images())


class TestRefusals:
    def refused(self, error: type[Exception], said: str, **options: Any) -> None:
        with pytest.raises(error, match=said):
            compile_fp8(Block().eval(), tokens(), **options)

    @pytest.mark.parametrize("named", ["8.6", ("8.9", "7.5")])
    def test_a_gpu_without_fp8(self, named: Any) -> None:
        said = r"compute capability (8\.6|7\.5) has no FP8: 8\.9 is the first that does"
        self.refused(SettingsError, said, device=Device(compute_capability=named))

    def test_both_formats(self) -> None:
        said = r"has both torch\.int8 and torch\.float8_e4m3fn"
        self.refused(SettingsError, said, enabled_precisions={torch.int8, E4M3})

    def test_no_calibrator(self) -> None:
        said = r"has torch\.float8_e4m3fn, but there is no calibrator"
        self.refused(SettingsError, said, calibrator=None)

    def test_the_other_format_of_fp8(self) -> None:
        said = r"has torch\.float8_e5m2\. Use any of .*torch\.float8_e4m3fn"
        self.refused(SettingsError, said, enabled_precisions={torch.float8_e5m2})


class ComesQuantized(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = randomize(nn.Linear(32, 16), 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = float8.dequantize_fp8(float8.quantize_fp8(x, 2.0**-7), 2.0**-7)
        weight = float8.dequantize_fp8(float8.quantize_fp8(self.layer.weight, 2.0**-9), 2.0**-9)
        return F.linear(x, weight, self.layer.bias)


def test_a_model_that_comes_quantized_to_fp8() -> None:
    net = ComesQuantized().eval()
    compiled = compile_fp8(net, tokens(), calibrator=None)
    x = tokens(seed=1)
    with torch.no_grad():
        assert torch.equal(compiled.lowered(x), net(x))
    assert compiled.report is not None and compiled.report.multiply_add_share("FP8") == 1.0
    for precisions in ({torch.float}, {torch.int8}):
        with pytest.raises(SettingsError, match=r"enabled_precisions has no torch\.float8_e4m3fn"):
            compile_fp8(net, tokens(), calibrator=None, enabled_precisions=precisions)


def test_a_convolution_that_comes_quantized_to_fp8_is_not_called_fp8() -> None:
    class Convolution(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(4, 3, 3, 3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = float8.dequantize_fp8(float8.quantize_fp8(x, 0.01), 0.01)
            weight = float8.dequantize_fp8(float8.quantize_fp8(self.weight, 0.01), 0.01)
            return F.conv2d(x, weight)

    report = trtcompile.dry_run(Convolution().eval(), [images()], enabled_precisions=FP8)
    assert report.multiply_add_share("FP32") == 1.0


def test_torch_compile(model: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)
    options = {
        "enabled_precisions": FP8,
        "calibrator": calibrator(tokens()),
        "device": build_device(disable_tf32=True),
    }
    x = tokens(seed=1)
    with torch.no_grad():
        computed = torch.compile(model, backend="trt", options=options)(x)
        (simulated,) = quantized(model, tokens())[0](x)
        error = (simulated - model(x)).norm()
    assert (computed - simulated).norm() < 1e-3 * error


def test_the_smallest_scale_stays_a_normal_number() -> None:
    from trtcompile.ptq.number_format import FP8 as FORMAT
    from trtcompile.ptq.number_format import INT8

    assert FORMAT.scale_of(2.0**-126) == 2.0**-126
    assert INT8.scale_of(0.1) == 0.1
    assert math.isclose(FORMAT.scale_of(0.1), 0.1 * 127 / 448, rel_tol=1e-7)
