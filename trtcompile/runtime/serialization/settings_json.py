"""The settings of a compiled module <-> JSON."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq import CalibrationTable, Calibrator
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.runtime.serialization.json_values import as_dtype, as_list, as_mapping, as_text
from trtcompile.settings import CompileSpec, Device, DeviceType


class SavedCalibrator(Calibrator):
    """Stands in a loaded module's settings for the calibrator that it was compiled with.

    It has that calibrator's scales and no data, so it serves the same model with the same weights only: compiling
    that again with ``spec=loaded.spec``, for another GPU perhaps, needs no calibration.

    Args:
        description: the original calibrator's ``repr``.
        table: its scales; None if nothing could be quantized.
    """

    def __init__(self, description: str, table: CalibrationTable | None) -> None:
        self.description = description
        self._table = table

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """The saved scales.

        Raises:
            CalibrationError: they are not known to be for the request's graph.
        """
        table = self._table
        provenance = None if table is None else table.provenance
        origin = "an unknown graph" if provenance is None else f"the graph {provenance.graph_hash}"
        fits = provenance is not None and provenance.graph_hash == request.graph_hash
        if table is None or not fits or any(name not in table for name in request.names):
            raise CalibrationError(
                f"the settings come from a loaded module, whose scales are for {origin}, and the model to compile is "
                f"the graph {request.graph_hash}. Pass a calibrator for this model."
            )
        scales = {name: table[name] for name in request.names}
        return CalibrationTable(scales, algo=table.algo, provenance=provenance)

    def __repr__(self) -> str:
        return f"SavedCalibrator({self.description!r})"


def settings_to_json(spec: CompileSpec) -> dict[str, Any]:
    """``CompileSpec.describe()``, with the calibrator that the scales once came from."""
    described = spec.describe()
    if isinstance(spec.calibrator, SavedCalibrator):
        described["calibrator"] = spec.calibrator.description
    return described


def settings_from_json(value: Any, table: CalibrationTable | None) -> CompileSpec:
    """The settings that a description stands for.

    What ``describe`` leaves out, because it shows in no engine, has its default; ``keep_lowered`` is False, since a
    loaded module has no lowered graph.

    Raises:
        MalformedError: the description is malformed.
        SettingsError: it has an option that is unknown or refused.
    """
    options = as_mapping(value)
    device = as_mapping(options.pop("device", None))
    calibrator = options.pop("calibrator", None)
    precisions = [as_dtype(name) for name in as_list(options.pop("enabled_precisions", None))]
    kind = DeviceType.__members__.get(as_text(device.pop("device_type", None)))
    return CompileSpec.from_options(
        {
            **options,
            "enabled_precisions": frozenset(precisions),
            "calibrator": None
            if calibrator is None
            else SavedCalibrator(as_text(calibrator), table),
            "device": Device.from_any({**device, "device_type": kind}),
            "keep_lowered": False,
        }
    )


def placed_on(spec: CompileSpec, device: Any, capabilities: tuple[str, ...]) -> CompileSpec:
    """The settings with another GPU to run on.

    Args:
        spec: the saved settings.
        device: anything that ``Device.from_any`` reads; None leaves them as they are. Only ``gpu_id`` may differ from
            what was saved: the rest is built into the engines. Fields of a ``Device`` that have their default say
            nothing.
        capabilities: what the engines were built for.

    Raises:
        SettingsError: the device is malformed, or contradicts the saved one.
    """
    if device is None:
        return spec
    given = Device.from_any(device)
    states_tf32 = "disable_tf32" in device if isinstance(device, Mapping) else given.disable_tf32
    if given.compute_capability is not None and set(given.compute_capabilities) != set(
        capabilities
    ):
        raise SettingsError(
            f"device has the compute_capability {', '.join(given.compute_capabilities)}, but the saved engines were "
            f"built for {', '.join(capabilities)}. Leave it out, or compile the model for that device."
        )
    if states_tf32 and given.disable_tf32 != spec.device.disable_tf32:
        raise SettingsError(
            f"device has disable_tf32={given.disable_tf32}, but the saved engines were built with "
            f"disable_tf32={spec.device.disable_tf32}. Leave it out, or compile the model again."
        )
    return dataclasses.replace(spec, device=dataclasses.replace(spec.device, gpu_id=given.gpu_id))
