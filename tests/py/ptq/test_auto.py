"""AUTO calibration against plain loops, and on tensors where single algorithms fail."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from small_requests import make_request
from torch import Tensor, nn

from trtcompile import compiler
from trtcompile.errors import CalibrationError
from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, DataLoaderCalibrator
from trtcompile.ptq.algorithms import amax_of
from trtcompile.ptq.auto import CANDIDATES, Simulation, candidate_ranges, simulated_errors
from trtcompile.ptq.collect import Statistics, collect
from trtcompile.ptq.request import CalibrationRequest, Reader
from trtcompile.settings import CompileSpec

AUTO = CalibrationAlgo.AUTO_CALIBRATION
CPU = torch.device("cpu")
FEATURES = 16


class TwoReaders(nn.Module):
    """One tensor that a linear layer and an addition read."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        hidden = x * 1.0
        return (nn.functional.linear(hidden, self.weight) + hidden,)


def with_readers(request: CalibrationRequest) -> CalibrationRequest:
    """The request, told who reads ``mul``."""
    nodes = {node.name: node for node in request.graph.graph.nodes}
    readers = (Reader(nodes["linear"], nodes["weight"], 0), Reader(nodes["add"]))
    return dataclasses.replace(request, readers={"mul": readers})


def request_for(weight: Tensor, batch: int = 4) -> CalibrationRequest:
    inputs = [Input((batch, weight.shape[1]))]
    made = make_request(TwoReaders(weight), inputs, observe=["mul"])
    return with_readers(made)


def weights(features: int = FEATURES) -> Tensor:
    return torch.randn(features, features, generator=torch.Generator().manual_seed(0))


def data(count: int = 400, features: int = FEATURES) -> Tensor:
    return torch.randn(count, features, generator=torch.Generator().manual_seed(1))


def scores(
    request: CalibrationRequest, statistics: Statistics, ranges: Sequence[Sequence[float]]
) -> list[list[float]]:
    return simulated_errors(statistics, ranges, Simulation.of(request, CPU))


def rounded(value: float, amax: float, lowest: int = -128) -> float:
    scale = amax / 127
    return max(lowest, min(127, round(value / scale))) * scale


def test_the_score_is_that_of_plain_loops() -> None:
    weight = weights()
    request = request_for(weight, batch=3)
    statistics = collect(request, [data()], device=CPU)
    (row,) = scores(request, statistics, [(2.0, 0.5, 2.0)])
    for amax, score in zip((2.0, 0.5, 2.0), row, strict=True):
        expected = 0.0
        for (sample,) in statistics.inputs.rows.values():
            x = sample[0].tolist()
            int8 = [rounded(value, amax) for value in x]
            exact, linear = [], []
            for channel in weight.tolist():
                most = max(abs(w) for w in channel)
                exact.append(sum(w * v for w, v in zip(channel, x, strict=True)))
                linear.append(
                    sum(rounded(w, most, -127) * v for w, v in zip(channel, int8, strict=True))
                )
            error = sum((a - b) ** 2 for a, b in zip(linear, exact, strict=True))
            expected += error / sum(v**2 for v in exact)
            error = sum((a - b) ** 2 for a, b in zip(int8, x, strict=True))
            expected += error / sum((a + b) ** 2 for a, b in zip(exact, x, strict=True))
        assert score == pytest.approx(expected, rel=1e-4)
    assert row[0] == row[2] != row[1]


def chosen(request: CalibrationRequest, values: Tensor) -> tuple[CalibrationTable, Statistics]:
    calibrator = DataLoaderCalibrator([values], algo_type=AUTO)
    table = calibrator.calibrate(request)
    return table, collect(request, [values], device=CPU)


def heavy_tailed() -> tuple[CalibrationRequest, Tensor]:
    """Most of the energy in a few large values, as in a transformer; all are used."""
    return request_for(weights(256)), data(500, 256) ** 3


def harmless_outlier() -> tuple[CalibrationRequest, Tensor]:
    """A huge value in one sample of many."""
    values = data(2000)
    values[77, 5] = 3000.0
    return request_for(weights()), values


def outlier_that_nothing_reads() -> tuple[CalibrationRequest, Tensor]:
    """A feature with large values in every sample, and weights of zero; read by the layer alone."""
    values = data(500, 256)
    values[:, 5] *= 300.0
    weight = weights(256)
    weight[:, 5] = 0
    request = request_for(weight)
    return dataclasses.replace(request, readers={"mul": request.readers["mul"][:1]}), values


CASES: dict[str, tuple[Callable[[], tuple[CalibrationRequest, Tensor]], str]] = {
    "heavy tail": (heavy_tailed, "ENTROPY_CALIBRATION_2"),
    "outlier": (harmless_outlier, "MINMAX_CALIBRATION"),
    "unread": (outlier_that_nothing_reads, "MINMAX_CALIBRATION"),
}


