"""The one place that imports TensorRT: which flavour is installed, its version, and what it can do.

Nothing here runs at import; ``load()`` imports the first flavour that is installed.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from trtcompile.errors import TensorRTMissingError

_log = logging.getLogger("trtcompile.tensorrt")

# TensorRT runs what it builds; TensorRT-RTX is the choice where no datacentre TensorRT is installed.
_PACKAGES = (("tensorrt", "TensorRT"), ("tensorrt_rtx", "TensorRT-RTX"))


@dataclass(frozen=True)
class Flavour:
    """An installed TensorRT: its module, and what only some flavours have, as flags.

    Attributes:
        trt: the imported package.
        name: ``"TensorRT"`` or ``"TensorRT-RTX"``.
        version: its version.
        builds_ahead_of_time: whether it builds for named compute capabilities without that GPU.
        has_strongly_typed_flag: whether strong typing must be asked for.
        has_native_calibrators: whether it can calibrate by itself.
        measures_kernels: whether a build times kernels on the GPU, so that there are timings to cache.
        keeps_int8_weights: whether weights that are dequantized for floating-point products stay INT8 in a plan.
    """

    trt: Any
    name: str
    version: str

    @property
    def builds_ahead_of_time(self) -> bool:
        return hasattr(self.trt, "ComputeCapability")

    @property
    def has_strongly_typed_flag(self) -> bool:
        return hasattr(self.trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED")

    @property
    def measures_kernels(self) -> bool:
        # A flavour that builds without a GPU chooses kernels where the engine is loaded; its timing caches stay empty.
        return not self.builds_ahead_of_time

    @property
    def keeps_int8_weights(self) -> bool:
        # TensorRT 10.6 dequantizes them when it builds: the plan of a 4096x4096 layer has 33.6 MB, as in FP16, and it
        # takes as long (10 us at batch 1 and 16, on an H200). It keeps INT4: 8.8 MB, 18 us. TensorRT-RTX keeps both.
        return self.builds_ahead_of_time

    @property
    def has_native_calibrators(self) -> bool:
        return hasattr(self.trt, "IInt8EntropyCalibrator2")

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@functools.cache
def load() -> Flavour:
    """Imports the installed TensorRT.

    Raises:
        TensorRTMissingError: neither ``tensorrt`` nor ``tensorrt_rtx`` is installed.
    """
    for package, name in _PACKAGES:
        if importlib.util.find_spec(package) is not None:
            module = importlib.import_module(package)
            return Flavour(trt=module, name=name, version=str(module.__version__))
    raise TensorRTMissingError(
        "neither tensorrt nor tensorrt_rtx is installed. Run `pip install 'trtcompile[tensorrt]'` on a machine with a "
        "GPU, or `pip install 'trtcompile[rtx]'` to build for RTX GPUs on any machine."
    )


class _LazyModule:
    """Stands for the TensorRT module and imports it at the first attribute access."""

    def __getattr__(self, name: str) -> Any:
        return getattr(load().trt, name)


trt: Any = _LazyModule()


def new_logger() -> Any:
    """A TensorRT logger that passes lines to ``logging``, and keeps warnings and errors: ``lines``, ``errors``."""

    class KeepingLogger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.lines: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            levels = {
                trt.ILogger.Severity.INTERNAL_ERROR: logging.ERROR,
                trt.ILogger.Severity.ERROR: logging.ERROR,
                trt.ILogger.Severity.WARNING: logging.WARNING,
                trt.ILogger.Severity.INFO: logging.INFO,
            }
            level = levels.get(severity, logging.DEBUG)
            if level >= logging.WARNING:
                self.lines.append(message)
            if level >= logging.ERROR:
                self.errors.append(message)
            # Only errors are raised to the user, who gets them in an exception; the log is for whoever looks.
            _log.log(min(level, logging.INFO), message)

    return KeepingLogger()


@contextlib.contextmanager
def builder_library_kept() -> Iterator[None]:
    """Keeps TensorRT's kernel library loaded from one build to the next.

    The first builder of a process loads it and the last one unloads it, which takes seconds each time; the library
    takes 2 GB, too much to keep it longer than a compilation.
    """
    builder = trt.Builder(new_logger())
    yield
    del builder


def gpu_capability(gpu_id: int) -> str | None:
    """The compute capability, such as ``"9.0"``, of a GPU of this machine; None where there is no such GPU."""
    if not torch.cuda.is_available() or gpu_id >= torch.cuda.device_count():
        return None
    major, minor = torch.cuda.get_device_capability(gpu_id)
    return f"{major}.{minor}"
