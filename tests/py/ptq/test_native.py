"""Calibrators that were written for TensorRT, with host memory in the place of a GPU's."""

from __future__ import annotations

import ctypes
import dataclasses
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from small_requests import SmallNet, make_request

from trtcompile import ptq
from trtcompile.errors import CalibrationError, CalibrationWarning, SettingsError
from trtcompile.inputs import Input
from trtcompile.ptq import CacheCalibrator, CalibrationAlgo, DataLoaderCalibrator
from trtcompile.ptq import native as native_module
from trtcompile.ptq.cache_file import format_text, parse_text
from trtcompile.ptq.native import as_calibrator
from trtcompile.ptq.request import CalibrationRequest

IMAGES = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3


def derived(base: type[Any], batch: int = 5, **methods: Any) -> Any:
    """An object as users of TensorRT write it."""

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)
            self.cache: bytes | None = None
            self.written: bytes | None = None
            self.asked: list[Sequence[str]] = []
            self.batches = iter(IMAGES.split(batch))

        def get_batch_size(self) -> int:
            return batch

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            self.asked.append(names)
            self.current = next(self.batches, None)
            return None if self.current is None else [self.current.data_ptr()]

        def read_calibration_cache(self) -> bytes | None:
            return self.cache

        def write_calibration_cache(self, cache: bytes) -> None:
            self.written = bytes(cache)

        def get_quantile(self) -> float:
            return 0.99

        def get_regression_cutoff(self) -> float:
            return 1.0

    for name, method in methods.items():
        setattr(Calibrator, name, method)
    return Calibrator()


@pytest.fixture
def request_(monkeypatch: pytest.MonkeyPatch) -> CalibrationRequest:
    """A request for a "GPU", whose memory is the host's."""

    def read(address: int, given: Input, batch_size: int, device: torch.device) -> torch.Tensor:
        shape = (batch_size, *given.opt_shape[1:])
        count = int(torch.Size(shape).numel())
        memory = (ctypes.c_float * count).from_address(address)
        return torch.frombuffer(memory, dtype=torch.float32).reshape(shape)

    monkeypatch.setattr(native_module, "read_device_buffer", read)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr("trtcompile.ptq.calibrators.usable_device", lambda *_: torch.device("cpu"))
    return dataclasses.replace(make_request(SmallNet()), device=torch.device("cuda", 0))


@pytest.mark.parametrize(
    ("base", "algo"),
    [
        (ptq.IInt8EntropyCalibrator2, CalibrationAlgo.ENTROPY_CALIBRATION_2),
        (ptq.IInt8EntropyCalibrator, CalibrationAlgo.ENTROPY_CALIBRATION),
        (ptq.IInt8MinMaxCalibrator, CalibrationAlgo.MINMAX_CALIBRATION),
    ],
)
@pytest.mark.parametrize("batch", [1, 4, 20])
def test_the_table_is_that_of_a_loader(
    base: type[Any], algo: CalibrationAlgo, batch: int, request_: CalibrationRequest
) -> None:
    calibrator = derived(base, batch)
    table = as_calibrator(calibrator).calibrate(request_)
    loader = DataLoaderCalibrator([IMAGES], algo_type=algo).calibrate(make_request(SmallNet()))
    assert dict(table) == dict(loader) and table.algo is algo
    assert parse_text(calibrator.written, "written") == (dict(table), algo)
    assert calibrator.asked[0] == ["input_0"]


