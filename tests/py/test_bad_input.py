"""The bad input that a user meets first, each with its typed error, and the user's files untouched.

The details are tested beside each part; here, that ``compile`` and ``forward`` say it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import (
    AutogradError,
    CalibrationError,
    CalibrationWarning,
    Input,
    InputMismatchError,
    SettingsError,
    TRTCompileError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.ptq import CacheCalibrator, DataLoaderCalibrator

SHAPE = (2, 3, 8, 8)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.conv(x).relu())


def compile_(**options: Any) -> trtcompile.TRTModule:
    model = options.pop("model", None) or Net().eval()
    inputs = options.pop("inputs", [Input(SHAPE)])
    return trtcompile.compile(model, inputs, **{"device": build_device(), **options})


def int8(batches: Any, **arguments: Any) -> trtcompile.TRTModule:
    return compile_(
        enabled_precisions={torch.int8}, calibrator=DataLoaderCalibrator(batches, **arguments)
    )


def with_value(value: float) -> torch.Tensor:
    x = torch.randn(SHAPE)
    x[1, 2, 3, 4] = value
    return x


SETTINGS: dict[str, dict[str, Any]] = {
    "unknown option": {"precision": torch.half},
    "int8 without a calibrator": {"enabled_precisions": {torch.int8}},
    "calibrator without int8": {"calibrator": DataLoaderCalibrator([torch.zeros(SHAPE)])},
    "cpu": {"device": "cpu"},
    "dla": {"device": {"device_type": trtcompile.DeviceType.DLA}},
    "inputs are one shape": {"inputs": SHAPE},
    "no inputs": {"inputs": []},
    "too many inputs": {"inputs": [SHAPE, SHAPE]},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name: str) -> None:
    with pytest.raises(SettingsError):
        compile_(**SETTINGS[name])


def test_min_opt_max() -> None:
    with pytest.raises(SettingsError, match=r"\(4, 3\).*\(2, 3\).*\(8, 3\).*min <= opt <= max"):
        Input(min_shape=(4, 3), opt_shape=(2, 3), max_shape=(8, 3))


@pytest.mark.parametrize(
    ("batches", "said"),
    [
        ([], "no samples"),
        ([torch.zeros(0, 3, 8, 8)], "no samples"),
        ([torch.randn(2, 1, 8, 8)], r"\[2, 1, 8, 8\] float32.*\[2, 3, 8, 8\] float32"),
        ([torch.randn(3, 8)], r"\[3, 8\] float32"),
        ([torch.randn(SHAPE).double()], "float64"),
        ([torch.zeros(SHAPE, dtype=torch.uint8)], "uint8"),
        ([{"label": 3}], "has a int for input 0|int"),
        (["text"], "str"),
        ([with_value(float("nan"))], "'input_0'.*"),
        ([torch.randn(SHAPE), with_value(float("inf"))], "'input_0', batch 1"),
    ],
)
def test_calibration_data(batches: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(b"the user's own")
    with pytest.raises(CalibrationError, match=said):
        int8(batches, cache_file=path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {path.name: b"the user's own"}


def test_activations_that_become_infinite_name_their_tensor() -> None:
    model = Net().eval()
    with torch.no_grad():
        model.conv.weight.fill_(3e38)
    with pytest.raises(CalibrationError, match=r"'(convolution|relu)'"):
        compile_(
            model=model,
            enabled_precisions={torch.int8},
            calibrator=DataLoaderCalibrator([torch.randn(SHAPE)]),
        )


def test_activations_that_are_all_zero_get_a_valid_scale() -> None:
    model = Net().eval()
    with torch.no_grad():
        model.conv.weight.zero_()
        assert model.conv.bias is not None
        model.conv.bias.fill_(-1)
    compiled = compile_(
        model=model,
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator([torch.randn(SHAPE)]),
    )
    assert compiled.calibration_table is not None
    assert 0 < compiled.calibration_table["relu"] < 1e-3
    x = torch.randn(SHAPE)
    with torch.no_grad():
        torch.testing.assert_close(compiled.lowered(x), model(x), rtol=0.02, atol=0.02)


CACHES = {
    "empty": b"",
    "no cache": b"hello",
    "binary": bytes(range(256)),
    "broken line": b"TRT-100600-EntropyCalibration2\ninput_0: 3c0102\n",
    "negative scale": b"TRT-100600-EntropyCalibration2\ninput_0: bc010204\n",
    "lacks tensors": b"TRT-100600-EntropyCalibration2\ninput_0: 3c010204\n",
    "another algorithm": b"TRT-100600-MinMaxCalibration\ninput_0: 3c010204\nrelu: 3c010204\n",
}


@pytest.mark.parametrize("name", CACHES)
def test_cache_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(CACHES[name])
    with pytest.raises(CalibrationError, match=r"calibration.cache"):
        compile_(enabled_precisions={torch.int8}, calibrator=CacheCalibrator(path))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {path.name: CACHES[name]}


def test_a_cache_from_elsewhere_is_used_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(b"TRT-100600-EntropyCalibration2\ninput_0: 3d010204\nrelu: 3d010204\n")
    with pytest.warns(CalibrationWarning, match="unverified"):
        compiled = compile_(enabled_precisions={torch.int8}, calibrator=CacheCalibrator(path))
    assert list(compiled.calibration_table or ()) == ["input_0", "relu"]


def test_a_missing_cache_file(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"nowhere.cache.*cannot be read"):
        compile_(
            enabled_precisions={torch.int8}, calibrator=CacheCalibrator(tmp_path / "nowhere.cache")
        )
    assert list(tmp_path.iterdir()) == []


class TestForward:
    @pytest.fixture
    def compiled(self, monkeypatch: pytest.MonkeyPatch) -> trtcompile.TRTModule:
        install_oracle(monkeypatch)
        return compile_()

    @pytest.mark.parametrize(
        "make",
        [
            lambda: torch.randn(1, 3, 8, 8),
            lambda: torch.randn(SHAPE).half(),
            lambda: torch.randn(SHAPE, device="meta"),
            lambda: [torch.randn(SHAPE)],
            lambda: None,
        ],
        ids=["shape", "dtype", "device", "structure", "none"],
    )
    def test_mismatch(self, compiled: trtcompile.TRTModule, make: Any) -> None:
        with pytest.raises(InputMismatchError):
            compiled(make())

    def test_autograd(self, compiled: trtcompile.TRTModule) -> None:
        with pytest.raises(AutogradError):
            compiled(torch.randn(SHAPE, requires_grad=True))

    @pytest.mark.parametrize(
        "make",
        [lambda x: x.to(memory_format=torch.channels_last), lambda x: x.transpose(2, 3)],
        ids=["channels_last", "transposed"],
    )
    def test_any_strides_work(self, make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        install_oracle(monkeypatch)
        model = Net().eval()
        x = make(torch.randn(SHAPE))
        with torch.no_grad():
            torch.testing.assert_close(compile_(model=model)(x), model(x), rtol=1e-4, atol=1e-5)


def test_train_mode() -> None:
    with pytest.warns(TRTCompileWarning, match="train mode"):
        compile_(model=Net().train())


def test_nothing_for_tensorrt() -> None:
    with pytest.raises(UnsupportedGraphError) as caught:
        compile_(torch_executed_ops={"aten.convolution", "aten.relu"})
    assert caught.value.report is not None


@pytest.mark.parametrize("kind", [None, 3, "model", torch.relu, Net])
def test_something_else_for_a_model(kind: Any) -> None:
    with pytest.raises(TRTCompileError, match=r"not an nn.Module"):
        trtcompile.compile(kind, [Input(SHAPE)], device=build_device())


def test_a_scripted_module() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted = torch.jit.script(nn.ReLU().eval())
    for model, said in ((scripted, "the model is a"), (nn.Sequential(scripted), "module '0' is a")):
        with pytest.raises(UnsupportedGraphError, match=rf"{said}.*ScriptModule"):
            compile_(model=model.eval())


def test_weights_without_values() -> None:
    with torch.device("meta"):
        model = Net().eval()
    with pytest.raises(UnsupportedGraphError, match=r"'\w+\.weight' is on the meta device"):
        compile_(model=model)
