"""Which TensorRT is installed, what it can do, and what is said where it is missing."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import trtcompile
from trtcompile import CompileSpec, Device, Input, SettingsError, TensorRTMissingError, _tensorrt
from trtcompile.engine import check_buildable

HAS_RTX = importlib.util.find_spec("tensorrt_rtx") is not None
needs_rtx = pytest.mark.skipif(
    not HAS_RTX or importlib.util.find_spec("tensorrt") is not None,
    reason="builds ahead of time: pip install 'trtcompile[rtx]', without tensorrt",
)


@pytest.fixture
def fresh_flavour() -> Iterator[None]:
    """Lets ``load`` look again, in the test and after it."""
    _tensorrt.load.cache_clear()
    yield
    _tensorrt.load.cache_clear()


class Untraceable(nn.Module):
    """Fails if anything runs it."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the model was run")


class TestMissing:
    @pytest.fixture(autouse=True)
    def no_tensorrt(self, fresh_flavour: None, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)

    def test_load_names_both_commands(self) -> None:
        with pytest.raises(TensorRTMissingError) as caught:
            _tensorrt.load()
        assert "pip install 'trtcompile[tensorrt]'" in str(caught.value)
        assert "pip install 'trtcompile[rtx]'" in str(caught.value)

    def test_compile_says_so_before_any_work(self) -> None:
        with pytest.raises(TensorRTMissingError):
            trtcompile.compile(Untraceable(), [Input((1,))])

    def test_an_engine_from_elsewhere_cannot_run(self) -> None:
        from trtcompile.engine import Provenance
        from trtcompile.runtime import why_not_runnable

        reason = why_not_runnable(Provenance("TensorRT", "10.6.0", ("9.0",), "H200"), 0)
        assert reason is not None
        assert "TensorRT 10.6.0 for compute capability 9.0" in reason
        assert "no TensorRT" in reason


class TestFound:
    def test_tensorrt_goes_before_rtx(
        self, fresh_flavour: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        modules = {
            "tensorrt": SimpleNamespace(__version__="1"),
            "tensorrt_rtx": SimpleNamespace(__version__="2"),
        }
        monkeypatch.setattr(importlib.util, "find_spec", modules.get)
        monkeypatch.setattr(importlib, "import_module", lambda name: modules[name])
        assert str(_tensorrt.load()) == "TensorRT 1"
        del modules["tensorrt"]
        _tensorrt.load.cache_clear()
        assert str(_tensorrt.load()) == "TensorRT-RTX 2"

    @pytest.mark.parametrize(
        ("attributes", "flags"),
        [
            ({}, (False, True, False)),
            ({"ComputeCapability": 1}, (True, False, False)),
            ({"IInt8EntropyCalibrator2": 1}, (False, True, True)),
        ],
    )
    def test_flags_follow_what_the_package_has(
        self, attributes: dict[str, Any], flags: tuple[bool, bool, bool]
    ) -> None:
        module = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(), **attributes)
        flavour = _tensorrt.Flavour(trt=module, name="TensorRT", version="1")
        assert not flavour.has_strongly_typed_flag
        assert (
            flavour.builds_ahead_of_time,
            flavour.measures_kernels,
            flavour.has_native_calibrators,
        ) == flags
        module.NetworkDefinitionCreationFlag.STRONGLY_TYPED = 1
        assert flavour.has_strongly_typed_flag

    def test_importing_imports_no_tensorrt_and_a_compilation_does(self) -> None:
        code = (
            "import sys, torch, trtcompile\n"
            "found = lambda: sorted(m for m in sys.modules if m in ('tensorrt', 'tensorrt_rtx'))\n"
            "trtcompile.CompileSpec(); trtcompile.Input((1,)); assert found() == [], found()\n"
            "try: trtcompile.compile(torch.nn.ReLU(), [trtcompile.Input((1,))], device='cuda:7')\n"
            "except trtcompile.TRTCompileError: pass\n"
            "assert found() != []\n"
        )
        subprocess.run([sys.executable, "-W", "ignore", "-c", code], check=True)


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: None)


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: "9.0" if gpu_id == 0 else None)


def pretend(monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> None:
    """Another flavour than the installed one."""
    module = SimpleNamespace(NetworkDefinitionCreationFlag=SimpleNamespace(), **attributes)
    flavour = _tensorrt.Flavour(trt=module, name="TensorRT", version="10.6.0")
    monkeypatch.setattr(_tensorrt, "load", lambda: flavour)


class TestBuildable:
    @needs_rtx
    def test_no_gpu_and_no_named_capability(self, no_gpu: None) -> None:
        with pytest.raises(SettingsError, match=r"no such GPU.*Device\(compute_capability='8.9'\)"):
            trtcompile.compile(Untraceable(), [Input((1,))])

    def test_no_gpu_with_tensorrt(self, no_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch)
        with pytest.raises(SettingsError, match=r"no such GPU.*tensorrt-rtx"):
            trtcompile.compile(Untraceable(), [Input((1,))])

    def test_a_gpu_that_is_not_there(self, a_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
        pretend(monkeypatch)
        check_buildable(CompileSpec(device="cuda:0"))
        with pytest.raises(SettingsError, match="device is cuda:3"):
            check_buildable(CompileSpec(device="cuda:3"))

    def test_tensorrt_builds_for_its_own_gpu_alone(
        self, a_gpu: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pretend(monkeypatch)
        check_buildable(CompileSpec(device=Device(compute_capability="9.0")))
        for other in ("8.9", ("9.0", "8.9")):
            with pytest.raises(
                SettingsError, match=r"builds only for the GPU of this machine \(9.0\)"
            ):
                check_buildable(CompileSpec(device=Device(compute_capability=other)))

    @needs_rtx
    def test_an_unknown_capability_lists_the_known(self) -> None:
        with pytest.raises(SettingsError) as caught:
            trtcompile.compile(
                Untraceable(), [Input((1,))], device=Device(compute_capability="9.0")
            )
        assert "9.0 is not among" in str(caught.value)
        assert all(known in str(caught.value) for known in ("7.5", "8.6", "8.9", "12.0"))

    @needs_rtx
    def test_several_capabilities_in_one_plan(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
        inputs = [Input((1, 3, 8, 8))]
        one = trtcompile.compile(model, inputs, device=Device(compute_capability="8.9"))
        both = trtcompile.compile(model, inputs, device=Device(compute_capability=("8.6", "8.9")))
        assert both.engines[0].provenance.compute_capabilities == ("8.6", "8.9")
        assert both.engines[0].provenance.gpu_name is None
        assert len(both.engines[0].plan) > len(one.engines[0].plan)


def test_log_lines_are_kept_and_passed_on(caplog: pytest.LogCaptureFixture) -> None:
    logger = _tensorrt.new_logger()
    severity = _tensorrt.load().trt.ILogger.Severity
    with caplog.at_level("DEBUG", "trtcompile.tensorrt"):
        for level in (severity.ERROR, severity.WARNING, severity.INFO, severity.VERBOSE):
            logger.log(level, level.name)
    assert logger.lines == ["ERROR", "WARNING"]
    assert logger.errors == ["ERROR"]  # a warning may name a layer that is no fault
    assert [r.message for r in caplog.records] == ["ERROR", "WARNING", "INFO", "VERBOSE"]