def test_a_batch_is_done_with_before_the_next_is_written(
    request_: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calibrators write all batches to the same place, and kernels that count may still be on their way."""
    happened: list[str] = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: happened.append("wait"))
    calibrator = derived(ptq.IInt8EntropyCalibrator2)
    get_batch = calibrator.get_batch

    def noted(names: Sequence[str]) -> list[int] | None:
        happened.append("batch")
        addresses: list[int] | None = get_batch(names)
        return addresses

    monkeypatch.setattr(calibrator, "get_batch", noted)
    as_calibrator(calibrator).calibrate(request_)
    assert happened == ["wait", "batch", "wait"] * 4 + ["wait", "batch"]


@pytest.mark.parametrize("cutoff", [0.5, 1.0])
def test_legacy_takes_its_numbers_from_the_calibrator(
    cutoff: float, request_: CalibrationRequest
) -> None:
    calibrator = derived(
        ptq.IInt8LegacyCalibrator,
        get_quantile=lambda self: 0.8,
        get_regression_cutoff=lambda self: cutoff,
    )
    table = as_calibrator(calibrator).calibrate(request_)
    algo = CalibrationAlgo.LEGACY_CALIBRATION
    options = {"quantile": 0.8, "regression_cutoff": cutoff}
    loader = DataLoaderCalibrator([IMAGES], algo_type=algo, algo_options=options)
    assert dict(table) == dict(loader.calibrate(make_request(SmallNet())))
    assert dict(table) != dict(loader.table(algo))
    assert calibrator.written.startswith(b"TRT-100600-LegacyCalibration\n")


def test_a_cache_is_read_instead_of_data(request_: CalibrationRequest) -> None:
    first = derived(ptq.IInt8MinMaxCalibrator)
    table = as_calibrator(first).calibrate(request_)
    second = derived(ptq.IInt8MinMaxCalibrator)
    second.cache = first.written
    with pytest.warns(CalibrationWarning, match="used unverified: nothing in it says"):
        assert as_calibrator(second).calibrate(request_) == table
    assert second.asked == [] and second.written is None


def test_a_cache_that_does_not_fit_is_a_warning_and_the_data_is_run(
    request_: CalibrationRequest,
) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator)
    calibrator.cache = b"TRT-100600-MinMaxCalibration\nother: 3c010204\n"
    with pytest.warns(CalibrationWarning, match="lacks .* tensors .* Calibrating anew"):
        table = as_calibrator(calibrator).calibrate(request_)
    assert calibrator.written == format_text(table)


def test_a_cache_that_does_not_fit_without_data_is_its_error(request_: CalibrationRequest) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch=lambda self, names: None)
    calibrator.cache = b"TRT-100600-EntropyCalibration2\nx: 3c010204\n"
    with pytest.raises(CalibrationError, match="was made with ENTROPY_CALIBRATION_2, not MINMAX"):
        as_calibrator(calibrator).calibrate(request_)
    calibrator.cache = None
    with pytest.raises(CalibrationError, match="gave no batch"):
        as_calibrator(calibrator).calibrate(request_)


def test_names_of_inputs_are_given(request_: CalibrationRequest) -> None:
    named = (Input((1, 3, 32, 32), name="image"),)
    calibrator = derived(ptq.IInt8MinMaxCalibrator)
    as_calibrator(calibrator).calibrate(dataclasses.replace(request_, arguments=named))
    assert calibrator.asked[0] == ["image"]


def test_a_wrong_number_of_addresses(request_: CalibrationRequest) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch=lambda self, names: [8, 16])
    with pytest.raises(CalibrationError, match="2 addresses for 1 inputs"):
        as_calibrator(calibrator).calibrate(request_)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (5, "gave a int"),
        ([0], "gave the address 0"),
        ([IMAGES], "gave a Tensor"),
        (IMAGES[0, 0, 0, :1], "gave a Tensor"),
        (["0x7f"], "gave a str"),
        (np.array([8, 16]), "gave 2 addresses"),
    ],
)
def test_what_are_no_addresses(given: Any, said: str, request_: CalibrationRequest) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch=lambda self, names: given)
    with pytest.raises(CalibrationError, match=said):
        as_calibrator(calibrator).calibrate(request_)


@pytest.mark.parametrize("end", ["StopIteration", None, [], 0])
def test_the_end_of_the_data(end: Any, request_: CalibrationRequest) -> None:
    """TensorRT takes an exception for the end, so that calibrators get away with an iterator's own."""

    def get_batch(self: Any, names: Sequence[str]) -> Any:
        self.current = next(self.batches) if end == "StopIteration" else next(self.batches, None)
        return end if self.current is None else np.array([self.current.data_ptr()])

    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch=get_batch)
    expected = as_calibrator(derived(ptq.IInt8MinMaxCalibrator)).calibrate(request_)
    assert as_calibrator(calibrator).calibrate(request_) == expected


@pytest.mark.parametrize("size", [0, -1, None, "5"])
def test_what_is_no_batch_size(size: Any, request_: CalibrationRequest) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch_size=lambda self: size)
    with pytest.raises(CalibrationError, match=rf"get_batch_size\(\) gave {size!r}"):
        as_calibrator(calibrator).calibrate(request_)