@pytest.mark.parametrize("name", CASES)
def test_it_avoids_what_fails_and_is_never_worse(name: str) -> None:
    make, failing = CASES[name]
    request, values = make()
    table, statistics = chosen(request, values)
    singles = candidate_ranges(statistics, request.groups)
    assert table.provenance is not None
    (row,) = scores(request, statistics, [(*singles[0], table.provenance.amax["mul"])])
    *by_algorithm, auto = row
    assert auto == min(by_algorithm)
    failed = [
        score
        for (algo, _), score in zip(CANDIDATES, by_algorithm, strict=True)
        if algo.name == failing
    ]
    assert failed[0] > 4 * auto


def test_it_is_not_the_least_error_of_the_values_alone() -> None:
    request, values = outlier_that_nothing_reads()
    table, statistics = chosen(request, values)
    assert table.provenance is not None
    (mse,) = amax_of([statistics.shared(["mul"])], CalibrationAlgo.MSE_CALIBRATION)
    assert table.provenance.amax["mul"] < mse


@pytest.mark.parametrize("batch", [1, 7, 500])
def test_batch_size_and_order_do_not_matter(batch: int) -> None:
    request, values = heavy_tailed()
    table, _ = chosen(request, values)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(5))
    parts = list(values[order].split(batch))
    assert DataLoaderCalibrator(parts, algo_type=AUTO).calibrate(request) == table


def test_without_readers_it_is_the_error_of_the_tensor() -> None:
    request = make_request(TwoReaders(weights()), [Input((4, FEATURES))], observe=["mul", "linear"])
    statistics = collect(request, [data()], device=CPU)
    rows = scores(request, statistics, [(3.0, 1.0), (9.0, 2.0)])
    for values, ranges, row in (
        ([s for (s,) in statistics.inputs.rows.values()], (3.0, 1.0), rows[0]),
        ([s @ weights().T for (s,) in statistics.inputs.rows.values()], (9.0, 2.0), rows[1]),
    ):
        for amax, score in zip(ranges, row, strict=True):
            steps = [torch.clamp(torch.round(v / (amax / 127)), -128, 127) for v in values]
            parts = zip(values, steps, strict=True)
            expected = sum(
                float(((s * amax / 127 - v) ** 2).sum() / (v**2).sum()) for v, s in parts
            )
            assert score == pytest.approx(expected, rel=1e-3)


def test_zeros_have_no_error() -> None:
    request = request_for(weights())
    table = DataLoaderCalibrator([torch.zeros(8, FEATURES)], algo_type=AUTO).calibrate(request)
    zero = DataLoaderCalibrator(
        [torch.zeros(8, FEATURES)], algo_type=CalibrationAlgo.MINMAX_CALIBRATION
    )
    assert dict(table) == dict(zero.calibrate(request))


class Net(nn.Module):
    """Convolutions with a residual, a pool, a concatenation, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.linear = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        y = torch.relu(self.second(y) + y)
        y = torch.cat([nn.functional.max_pool2d(y, 2), nn.functional.avg_pool2d(y, 2)], 1)
        return self.linear(y.mean((2, 3)))


def prepared(calibrator: Any) -> CalibrationTable:
    """The table of a compilation, without the engine."""
    torch.manual_seed(3)
    captured = compiler.capture(
        Net().eval(),
        parse_inputs([Input((4, 3, 8, 8))]),
        undecomposed=compiler.undecomposed_operators(),
    )
    spec = CompileSpec(enabled_precisions={torch.float, torch.int8}, calibrator=calibrator)
    _, quantization = compiler.prepare(captured, spec)
    assert quantization.table is not None
    return quantization.table


def test_a_table_after_compiling_needs_no_data() -> None:
    """The compiler has rewritten the graph by then."""
    images = torch.randn(20, 3, 8, 8, generator=torch.Generator().manual_seed(2)) ** 3
    later = DataLoaderCalibrator([images])
    entropy = prepared(later)
    later.dataloader = []
    auto = prepared(DataLoaderCalibrator([images], algo_type=AUTO))
    assert later.table(AUTO) == auto
    assert dict(auto) != dict(entropy)
    assert later.table() == entropy


def test_the_weights_are_shared_and_a_pickle_has_none() -> None:
    request = request_for(weights())
    weight = request.graph.get_parameter("weight")
    assert Simulation.of(request, CPU).graph.get_parameter("weight") is weight
    calibrator = DataLoaderCalibrator([data()])
    calibrator.calibrate(request)
    restored = pickle.loads(pickle.dumps(calibrator))  # noqa: S301 - our own bytes
    assert restored.table() == calibrator.table()
    with pytest.raises(CalibrationError, match="this calibrator was pickled"):
        restored.table(AUTO)


def test_histograms_alone_are_not_enough() -> None:
    with pytest.raises(CalibrationError, match="AUTO_CALIBRATION simulates the model"):
        amax_of([], AUTO)
