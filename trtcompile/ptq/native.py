"""Serves a calibrator written for TensorRT: one with ``get_batch`` and the cache callbacks."""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Iterable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from trtcompile.errors import CalibrationError, CalibrationWarning, SettingsError
from trtcompile.inputs import Input, flat_inputs
from trtcompile.ptq.algorithms import CalibrationAlgo
from trtcompile.ptq.cache_file import CachedTable, format_text, parse_text
from trtcompile.ptq.cache_match import (
    check_is_native,
    has_names_of,
    matched_table,
    table_of_report,
)
from trtcompile.ptq.calibrators import Calibrator, DataLoaderCalibrator
from trtcompile.ptq.native_cache import match_cache
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable

_CALLBACKS = (
    "get_algorithm",
    "get_batch",
    "get_batch_size",
    "read_calibration_cache",
    "write_calibration_cache",
)
_SOURCE = "The cache that read_calibration_cache() gave"

#: How __cuda_array_interface__ spells dtypes.
_TYPE_STRINGS = {
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.float64: "<f8",
    torch.int64: "<i8",
    torch.int32: "<i4",
    torch.int8: "|i1",
    torch.uint8: "|u1",
    torch.bool: "|b1",
}


def as_calibrator(calibrator: Any) -> Calibrator:
    """The calibrator itself, or what serves one that was written for TensorRT.

    Raises:
        SettingsError: it is neither.
    """
    if isinstance(calibrator, Calibrator) or callable(getattr(calibrator, "calibrate", None)):
        served: Calibrator = calibrator
        return served
    missing = [name for name in _CALLBACKS if not callable(getattr(calibrator, name, None))]
    if missing:
        raise SettingsError(
            f"calibrator is a {type(calibrator).__name__}, which is no calibrator of trtcompile.ptq, and lacks "
            f"{', '.join(missing)} of TensorRT's. Use trtcompile.ptq.DataLoaderCalibrator(dataloader)."
        )
    return NativeCalibrator(calibrator)


class NativeCalibrator(Calibrator):
    """Calibrates as TensorRT would with an object of a class derived from its calibrators.

    Its ``read_calibration_cache`` is asked first; a cache that does not fit the model is a
    ``CalibrationWarning``, and the data is run. Its batches are read from the GPU until it has no
    more, in the order and with the opt shapes of the inputs, dimension 0 being its
    ``get_batch_size``. The scales then go to its ``write_calibration_cache``.

    Args:
        calibrator: has the methods of ``trtcompile.ptq.IInt8EntropyCalibrator2``.
    """

    def __init__(self, calibrator: Any) -> None:
        self.calibrator = calibrator

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """Reads the cache, or runs the batches and writes the cache.

        Raises:
            CalibrationError: there is no GPU, no batch, or the data or the algorithm cannot be used.
        """
        algo = _algorithm(self.calibrator)
        problem = None
        cache = self.calibrator.read_calibration_cache()
        if cache:
            try:
                return _from_cache(_bytes_of(cache), request, algo)
            except CalibrationError as error:
                problem = error
        if request.device.type != "cuda":
            raise CalibrationError(
                f"A {type(self.calibrator).__name__} hands out addresses on a GPU, and this machine has none that "
                "runs the model. Use trtcompile.ptq.DataLoaderCalibrator(dataloader), which calibrates anywhere."
            ) from problem
        batches = iter(self._batches(request))
        first = next(batches, None)
        if first is None:
            if problem is not None:
                raise problem
            raise CalibrationError(
                "get_batch() gave no batch, and read_calibration_cache() no cache. Give the calibrator data, or make "
                "it anew if an earlier compilation has taken its batches."
            )
        if problem is not None:
            said = str(problem).splitlines()[0]  # without the report of what was matched
            warnings.warn(f"{said} Calibrating anew.", CalibrationWarning, stacklevel=2)
        table = DataLoaderCalibrator(
            _Once(first, batches),
            algo_type=algo,
            algo_options=_options(self.calibrator, algo),
            device=request.device,
            progress=False,
        ).calibrate(request)
        try:
            self.calibrator.write_calibration_cache(format_text(table))
        except Exception as error:  # noqa: BLE001 - the user's own code; TensorRT goes on as well
            warnings.warn(
                f"write_calibration_cache() failed: {type(error).__name__}: {error}. The scales are used, but there is "
                "no cache of them for the next time.",
                CalibrationWarning,
                stacklevel=2,
            )
        return table

    def _batches(self, request: CalibrationRequest) -> Iterator[tuple[Tensor, ...]]:
        inputs = flat_inputs(request.arguments)
        names = [given.name or f"input_{number}" for number, given in enumerate(inputs)]
        engine_size = next((given.opt_shape[0] for given in inputs if given.opt_shape), 1)
        warned = False
        while True:
            # It may write this batch over the one before, on any stream: that one must be done with.
            torch.cuda.synchronize(request.device)
            try:
                addresses = _addresses_of(self.calibrator.get_batch(names), names)
            except StopIteration:  # of next(); TensorRT takes it for the end as well
                return
            if not addresses:
                return
            size = _batch_size(self.calibrator)
            if size < engine_size and not warned:
                warned = True
                warnings.warn(
                    f"get_batch_size() gave {size}, and the engine has {engine_size} samples: {size} of each batch are "
                    "read, where TensorRT would read as many as the engine has. Let it give how many samples the "
                    "memory has.",
                    CalibrationWarning,
                    stacklevel=2,
                )
            torch.cuda.synchronize(request.device)  # whatever stream the batch was written on
            yield tuple(
                # An input of another size there belongs to the batch as a whole, as in fit_batches.
                read_device_buffer(
                    address,
                    given,
                    given.opt_shape[0] if given.opt_shape[:1] not in ((), (engine_size,)) else size,
                    request.device,
                )
                for address, given in zip(addresses, inputs, strict=True)
            )

    def __repr__(self) -> str:
        return f"NativeCalibrator({type(self.calibrator).__name__})"


