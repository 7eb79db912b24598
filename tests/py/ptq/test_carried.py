"""What is only moved to where INT8 reads it: the scale is that of what is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import randomize
from ptq.placed import conv
from torch import Tensor, nn
from torchvision.models.densenet import _DenseLayer

import trtcompile
from trtcompile.node_info import is_dequantize, layer_name
from trtcompile.ptq import (
    CalibrationAlgo,
    CalibrationTable,
    DataLoaderCalibrator,
)
from trtcompile.ptq.algorithms import amax_of, scale_of
from trtcompile.ptq.auto import CANDIDATES
from trtcompile.ptq.collect import collect
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.movement import only_moves
from trtcompile.ptq.request import CalibrationRequest

HISTOGRAM_ALGORITHMS = [
    CalibrationAlgo.ENTROPY_CALIBRATION_2,
    CalibrationAlgo.MINMAX_CALIBRATION,
    CalibrationAlgo.PERCENTILE_CALIBRATION,
    CalibrationAlgo.MSE_CALIBRATION,
    CalibrationAlgo.LEGACY_CALIBRATION,
]


class Pooled(nn.Module):
    """Signed values, the largest of them negative, so that the pool drops them."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = conv(3, 8), conv(8, 4)
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
            self.before.bias.sub_(6.0)  # type: ignore[union-attr]
        self.eval()

    def forward(self, x: Tensor) -> Any:
        return self.after(pooled(self.before(x)))


class ReadBeforeToo(Pooled):
    def forward(self, x: Tensor) -> Any:
        x = self.before(x)
        return self.after(pooled(x)), self.after(x)


def pooled(x: Tensor) -> Tensor:
    return F.max_pool2d(x, 3, 2, 1).flip(3)


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(7)
    return [torch.randn(4, 3, 12, 12, generator=generator) for _ in range(3)]


def scales_of(model: nn.Module, algo: CalibrationAlgo) -> dict[str, float]:
    simulation = trtcompile.simulate(
        model,
        [(4, 3, 12, 12)],
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator(batches(), algo_type=algo),
    )
    assert simulation.calibration_table is not None
    return dict(simulation.calibration_table)


def expected_scale(
    algo: CalibrationAlgo, values: list[Tensor], options: dict[str, float] | None = None
) -> float:
    histogram = AbsHistogram()
    for value in values:
        histogram.update(value)
    (amax,) = amax_of([histogram], algo, options)
    return scale_of(amax)


@pytest.mark.parametrize("algo", HISTOGRAM_ALGORITHMS, ids=lambda algo: algo.name)
def test_the_scale_in_front_of_a_pool_is_that_of_what_it_keeps(algo: CalibrationAlgo) -> None:
    model = Pooled()
    scales = scales_of(model, algo)
    with torch.no_grad():
        before = [model.before(x) for x in batches()]
    behind = [pooled(values) for values in before]
    assert torch.stack(before).abs().max() > 1.2 * torch.stack(behind).abs().max()
    assert scales["convolution"] == scales["flip"] == expected_scale(algo, behind)


def test_what_is_read_in_front_of_the_pool_too_counts() -> None:
    algo = CalibrationAlgo.MINMAX_CALIBRATION
    model = ReadBeforeToo()
    scales = scales_of(model, algo)
    with torch.no_grad():
        before = [model.before(x) for x in batches()]
    assert scales["convolution"] == scales["flip"] == expected_scale(algo, before)


