"""The exceptions: their bases, and that every one can be caught by its public name."""

from __future__ import annotations

import copy
import inspect

import pytest

import trtcompile
from trtcompile import errors

CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and issubclass(cls, (Exception, Warning))
}


@pytest.mark.parametrize("name", CLASSES)
def test_public(name: str) -> None:
    assert getattr(trtcompile, name) is CLASSES[name]
    assert name in trtcompile.__all__
    assert CLASSES[name].__doc__


@pytest.mark.parametrize("name", CLASSES)
def test_one_base_catches_all(name: str) -> None:
    base = errors.TRTCompileWarning if name.endswith("Warning") else errors.TRTCompileError
    assert issubclass(CLASSES[name], base)


@pytest.mark.parametrize(
    ("error", "builtin"),
    [
        (errors.SettingsError, ValueError),
        (errors.InputMismatchError, ValueError),
        (errors.EngineLoadError, RuntimeError),
        (errors.StaleWeightsError, RuntimeError),
        (errors.AutogradError, RuntimeError),
        (errors.TensorRTMissingError, ImportError),
        (errors.TRTCompileWarning, UserWarning),
    ],
)
def test_builtin_bases(error: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(error, builtin)


def test_the_report_travels_with_the_error() -> None:
    error = errors.UnsupportedGraphError("nothing", {"a": 1})
    assert error.report == {"a": 1}
    assert errors.UnsupportedGraphError("nothing").report is None
    assert str(copy.copy(error)) == "nothing"
