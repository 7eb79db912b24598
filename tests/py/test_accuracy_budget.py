"""Compiling within an accuracy budget: what is left out, and that what was measured is what is compiled."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import Tensor, nn

import trtcompile
from trtcompile import CalibrationError, PrecisionWarning, SettingsError
from trtcompile.ptq import CalibrationTable, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.analysis.layers import QuantizedLayers


class Branches(nn.Module):
    """Two convolutions that meet in an addition: where one is left out of INT8, the other takes the addition over."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.main = nn.Conv2d(4, 4, 3, padding=1)
        self.side = nn.Conv2d(4, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return torch.relu(self.main(torch.relu(x - 0.1)) + self.side(x)).mean((2, 3))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return randomize(Branches(), 4)


def images(count: int, seed: int) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


DATA = [images(4, seed) for seed in range(3)]


def negative_error(model: nn.Module) -> Any:
    def metric(outputs: Tensor, batch: Tensor) -> float:
        with torch.no_grad():
            expected = model(batch)
        return -float((outputs - expected).square().mean() / expected.var())

    return metric


def within(model: nn.Module, budget: float, **options: Any) -> Any:
    options = {
        "enabled_precisions": {torch.int8},
        "calibrator": DataLoaderCalibrator([images(8, 9)]),
        "metric": negative_error(model),
        **options,
    }
    return trtcompile.compile_within_budget(
        model,
        [(4, 3, 8, 8)],
        loader=DATA,
        budget=budget,
        device=build_device(disable_tf32=True),
        **options,
    )


def test_what_was_measured_is_what_is_compiled(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_oracle(monkeypatch)
    all_int8 = within(model, 10.0)[1]
    assert all_int8.excluded == frozenset() and len(all_int8.trials) == 1
    budget = all_int8.drop / 3
    compiled, search = within(model, budget)
    assert search.excluded and search.drop <= budget < all_int8.drop
    names = {"convolution", "convolution_1", "convolution_2"}
    assert set(QuantizedLayers(compiled.lowered).names) == names - search.excluded
    precisions = {row.name: row.precision for row in compiled.report.rows if row.multiply_adds}
    assert {
        name for name, precision in precisions.items() if precision != "INT8"
    } == search.excluded
    metric = negative_error(model)
    measured = sum(metric(compiled(batch), batch) for batch in DATA) / len(DATA)
    assert measured == pytest.approx(search.metric, rel=1e-3)
    assert repr(compiled.spec.calibrator).startswith("DataLoaderCalibrator(")


def test_no_budget_leaves_nothing_in_int8(model: nn.Module) -> None:
    with pytest.warns(PrecisionWarning, match="only 0% of the multiply-adds"):
        compiled, search = within(model, 0.0)
    assert search.excluded == {"convolution", "convolution_1", "convolution_2"}
    assert search.drop == 0 and search.metric == search.metric_reference
    assert compiled.report.multiply_add_share("INT8") == 0


def test_what_the_user_excludes_stays_excluded(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_oracle(monkeypatch)
    compiled, search = within(model, 10.0, int8_excluded_nodes={"convolution"})
    assert search.excluded == frozenset()
    assert QuantizedLayers(compiled.lowered).names == ("convolution_1", "convolution_2")


def test_a_layer_that_cannot_be_left_out_is_an_error(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trtcompile.accuracy_budget._without", lambda settings, names: settings)
    with pytest.raises(CalibrationError, match=r"leaving convolution.* out of INT8 has no effect"):
        within(model, 0.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"calibrator": None}, "torch.int8 or a calibrator is missing"),
        ({"enabled_precisions": {torch.half}, "calibrator": None}, "torch.int8 or a calibrator"),
        ({"metric": "sqnr"}, "metric is 'sqnr'"),
        ({"metrics": "agreement"}, "no option 'metrics'"),
        ({"max_batches": -1}, "max_batches is -1"),
    ],
)
def test_options(model: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        within(model, 0.1, **options)


def test_the_scales_are_found_once_for_each_placement(model: nn.Module) -> None:
    class Counting(Calibrator):
        def __init__(self) -> None:
            self.inner = DataLoaderCalibrator([images(8, 9)])
            self.calls: list[tuple[str, ...]] = []

        def calibrate(self, request: Any) -> CalibrationTable:
            self.calls.append(request.names)
            return self.inner.calibrate(request)

    calibrator = Counting()
    within(model, 10.0, calibrator=calibrator)
    assert len(calibrator.calls) == 1  # for the search, and not again for the compilation


class Normalized(nn.Module):
    """A norm with channels as large as those that SmoothQuant is for, and what reads it."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.linear = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


def test_a_smoothed_model_is_compiled_as_it_was_measured() -> None:
    class Growing:
        """Each pass has larger values in one channel, from which other factors would follow."""

        passes = 0

        def __iter__(self) -> Any:
            self.passes += 1
            large = torch.ones(8)
            large[3] = 8.0**self.passes
            yield images(8, 9).reshape(-1, 8)[:16] * large

    model, loader = randomize(Normalized(), 5), Growing()
    rows = [batch.reshape(-1, 8)[:16] for batch in DATA]
    metric = negative_error(model)
    compiled, search = trtcompile.compile_within_budget(
        model,
        [(16, 8)],
        loader=rows,
        metric=metric,
        budget=1e9,
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator(loader, progress=False),
        smooth_quant=0.5,
        device=build_device(),
    )
    assert loader.passes == 2  # for the factors, and for the scales
    measured = sum(metric(compiled.lowered(batch), batch) for batch in rows) / len(rows)
    assert measured == pytest.approx(search.metric, rel=1e-5)