class Dense(nn.Module):
    """A block whose layers each read the concatenation of what is in front."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.one, self.two = _DenseLayer(8, 4, 2, 0.0), _DenseLayer(12, 4, 2, 0.0)
        self.after = nn.Sequential(nn.BatchNorm2d(16), nn.ReLU(), conv(16, 4))

    def features(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        first = self.one([x])
        return torch.cat([x, first, self.two([x, first])], 1)

    def forward(self, x: Tensor) -> Any:
        return self.after(self.features(x))


@pytest.mark.parametrize("algo", HISTOGRAM_ALGORITHMS, ids=lambda algo: algo.name)
def test_what_is_concatenated_several_times_counts_once(algo: CalibrationAlgo) -> None:
    model = randomize(Dense(), 3)
    scales = scales_of(model, algo)
    with torch.no_grad():
        features = [model.features(x) for x in batches()]
    block = ("convolution", "convolution_2", "cat", "convolution_4", "cat_1")
    assert {scales[name] for name in block} == {expected_scale(algo, features)}


def test_auto_chooses_among_the_ranges_of_what_is_read() -> None:
    scales = scales_of(Pooled(), CalibrationAlgo.AUTO_CALIBRATION)
    with torch.no_grad():
        behind = [pooled(Pooled().before(x)) for x in batches()]
    candidates = {expected_scale(algo, behind, dict(options)) for algo, options in CANDIDATES}
    assert scales["convolution"] == scales["flip"]
    assert scales["flip"] in candidates


def test_what_is_clipped_in_front_of_the_pool_changes_nothing_behind_it() -> None:
    """Far below the range as well: rounding and clipping keep the order of values, and so the largest one."""
    model = Pooled()
    simulation = trtcompile.simulate(
        model,
        [(4, 3, 12, 12)],
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator(
            batches(),
            algo_type=CalibrationAlgo.PERCENTILE_CALIBRATION,
            algo_options={"percentile": 60},
        ),
    )
    assert simulation.calibration_table is not None
    scale = simulation.calibration_table["flip"]
    seen: dict[str, Tensor] = {}

    class Watching(torch.fx.Interpreter):
        def run_node(self, n: torch.fx.Node) -> Any:
            value = super().run_node(n)
            seen[layer_name(n)] = value
            return value

    with torch.no_grad():
        Watching(simulation.lowered).run(batches()[0])
    x = seen["convolution"]
    assert float(x.min()) < -128 * scale < 127 * scale < float(x.max())
    behind = torch.clamp(torch.round(pooled(x) / scale), -128, 127) * scale
    torch.testing.assert_close(seen["flip/dequantize"], behind, rtol=0, atol=1e-5)


class Branches(Pooled):
    """One value, moved to several layers along different ways."""

    def __init__(self) -> None:
        super().__init__()
        self.flat = nn.Linear(8 * 6 * 6, 3).eval()

    def forward(self, x: Tensor) -> Any:
        once = F.max_pool2d(self.before(x), 2)
        twice = F.channel_shuffle(F.max_pool2d(once, 3, 1, 1), 4)
        return (
            self.after(once),
            self.after(twice),
            self.after(F.pad(twice, (1, 2))),
            self.flat(once.flatten(1)),
        )


@pytest.mark.parametrize("model", [Pooled, Branches])
@pytest.mark.parametrize(
    "precisions", [{torch.int8}, {torch.int8, torch.half}], ids=["fp32", "fp16"]
)
def test_quantizing_where_a_value_is_computed_changes_nothing(
    model: type[Pooled], precisions: set[torch.dtype]
) -> None:
    """To the bit: without the pairs in front of movements, those behind them give the same values."""
    lowered = trtcompile.simulate(
        model(),
        [(4, 3, 12, 12)],
        enabled_precisions=precisions,
        int8_only_where_faster=False,
        calibrator=DataLoaderCalibrator(
            batches(),
            algo_type=CalibrationAlgo.PERCENTILE_CALIBRATION,
            algo_options={"percentile": 90},
        ),
    ).lowered
    x = batches()[0]
    with torch.no_grad():
        expected = lowered(x)
    in_front = [
        (node, user)
        for node in lowered.graph.nodes
        if is_dequantize(node)
        for user in node.users
        if only_moves(user)
    ]
    assert in_front
    for dequantizer, movement in in_front:
        (quantizer,) = dequantizer.all_input_nodes
        movement.replace_input_with(dequantizer, quantizer.args[0])
    lowered.recompile()
    with torch.no_grad():
        actual = lowered(x)
    for one, other in zip(*map(torch.utils._pytree.tree_leaves, (actual, expected)), strict=True):
        assert torch.equal(one, other)


def test_what_is_only_moved_is_not_counted() -> None:
    requests: list[CalibrationRequest] = []

    class Recorder(DataLoaderCalibrator):
        def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
            requests.append(request)
            return super().calibrate(request)

    trtcompile.simulate(
        Pooled(),
        [(4, 3, 12, 12)],
        enabled_precisions={torch.int8},
        calibrator=Recorder(batches()),
    )
    (request,) = requests
    assert request.carried
    counted = collect(request, batches(), device=torch.device("cpu")).positions
    assert set(counted) == set(request.names) - request.carried