class _Once:
    """The batches of a calibrator, the first of which was taken already."""

    def __init__(self, first: Any, others: Iterator[Any]) -> None:
        self.first, self.others = first, others

    def __iter__(self) -> Iterator[Any]:
        yield self.first
        yield from self.others


def _addresses_of(given: Any, names: Sequence[str]) -> list[int]:
    """What get_batch gave as addresses, of which there are none after the last batch.

    Raises:
        CalibrationError: it is something else.
    """
    if given is None or (isinstance(given, int) and not given):
        return []
    values = list(given) if isinstance(given, Iterable) else [given]
    for value in values:
        is_address = (
            value is not given and not isinstance(value, Tensor) and hasattr(value, "__int__")
        )
        if not is_address or int(value) == 0:
            kind = "the address 0" if is_address else f"a {type(value).__name__}"
            raise CalibrationError(
                f"get_batch({list(names)}) gave {kind}. Give a list with the address of each input on the GPU, such as "
                "tensor.data_ptr(), or None after the last batch."
            )
    addresses = [int(value) for value in values]
    if addresses and len(addresses) != len(names):
        raise CalibrationError(
            f"get_batch({names}) gave {len(addresses)} addresses for {len(names)} inputs. Give one for each."
        )
    return addresses


def _batch_size(calibrator: Any) -> int:
    size = calibrator.get_batch_size()
    if not isinstance(size, numbers.Integral) or size < 1:
        raise CalibrationError(
            f"get_batch_size() gave {size!r}. Let it give how many samples a batch has."
        )
    return int(size)


def _bytes_of(cache: Any) -> bytes:
    try:
        return bytes(memoryview(cache))
    except TypeError:
        raise CalibrationError(
            f"read_calibration_cache() gave a {type(cache).__name__}, not bytes. Read the file with mode 'rb'."
        ) from None


def read_device_buffer(address: int, given: Input, batch_size: int, device: torch.device) -> Tensor:
    """The memory at an address as a tensor, without a copy.

    Args:
        address: where a contiguous array of the input's dtype starts on the GPU.
        given: whose opt shape it has, but for dimension 0.
        batch_size: its dimension 0.
        device: the GPU.

    Raises:
        CalibrationError: the input has a dtype that cannot be read so.
    """
    typestr = _TYPE_STRINGS.get(given.dtype)
    if typestr is None:
        raise CalibrationError(
            f"An input of {given.dtype} cannot be read from an address. Use a DataLoaderCalibrator."
        )
    shape = (batch_size, *given.opt_shape[1:]) if given.opt_shape else ()
    described = {"shape": shape, "typestr": typestr, "data": (address, False), "version": 3}
    return torch.as_tensor(SimpleNamespace(__cuda_array_interface__=described), device=device)


def _algorithm(calibrator: Any) -> CalibrationAlgo:
    name = str(getattr(calibrator.get_algorithm(), "name", None))
    if name not in CalibrationAlgo.__members__:
        raise CalibrationError(
            f"get_algorithm() gave {name!r}, which is none of {', '.join(CalibrationAlgo.__members__)}. Derive the "
            "calibrator from one of TensorRT's four classes."
        )
    return CalibrationAlgo[name]


def _options(calibrator: Any, algo: CalibrationAlgo) -> dict[str, float]:
    if algo is not CalibrationAlgo.LEGACY_CALIBRATION:
        return {}
    return {
        "quantile": calibrator.get_quantile(),
        "regression_cutoff": calibrator.get_regression_cutoff(),
    }


def _from_cache(
    text: bytes, request: CalibrationRequest, algo: CalibrationAlgo
) -> CalibrationTable:
    scales, made_with = parse_text(text, "read_calibration_cache()")
    doubt = "nothing in it says which model it is for"
    cached = CachedTable(CalibrationTable(scales, algo=made_with), doubt)
    if has_names_of(cached, request):
        return matched_table(cached, _SOURCE, request, algo)
    check_is_native(cached, _SOURCE, algo)
    report = match_cache(cached.table, _SOURCE, request)
    return table_of_report(report, algo, "with a CacheCalibrator, its report shows how")
