"""SmoothQuant: the same function, with outliers moved into the weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import trtcompile
from trtcompile import compiler
from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.inputs import parse_inputs
from trtcompile.lowering import lower
from trtcompile.node_info import layer_name
from trtcompile.ptq import CacheCalibrator, CalibrationAlgo, DataLoaderCalibrator
from trtcompile.ptq.channel_maxima import ChannelMaxima, Maxima
from trtcompile.ptq.quantize import Quantization
from trtcompile.ptq.smooth_quant import smoothing_factors
from trtcompile.settings import CompileSpec

WIDTH = 16
OUTLIERS = [2, 11]
MINMAX = CalibrationAlgo.MINMAX_CALIBRATION


class Block(nn.Module):
    """A norm that three linear layers read, and one that one reads; two channels are 50 times as large as the rest."""

    def __init__(self, norm: type[nn.Module] = nn.LayerNorm) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.norm1, self.norm2 = norm(WIDTH), norm(WIDTH)
        self.q, self.k, self.v = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.up, self.down = nn.Linear(WIDTH, 32), nn.Linear(32, WIDTH)
        for parameter in self.parameters():
            scale = 1 / math.sqrt(parameter.shape[-1]) if parameter.dim() > 1 else 1.0
            parameter.data = scale * torch.randn(parameter.shape, generator=generator)
        for one, readers in ((self.norm1, (self.q, self.k, self.v)), (self.norm2, (self.up,))):
            for parameter in one.parameters():
                parameter.data[OUTLIERS] *= 50
            for reader in readers:
                reader.weight.data[:, OUTLIERS] /= 50

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + torch.softmax(self.q(y) @ self.k(y).mT, -1) @ self.v(y)
        return x + self.down(torch.relu(self.up(self.norm2(x))))


def batches(count: int = 3, rows: int = 4) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(rows, 5, WIDTH, generator=generator) for _ in range(count)]


def prepared(
    model: nn.Module, alpha: float | None, calibrator: Any = None, **options: Any
) -> tuple[torch.fx.GraphModule, Quantization]:
    """The quantized graph; its simulation is the graph itself."""
    calibrator = calibrator or DataLoaderCalibrator(batches(), algo_type=MINMAX, progress=False)
    spec = CompileSpec(
        enabled_precisions=frozenset({torch.float32, torch.int8}),
        calibrator=calibrator,
        smooth_quant=alpha,
        **options,
    )
    captured = compiler.capture(
        model.eval(),
        parse_inputs([batches()[0]]),
        undecomposed=compiler.undecomposed_operators(),
    )
    _, quantization = compiler.prepare(captured, spec)
    return captured.graph_module, quantization


def smoothed(model: nn.Module, alpha: float = 0.5) -> torch.fx.GraphModule:
    """The graph with everything but Q/DQ."""
    from trtcompile.ptq import quantize as stage

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stage, "insert_qdq", lambda *arguments: None)
        return prepared(model, alpha)[0]


def lowered(model: nn.Module) -> torch.fx.GraphModule:
    captured = compiler.capture(
        model.eval(),
        parse_inputs([batches()[0]]),
        undecomposed=compiler.undecomposed_operators(),
    )
    lower(captured.graph_module, CompileSpec())
    return captured.graph_module


def constants(graph_module: torch.fx.GraphModule, name: str) -> list[Tensor]:
    """The constants that an operator reads."""
    (node,) = [n for n in graph_module.graph.nodes if layer_name(n) == name]
    return [getattr(graph_module, n.target) for n in node.all_input_nodes if n.op == "get_attr"]


@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm])
@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_the_function_is_the_same_to_the_bit(norm: type[nn.Module], alpha: float) -> None:
    model = Block(norm)
    graph_module, reference = smoothed(model, alpha), lowered(model)
    changed = constants(graph_module, "linear")[0] != constants(reference, "linear")[0]
    assert changed.any()
    for batch in batches():
        assert torch.equal(graph_module(batch)[0], reference(batch)[0])


def test_the_model_itself_is_left_as_it_was() -> None:
    model = Block()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    prepared(model, 0.5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_factors_are_those_of_the_formula() -> None:
    """Against plain loops over what the norm gives in eager PyTorch."""
    model = Block()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    values = torch.cat([model.norm1(batch).reshape(-1, WIDTH) for batch in batches()])
    graph_module = smoothed(model, 0.75)
    weight = constants(graph_module, "linear")[0]
    norm_weight = constants(graph_module, "native_layer_norm")[0]
    for channel in range(WIDTH):
        x = max(abs(float(value)) for value in values[:, channel])
        readers = (model.q, model.k, model.v)
        w = max(abs(float(v)) for reader in readers for v in reader.weight[:, channel])
        formula = x**0.75 / w**0.25
        factor = 2.0 ** round(math.log2(formula))
        assert torch.equal(weight[:, channel], model.q.weight[:, channel] * factor)
        assert norm_weight[channel] == model.norm1.weight[channel] / factor


def test_all_readers_get_the_same_factors() -> None:
    model = Block()
    graph_module = smoothed(model)
    ratios = [
        constants(graph_module, name)[0] / reader.weight
        for name, reader in (("linear", model.q), ("linear_1", model.k), ("linear_2", model.v))
    ]
    assert all(torch.equal(ratio[0], ratios[0][0]) for ratio in ratios)
    assert all(torch.equal(ratio, ratio[:1].expand_as(ratio)) for ratio in ratios)


def test_outliers_lose_their_error() -> None:
    model = Block()
    expected = model(batches()[0]).detach()

    def error(alpha: float | None) -> float:
        got = prepared(model, alpha)[0](batches()[0])[0]
        return float((got - expected).norm() / expected.norm())

    plain = error(None)
    assert plain > 0.1
    assert error(0.5) < plain / 4


def test_channels_without_values_or_weights() -> None:
    largest = torch.tensor([0.0, 8.0, 8.0])
    weight = torch.tensor([[1.0, 0.0, -2.0]])
    assert smoothing_factors(largest, [weight], 0.5).tolist() == [1.0, 1.0, 2.0]


def test_a_norm_without_weight_gets_one() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
            self.linear = nn.Linear(WIDTH, WIDTH)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(self.norm(100 * x * torch.arange(1, WIDTH + 1)))

    model = Plain()
    graph_module = smoothed(model)
    assert len(constants(graph_module, "native_layer_norm")) == 1
    assert torch.equal(graph_module(batches()[0])[0], lowered(model)(batches()[0])[0])


def test_weights_that_others_use_stay(tmp_path: Path) -> None:
    """One norm and one linear layer, called at two places: each place has factors of its own."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.block = Block()

        def forward(self, x: Tensor) -> Tensor:
            norm, linear = self.block.norm1, self.block.q
            y = linear(norm(x))
            return linear(norm(y * torch.arange(1, WIDTH + 1))) + nn.functional.linear(
                torch.relu(y), linear.weight
            )

    model = Twice()
    graph_module = smoothed(model)
    assert not torch.equal(constants(graph_module, "linear")[0], model.block.q.weight)
    assert torch.equal(constants(graph_module, "linear_2")[0], model.block.q.weight)
    assert torch.equal(graph_module(batches()[0])[0], lowered(model)(batches()[0])[0])


