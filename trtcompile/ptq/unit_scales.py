"""``UnitScales``: a calibrator without data, for questions to which the scales do not matter."""

from __future__ import annotations

import torch

from trtcompile.ptq.algorithms import CalibrationAlgo
from trtcompile.ptq.calibrators import Calibrator
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable


class UnitScales(Calibrator):
    """Gives every tensor the scale 1."""

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """A table of ones."""
        scales = dict.fromkeys(request.names, 1.0)
        return CalibrationTable(scales, algo=CalibrationAlgo.MINMAX_CALIBRATION, provenance=None)

    def channel_maxima(self, request: CalibrationRequest) -> dict[str, torch.Tensor]:
        """Ones."""
        return {n: torch.ones(node.meta["val"].shape[-1]) for n, node in request.nodes.items()}
