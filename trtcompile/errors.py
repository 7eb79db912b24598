"""Every exception that trtcompile raises, and every warning category it issues.

One sentence says what is wrong with the values in it, one says what to do. Domain errors also inherit the
builtin that a caller would expect, so ``except ValueError`` keeps working.
"""

from __future__ import annotations

from collections.abc import Sequence


class TRTCompileError(Exception):
    """Base of every exception of this package."""


class SettingsError(TRTCompileError, ValueError):
    """An option, a device, or an ``Input`` is unknown, malformed, or contradicts another."""


class RegistrationError(TRTCompileError, TypeError, ValueError):
    """A converter or lowering pass cannot be registered as it is."""


class UnsupportedGraphError(TRTCompileError):
    """The model cannot be captured, or not enough of it can go into TensorRT.

    Attributes:
        report: the ``PartitionReport`` with every node's verdict, or None where capture itself failed.
    """

    def __init__(self, message: str, report: object | None = None) -> None:
        super().__init__(message)
        self.report = report


class LoweringError(TRTCompileError):
    """A lowering pass failed or left an invalid graph; the message names the pass."""


class ConversionError(TRTCompileError):
    """A converter failed on a node; the message has the node and the user's source line.

    Attributes:
        node: the tensor name of the node's result; None if it is no fault of one node.
    """

    def __init__(self, message: str, node: str | None = None) -> None:
        super().__init__(message)
        self.node = node


class EngineBuildError(TRTCompileError):
    """TensorRT refused a network; the message carries TensorRT's own log lines.

    Attributes:
        log: those of them that are errors.
    """

    def __init__(self, message: str, log: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.log = tuple(log)


class CalibrationError(TRTCompileError):
    """Calibration data, statistics, or a calibration table cannot be used."""


class InputMismatchError(TRTCompileError, ValueError):
    """``forward`` received inputs that do not fit those the module was compiled for."""


class EngineLoadError(TRTCompileError, RuntimeError):
    """An engine or a saved file does not fit this machine; the message names both sides."""


class StaleWeightsError(TRTCompileError, RuntimeError):
    """Parameters changed after they had become constants of an engine."""


class AutogradError(TRTCompileError, RuntimeError):
    """Gradients were asked of a compiled module, which is for inference only."""


class TensorRTMissingError(TRTCompileError, ImportError):
    """No TensorRT package is installed; the message has the command that installs one."""


class TRTCompileWarning(UserWarning):
    """Base of every warning of this package."""


class CalibrationWarning(TRTCompileWarning):
    """Calibration went on with something other than what was asked for; the message says what."""


class PrecisionWarning(TRTCompileWarning):
    """Much of the arithmetic did not get the precision that was asked for."""
