"""trtcompile: from a PyTorch model to NVIDIA TensorRT engines, INT8 included.

Importing this package imports no TensorRT; the first compilation does.
"""

from trtcompile import ptq
from trtcompile.accuracy_budget import compile_within_budget
from trtcompile.compiler import (
    compile,  # noqa: A004 (the public name, as in torch.compile)
    dry_run,
    simulate,
)
from trtcompile.conversion import converter
from trtcompile.dims import Dim
from trtcompile.errors import (
    AutogradError,
    CalibrationError,
    CalibrationWarning,
    ConversionError,
    EngineBuildError,
    EngineLoadError,
    InputMismatchError,
    LoweringError,
    PrecisionWarning,
    RegistrationError,
    SettingsError,
    StaleWeightsError,
    TensorRTMissingError,
    TRTCompileError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.inputs import Input
from trtcompile.lowering import lowering_pass
from trtcompile.output_parity import OutputParity, output_parity
from trtcompile.parity import layer_parity
from trtcompile.partition import PartitionReport
from trtcompile.runtime import TRTModule
from trtcompile.runtime.serialization import load, save
from trtcompile.settings import CompileSpec, Device, DeviceType

__all__ = [
    "AutogradError",
    "CalibrationError",
    "CalibrationWarning",
    "CompileSpec",
    "ConversionError",
    "Device",
    "DeviceType",
    "Dim",
    "EngineBuildError",
    "EngineLoadError",
    "Input",
    "InputMismatchError",
    "LoweringError",
    "OutputParity",
    "PartitionReport",
    "PrecisionWarning",
    "RegistrationError",
    "SettingsError",
    "StaleWeightsError",
    "TRTCompileError",
    "TRTCompileWarning",
    "TRTModule",
    "TensorRTMissingError",
    "UnsupportedGraphError",
    "compile",
    "compile_within_budget",
    "converter",
    "dry_run",
    "layer_parity",
    "load",
    "lowering_pass",
    "output_parity",
    "ptq",
    "save",
    "simulate",
]