class Windows(nn.Module):
    """Linear layers behind what Swin's attention and a classifier's head do with a norm's result."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        y = self.block.norm1(x)  # [4, 5, 16]
        windows = torch.roll(nn.functional.pad(y, (0, 0, 0, 1)), (-1,), (1,))
        windows = windows.view(4, 3, 2, WIDTH).permute(0, 2, 1, 3).reshape(8, 3, WIDTH)
        head = self.block.norm2(x)[:, 0]
        return self.block.q(windows).sum((0, 1)) + self.block.k(y).sum((0, 1)) + self.block.v(head)


def test_linear_layers_behind_movements() -> None:
    """Outliers of the token that the head reads count, and not those of the others."""
    model = Windows()
    graph_module, reference = smoothed(model), lowered(model)
    for batch in batches():
        assert torch.equal(graph_module(batch)[0], reference(batch)[0])
    data = torch.cat(batches())
    with torch.no_grad():
        picked = model.block.norm2(data)[:, 0].abs().amax(dim=0)
    weight = model.block.v.weight.detach()
    expected = smoothing_factors(picked, [weight], 0.5)
    (name,) = [n for n in ("linear", "linear_1", "linear_2") if has_weight(reference, n, weight)]
    assert torch.equal(constants(graph_module, name)[0], weight * expected)
    for name in ("native_layer_norm", "native_layer_norm_1"):
        ratio = constants(reference, name)[0] / constants(graph_module, name)[0]
        assert ratio[OUTLIERS].min() > ratio.median()


def has_weight(graph_module: torch.fx.GraphModule, name: str, weight: Tensor) -> bool:
    return torch.equal(constants(graph_module, name)[0], weight)


def test_constants_that_were_replaced_are_freed() -> None:
    graph_module = prepared(Block(), 0.5)[0]
    read = {n.target for n in graph_module.graph.nodes if n.op == "get_attr" and n.users}
    assert read == {name for name, _ in graph_module.named_buffers()}
    assert any("smoothed" in str(name) for name in read)


class Turned(nn.Module):
    """What was along the channels is along the tokens where the linear layer reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.block, self.mix = Block(), nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = self.block.norm1(x)
        return self.block.q(y) + self.mix(y.transpose(1, 2)).transpose(1, 2)


class PostNorm(nn.Module):
    """The residual stream itself is the norm's result."""

    def __init__(self) -> None:
        super().__init__()
        self.block = Block()

    def forward(self, x: Tensor) -> Tensor:
        y = self.block.norm1(x)
        return y + self.block.q(y)


