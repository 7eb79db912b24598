"""Simulations of small models, and quantization by plain formulas."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from checks import build_device
from torch import Tensor, nn

import trtcompile
from trtcompile.compiler import Simulation
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.analysis.layers import QuantizedLayers
from trtcompile.ptq.analysis.switched import SwitchedSimulation
from trtcompile.ptq.batches import FittedBatch, fit_batches

CPU = torch.device("cpu")


class FixedScales(Calibrator):
    """A scale for each tensor that does not depend on which other tensors are quantized."""

    def __init__(self, scales: Mapping[str, float] | None = None, default: float = 0.02) -> None:
        self.scales = scales or {}
        self.default = default

    def calibrate(self, request: Any) -> CalibrationTable:
        scales = {name: self.scales.get(name, self.default) for name in request.names}
        return CalibrationTable(scales, algo=CalibrationAlgo.MINMAX_CALIBRATION)


def simulated(model: nn.Module, inputs: Any, data: Any = None, **options: Any) -> Simulation:
    """The simulation of a model, calibrated by min-max on ``data``, or with fixed scales."""
    calibrator = (
        FixedScales()
        if data is None
        else DataLoaderCalibrator(data, algo_type=CalibrationAlgo.MINMAX_CALIBRATION)
    )
    options = {"calibrator": calibrator, "enabled_precisions": {torch.int8}, **options}
    return trtcompile.simulate(
        model.eval(), inputs, device=build_device(), min_block_size=1, **options
    )


def switched(simulation: Simulation) -> tuple[SwitchedSimulation, QuantizedLayers]:
    layers = QuantizedLayers(simulation.lowered)
    return SwitchedSimulation(simulation.lowered, layers, CPU), layers


def fitted(simulation: Simulation, *tensors: Tensor) -> FittedBatch:
    (batch,) = fit_batches([tensors], simulation.arguments, CPU)
    return batch


def fake_quantized(x: Tensor, scale: float | Tensor, low: int = -128) -> Tensor:
    return (x / scale).round().clamp(low, 127) * scale


def fake_quantized_weight(weight: Tensor) -> Tensor:
    """Per output channel, symmetric from -127 to 127."""
    weight = weight.detach()
    amax = weight.flatten(1).abs().amax(dim=1)
    scale = (amax / 127).reshape(-1, *[1] * (weight.dim() - 1))
    return fake_quantized(weight, scale, -127)


def sqnr(reference: Tensor, actual: Tensor) -> float:
    """In dB, by the formula."""
    reference, actual = reference.detach().double(), actual.detach().double()
    return float(10 * torch.log10((reference**2).sum() / ((actual - reference) ** 2).sum()))


def centred_sqnr(reference: Tensor, actual: Tensor) -> float:
    """In dB, by the formula."""
    reference, actual = reference.detach().double(), actual.detach().double()
    signal = ((reference - reference.mean(dim=0)) ** 2).sum()
    return float(10 * torch.log10(signal / ((actual - reference) ** 2).sum()))
