"""``simulate``: what it returns outlives the call, so it must not follow later changes of the model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import build_device, randomize
from torch import nn

import trtcompile
from trtcompile import capture as capture_stage
from trtcompile import compiler
from trtcompile.capture import own_constants
from trtcompile.errors import CalibrationError, PrecisionWarning
from trtcompile.inputs import parse_inputs
from trtcompile.ptq import (
    CalibrationAlgo,
    CalibrationTable,
    Calibrator,
    DataLoaderCalibrator,
)
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.settings import CompileSpec

SHAPE = (2, 3, 8, 8)


def net() -> nn.Module:
    layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 5)
    return randomize(nn.Sequential(*layers), 2)


def image() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


def change(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(-3)


def calibrator(**options: object) -> DataLoaderCalibrator:
    return DataLoaderCalibrator([image()], progress=False, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("is_int8", [False, True])
def test_a_simulation_keeps_the_weights_it_was_made_of(is_int8: bool) -> None:
    model = net()
    options = {"enabled_precisions": {torch.int8}, "calibrator": calibrator()} if is_int8 else {}
    lowered = trtcompile.simulate(model, [SHAPE], device=build_device(), **options).lowered
    before = lowered(image())
    change(model)
    assert torch.equal(lowered(image()), before)


def test_a_simulation_for_the_time_being_has_no_copies() -> None:
    model = net()
    spec = CompileSpec(device=build_device())
    lowered = compiler.simulate_borrowing(model, [SHAPE], None, spec).lowered
    theirs = {parameter.data_ptr() for parameter in model.parameters()}
    assert {constant.data_ptr() for constant in lowered.buffers()} == theirs


def test_a_constant_under_two_names_is_owned_under_both() -> None:
    model = net()
    captured = capture_stage.capture(model, parse_inputs([SHAPE]))
    graph = captured.graph_module
    first = next(iter(graph._buffers))
    graph.register_buffer("again", getattr(graph, first))
    own_constants(captured, graph)
    assert graph.again is getattr(graph, first)
    assert graph.again.data_ptr() not in captured.borrowed


def test_a_calibrator_does_not_simulate_weights_that_have_changed() -> None:
    """It shares the model's memory, like everything else until the engines are built."""
    model, auto = net(), CalibrationAlgo.AUTO_CALIBRATION
    used = calibrator(algo_type=auto)
    table = trtcompile.simulate(
        model,
        [SHAPE],
        device=build_device(),
        enabled_precisions={torch.int8},
        calibrator=used,
    ).calibration_table
    assert used.table() == table
    change(model)
    assert used.table(CalibrationAlgo.MINMAX_CALIBRATION)  # of histograms alone
    with pytest.raises(CalibrationError, match=r"weights .* have changed .* Compile it again"):
        used.table(auto)


@pytest.mark.parametrize("given", [None, {"input_0": 0.1, "flatten": 0.1}, [0.1]])
@pytest.mark.parametrize("dtype", [torch.int8, torch.float8_e4m3fn])
def test_a_calibrator_of_the_users_own_that_gives_no_table(
    given: object, dtype: torch.dtype
) -> None:
    class Own:
        def calibrate(self, request: object) -> object:
            return given

    said = rf"Own.calibrate gave a {type(given).__name__}, not a CalibrationTable. Let it return"
    with pytest.raises(CalibrationError, match=said):
        trtcompile.simulate(
            net(), [SHAPE], enabled_precisions={dtype}, calibrator=Own(), device=build_device()
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda scales: scales.popitem(), r"Own\.calibrate gave no scale for .* \(1 tensors of"),
        (lambda scales: scales.update(max_pool2d=9.0), r"Own\.calibrate gives .* must share one"),
    ],
)
def test_a_calibrator_of_the_users_own_whose_table_does_not_fit(
    change: Callable[[dict[str, float]], Any], said: str
) -> None:
    class Own(Calibrator):
        def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
            scales = dict.fromkeys(request.names, 0.1)
            change(scales)
            return CalibrationTable(scales, algo=CalibrationAlgo.MINMAX_CALIBRATION)

    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3)).eval()
    with pytest.raises(CalibrationError, match=said):
        trtcompile.simulate(model, [SHAPE], enabled_precisions={torch.int8}, calibrator=Own())


def test_a_calibrator_that_has_nothing_to_do_is_a_warning() -> None:
    """As of a model that was cast to FP16, which keeps its types."""
    asked = calibrator()
    with pytest.warns(PrecisionWarning, match="the calibrator was not asked"):
        simulation = trtcompile.simulate(
            net().half(),
            [image().half()],
            enabled_precisions={torch.int8},
            calibrator=asked,
            device=build_device(),
        )
    assert simulation.calibration_table is None


def test_weights_alone_have_no_calibrator_to_warn_of() -> None:
    device = trtcompile.Device(compute_capability="8.9")
    trtcompile.simulate(net(), [SHAPE], weight_only="int4", device=device)