def test_fewer_samples_than_tensorrt_would_read_are_a_warning(
    request_: CalibrationRequest,
) -> None:
    """TensorRT 10 reads as many as the engine has, whatever the calibrator says, which is often 1."""
    engine = (Input((5, 3, 32, 32)),)
    request = dataclasses.replace(request_, arguments=engine)
    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch_size=lambda self: 1)
    with pytest.warns(CalibrationWarning, match="gave 1, and the engine has 5 samples: 1 of each"):
        as_calibrator(calibrator).calibrate(request)


def test_inputs_that_belong_to_the_batch_as_a_whole(
    request_: CalibrationRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: list[list[int]] = []
    read = native_module.read_device_buffer

    def noted(address: int, given: Input, size: int, device: torch.device) -> torch.Tensor:
        shapes.append([size, *given.opt_shape[1:]])
        return read(address, given, size, device)

    monkeypatch.setattr(native_module, "read_device_buffer", noted)
    arguments = (Input((2, 3, 32, 32)), Input((7, 32)), Input((2, 32)))
    request = dataclasses.replace(request_, arguments=arguments)

    def get_batch(self: Any, names: Sequence[str]) -> list[int]:
        return [IMAGES.data_ptr()] * 3

    calibrator = derived(ptq.IInt8MinMaxCalibrator, get_batch=get_batch)
    with pytest.raises(CalibrationError):  # the model takes one input
        as_calibrator(calibrator).calibrate(request)
    assert shapes[:3] == [[5, 3, 32, 32], [7, 32], [5, 32]]


def test_text_is_no_cache(request_: CalibrationRequest) -> None:
    calibrator = derived(ptq.IInt8MinMaxCalibrator)
    calibrator.cache = "TRT-100600-MinMaxCalibration\n"
    with pytest.warns(CalibrationWarning, match="gave a str, not bytes. .* Calibrating anew"):
        table = as_calibrator(calibrator).calibrate(request_)
    assert calibrator.written == format_text(table)


def test_a_cache_that_cannot_be_kept_costs_no_calibration(request_: CalibrationRequest) -> None:
    def full(self: Any, cache: bytes) -> None:
        raise OSError("disk full")

    calibrator = derived(ptq.IInt8MinMaxCalibrator, write_calibration_cache=full)
    with pytest.warns(CalibrationWarning, match=r"write_calibration_cache\(\) failed: OSError"):
        table = as_calibrator(calibrator).calibrate(request_)
    assert table == as_calibrator(derived(ptq.IInt8MinMaxCalibrator)).calibrate(request_)


def test_an_algorithm_by_its_name(request_: CalibrationRequest) -> None:
    def algorithm(name: str) -> Any:
        return lambda self: SimpleNamespace(name=name)  # as TensorRT's enumeration

    calibrator = derived(ptq.IInt8EntropyCalibrator, get_algorithm=algorithm("MINMAX_CALIBRATION"))
    assert as_calibrator(calibrator).calibrate(request_).algo is CalibrationAlgo.MINMAX_CALIBRATION
    calibrator = derived(ptq.IInt8EntropyCalibrator, get_algorithm=algorithm("NONE"))
    with pytest.raises(CalibrationError, match="gave 'NONE', which is none of"):
        as_calibrator(calibrator).calibrate(request_)


def test_without_a_gpu_it_says_so() -> None:
    calibrator = derived(ptq.IInt8EntropyCalibrator2)
    with pytest.raises(CalibrationError, match="hands out addresses on a GPU"):
        as_calibrator(calibrator).calibrate(make_request(SmallNet()))


def test_what_is_no_calibrator() -> None:
    ours = CacheCalibrator("calibration.cache")
    assert as_calibrator(ours) is ours
    half = SimpleNamespace(get_batch=lambda names: None)
    with pytest.raises(SettingsError, match="lacks get_algorithm, get_batch_size, read_calib"):
        as_calibrator(half)


def test_the_classes_are_abstract() -> None:
    for base in (
        ptq.IInt8EntropyCalibrator,
        ptq.IInt8EntropyCalibrator2,
        ptq.IInt8LegacyCalibrator,
        ptq.IInt8MinMaxCalibrator,
    ):
        with pytest.raises(TypeError, match="abstract"):
            base()  # type: ignore[abstract]