class TwoDimensions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm((5, WIDTH)), nn.Linear(WIDTH, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


@pytest.mark.parametrize(
    ("model", "options", "reason"),
    [
        (PostNorm(), {}, "add reads it as well"),
        (Turned(), {}, "transpose reads it as well"),
        (TwoDimensions(), {}, "it normalizes [5, 16], not the channels alone"),
        (
            Block(),
            {"torch_executed_nodes": {"linear_1"}, "min_block_size": 1},
            "its reader linear_1 runs in PyTorch",
        ),
    ],
)
def test_what_is_left_out_has_a_note(
    model: nn.Module, options: dict[str, Any], reason: str
) -> None:
    graph_module, quantization = prepared(model, 0.5, **options)
    assert quantization.placement is not None
    skipped = {layer_name(node): said for node, said in quantization.placement.skipped.items()}
    assert skipped["native_layer_norm"].why == f"smooth_quant leaves it out: {reason}"
    plain, _ = prepared(model, None, **options)
    for a, b in zip(
        constants(graph_module, "native_layer_norm"),
        constants(plain, "native_layer_norm"),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_a_table_is_for_the_smoothed_model(tmp_path: Path) -> None:
    cache_file = tmp_path / "calibration.cache"

    class Counted(list[Tensor]):
        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            return super().__iter__()

    loader = Counted(batches())

    def calibrator(**options: Any) -> DataLoaderCalibrator:
        return DataLoaderCalibrator(loader, cache_file=cache_file, progress=False, **options)

    model = Block()
    _, first = prepared(model, 0.5, calibrator())
    assert loader.passes == 2
    _, again = prepared(model, 0.5, calibrator(use_cache=True))
    assert loader.passes == 3  # for the factors alone
    assert again.table == first.table
    for alpha in (None, 1.0):
        with pytest.raises(CalibrationError, match="made for another model"):
            prepared(model, alpha, calibrator(use_cache=True))
    with pytest.raises(
        CalibrationError, match="smooth_quant needs data to run twice, which a CacheCalibrator"
    ):
        prepared(model, 0.5, CacheCalibrator(cache_file))


class TestMaxima:
    def test_batch_size_does_not_matter(self) -> None:
        """The rows that fill up the last batch are no data."""
        largest = []
        for rows in (1, 4, 7):
            whole = torch.cat(batches())
            loader = DataLoaderCalibrator(list(whole.split(rows)), progress=False)
            graph_module, _ = prepared(Block(), 0.5, loader)
            largest.append(constants(graph_module, "native_layer_norm")[0])
        assert torch.equal(largest[0], largest[1])
        assert torch.equal(largest[0], largest[2])

    def test_processes_are_merged(self) -> None:
        mine = Maxima({"a": torch.tensor([1.0, 5.0])})
        theirs = Maxima({"a": torch.tensor([3.0, 2.0])})
        assert mine.merged(theirs).largest["a"].tolist() == [3.0, 5.0]

    def test_nan(self) -> None:
        maxima = ChannelMaxima(torch.device("cpu"))
        maxima.update(torch.tensor([[1.0, float("nan")]]))
        assert not maxima.finite
        with pytest.raises(CalibrationError, match="NaN"):
            maxima.check_finite()
        bad = [batches()[0], torch.full((4, 5, WIDTH), float("inf"))]
        with pytest.raises(CalibrationError, match="batch 1 of the calibration data: it holds NaN"):
            prepared(Block(), 0.5, DataLoaderCalibrator(bad, progress=False))


class TestOption:
    @pytest.mark.parametrize("alpha", [-0.1, 1.1, "0.5", True, float("nan")])
    def test_wrong_values(self, alpha: Any) -> None:
        with pytest.raises(SettingsError, match="smooth_quant is"):
            CompileSpec(enabled_precisions=frozenset({torch.int8}), smooth_quant=alpha)

    def test_without_int8_it_has_no_effect(self) -> None:
        with pytest.raises(SettingsError, match=r"has no torch\.int8, so it would have no effect"):
            CompileSpec(smooth_quant=0.5)

    @pytest.mark.parametrize(
        "maxima",
        [{}, {"getitem": torch.ones(3)}, {"getitem": [1.0] * WIDTH}, None],
        ids=["missing", "other size", "no tensor", "no mapping"],
    )
    def test_a_calibrator_of_the_users_own_that_gives_other_maxima(self, maxima: Any) -> None:
        class Own(DataLoaderCalibrator):
            def channel_maxima(self, request: Any) -> Any:
                return maxima

        said = r"Own gave no maxima of shape \[16\] for 'getitem'. Let channel_maxima\(request\)"
        with pytest.raises(CalibrationError, match=said):
            prepared(Block(), 0.5, Own(batches()))

    def test_a_dry_run_needs_no_data(self) -> None:
        report = trtcompile.dry_run(
            PostNorm().eval(),
            [batches()[0]],
            enabled_precisions={torch.float32, torch.int8},
            smooth_quant=0.5,
            device=trtcompile.Device(compute_capability="8.9"),
        )
        assert "native_layer_norm: smooth_quant leaves it out: add reads it as well" in str(report)

    def test_a_calibrator_that_only_gives_scales(self) -> None:
        class Scales:
            def calibrate(self, request: Any) -> Any:
                raise AssertionError("the factors come first")

        with pytest.raises(
            CalibrationError, match="smooth_quant needs data to run twice, which a Scales"
        ):
            prepared(Block(), 0.5, Scales())
