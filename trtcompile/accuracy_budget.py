"""``compile_within_budget``: INT8 wherever a metric bears it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from trtcompile.compiler import (
    Simulation,
    compile,  # noqa: A004 (the public name, as in torch.compile)
    simulate_borrowing,
)
from trtcompile.engine import check_buildable
from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq.analysis import BudgetSearch, within_budget
from trtcompile.ptq.analysis.budget import check_search
from trtcompile.ptq.analysis.layers import QuantizedLayers
from trtcompile.ptq.analysis.scores import Metric
from trtcompile.ptq.calibrators import Calibrator, channel_maxima_of, table_of
from trtcompile.ptq.native import as_calibrator
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable
from trtcompile.runtime import TRTModule
from trtcompile.settings import CompileSpec


def compile_within_budget(
    model: nn.Module | ExportedProgram,
    inputs: Sequence[Any] = (),
    *,
    loader: Iterable[Any],
    metric: Metric,
    budget: float,
    higher_is_better: bool = True,
    max_batches: int | None = None,
    kwarg_inputs: Mapping[str, Any] | None = None,
    spec: CompileSpec | None = None,
    **options: Any,
) -> tuple[TRTModule, BudgetSearch]:
    """Compiles in INT8 or FP8 with the fewest layers in higher precision that keep a metric within a budget.

    The search (``trtcompile.ptq.within_budget``) runs on the simulation, and nothing is built before it ends. Leaving
    layers out may let the others share other scales or add other residuals, so the model is then placed and calibrated
    again without them, and searched again, until nothing more has to be left out. What is compiled has the scales of
    that last simulation, whose metric was measured; so are the factors of ``smooth_quant``.

    Use other data than the calibrator's, and judge the result on data that neither has seen.

    Args:
        model: as for ``compile``.
        inputs: as for ``compile``.
        loader: yields the same batches in each pass, with labels; as for ``within_budget``, and so are the next four.
        metric: a function ``metric(outputs, batch)``, or ``"agreement"``.
        budget: how much worse than without quantization the metric may be, in its unit.
        higher_is_better: the metric's direction: False for a loss.
        max_batches: how many batches of the loader to use; None for all.
        kwarg_inputs: as for ``compile``.
        spec: settings; ``options`` are applied on top. ``int8_excluded_nodes`` among them stay excluded.
        **options: the fields of ``CompileSpec``, with ``torch.int8`` or ``torch.float8_e4m3fn``, and a calibrator.

    Returns:
        The compiled module, and the search: the metric that was measured, and the names of the layers it left out.

    Raises:
        SettingsError: an option is unknown, malformed, or contradicts another, neither INT8 nor FP8 is enabled, or
            there is no calibrator (such as for a model that comes quantized, of which no layer can be left out).
        CalibrationError: the data cannot be used, nothing can be quantized, or the metric differs between runs.
        UnsupportedGraphError: see ``compile``.
        EngineBuildError: see ``compile``.
    """
    check_search(loader, metric, budget, higher_is_better, max_batches)
    settings = CompileSpec.from_options(options, spec=spec)
    check_buildable(settings)
    if settings.quantized_dtype is None or settings.calibrator is None:
        raise SettingsError(
            "an accuracy budget chooses which layers are left out of INT8, but torch.int8 or a calibrator is missing. "
            "Add both to the options (or torch.float8_e4m3fn and a calibrator)."
        )

    def searched(simulation: Simulation) -> BudgetSearch:
        return within_budget(
            simulation,
            loader,
            metric,
            budget=budget,
            higher_is_better=higher_is_better,
            max_batches=max_batches,
            device=settings.device.torch_device if torch.cuda.is_available() else None,
        )

    recording = _Recording(settings.calibrator)
    chosen = settings = dataclasses.replace(settings, calibrator=recording)
    simulation = simulate_borrowing(model, inputs, kwarg_inputs, settings)
    search = found = searched(simulation)
    while found.excluded:
        chosen = _without(settings, search.excluded)
        simulation = simulate_borrowing(model, inputs, kwarg_inputs, chosen)
        if not QuantizedLayers(simulation.lowered).layers:  # nothing is left that costs anything
            search = dataclasses.replace(search, metric=search.metric_reference, drop=0.0)
            break
        found = searched(simulation)
        search = _joined(search, found)
    if simulation.calibration_table is not None:
        chosen = dataclasses.replace(chosen, calibrator=_Recorded(recording))
    return compile(model, inputs, kwarg_inputs=kwarg_inputs, spec=chosen), search


def _without(settings: CompileSpec, names: Collection[str]) -> CompileSpec:
    """The settings with these layers left out of INT8."""
    excluded = settings.int8_excluded_nodes | frozenset(names)
    return dataclasses.replace(settings, int8_excluded_nodes=excluded)


def _joined(before: BudgetSearch, found: BudgetSearch) -> BudgetSearch:
    """A search, and the next one without the layers that it left out.

    Raises:
        CalibrationError: the next one found such a layer again, and would find it for ever.
    """
    stuck = sorted(before.excluded & found.excluded)
    if stuck:
        raise CalibrationError(
            f"leaving {', '.join(stuck)} out of INT8 has no effect, and with it the metric is not within the budget. "
            "Leave out the operators around it with int8_excluded_nodes."
        )
    later = tuple(
        dataclasses.replace(trial, excluded=before.excluded | trial.excluded)
        for trial in found.trials
    )
    return dataclasses.replace(
        found, excluded=before.excluded | found.excluded, trials=before.trials + later
    )


class _Recording(Calibrator):
    """Passes on what a calibrator gives, and keeps the last of it.

    Args:
        calibrator: as for ``CompileSpec``.
    """

    def __init__(self, calibrator: Any) -> None:
        self._calibrator = calibrator
        self.table: CalibrationTable | None = None
        self.maxima: Mapping[str, torch.Tensor] = {}

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """The calibrator's scales."""
        self.table = table_of(as_calibrator(self._calibrator), request)
        return self.table

    def channel_maxima(self, request: CalibrationRequest) -> Mapping[str, torch.Tensor]:
        """The calibrator's maxima."""
        self.maxima = channel_maxima_of(as_calibrator(self._calibrator), request)
        return self.maxima

    def __repr__(self) -> str:
        return repr(self._calibrator)


class _Recorded(Calibrator):
    """Gives what was measured with, for the graph that it was measured for."""

    def __init__(self, recording: _Recording) -> None:
        assert recording.table is not None
        self._name = repr(recording)
        self._table = recording.table
        self._maxima = recording.maxima

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """The scales of the last simulation."""
        return self._table

    def channel_maxima(self, request: CalibrationRequest) -> Mapping[str, torch.Tensor]:
        """The maxima that the last simulation was smoothed by."""
        return self._maxima

    def __repr__(self) -> str:
        return self._name
