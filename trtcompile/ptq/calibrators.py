"""The calibrators that ``calibrator=`` takes."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq import processes
from trtcompile.ptq.algorithms import CalibrationAlgo, amax_of, options_of, scale_of
from trtcompile.ptq.arguments import (
    as_device,
    as_names,
    as_path,
    check_bool,
    check_dataloader,
    check_max_batches,
    usable_device,
)
from trtcompile.ptq.auto import Simulation, auto_amax
from trtcompile.ptq.cache_file import check_can_write, read_cache, write_cache
from trtcompile.ptq.cache_match import (
    check_is_native,
    check_shared,
    has_names_of,
    matched_table,
    table_from_cache,
    table_of_report,
)
from trtcompile.ptq.channel_maxima import ChannelMaxima, Maxima
from trtcompile.ptq.collect import Statistics, collect, show
from trtcompile.ptq.native_cache import CacheReport, match_cache
from trtcompile.ptq.progress import batch_count, with_progress
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable, Provenance


class Calibrator(abc.ABC):
    """Gives the scales of a model's activations.

    Derive from this class, or from one of the calibrators below, to bring scales from elsewhere.
    """

    @abc.abstractmethod
    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """The scale of every tensor that a request names.

        Raises:
            CalibrationError: there are no usable scales.
        """

    def channel_maxima(self, request: CalibrationRequest) -> Mapping[str, torch.Tensor]:
        """The largest absolute value of each channel of the tensors ``[..., C]`` that a request names, for SmoothQuant.

        Returns:
            Tensor name -> float32 ``[C]`` on the CPU.

        Raises:
            CalibrationError: the calibrator has no data to measure them on.
        """
        raise CalibrationError(
            f"smooth_quant needs data to run twice, which a {type(self).__name__} does not have. Use a "
            "DataLoaderCalibrator, or drop smooth_quant."
        )


def table_of(calibrator: Calibrator, request: CalibrationRequest) -> CalibrationTable:
    """What a calibrator's ``calibrate`` gives, which may be code of the user's.

    Raises:
        CalibrationError: it is no calibration table, lacks tensors, or has different scales for tensors that share
            one; or the calibrator has no usable scales.
    """
    table = calibrator.calibrate(request)
    if not isinstance(table, CalibrationTable):
        raise CalibrationError(
            f"{type(calibrator).__name__}.calibrate gave a {type(table).__name__}, not a CalibrationTable. Let it "
            "return trtcompile.ptq.CalibrationTable(scales, algo=...)."
        )
    missing = [name for name in request.names if name not in table]
    if missing:
        raise CalibrationError(
            f"{type(calibrator).__name__}.calibrate gave no scale for {', '.join(missing[:5])} ({len(missing)} "
            f"tensors of {len(request.names)}). Let it give one for each of request.names."
        )
    check_shared(table, f"{type(calibrator).__name__}.calibrate", request)
    return table


def channel_maxima_of(
    calibrator: Calibrator, request: CalibrationRequest
) -> Mapping[str, torch.Tensor]:
    """``channel_maxima`` of a calibrator, or of an object that only has the method that all need.

    Raises:
        CalibrationError: the calibrator has no data to measure them on, or gives something else.
    """
    if not isinstance(calibrator, Calibrator):
        return Calibrator.channel_maxima(calibrator, request)
    maxima = calibrator.channel_maxima(request)
    for name, node in request.nodes.items():
        channels = node.meta["val"].shape[-1]
        largest = maxima.get(name) if isinstance(maxima, Mapping) else None
        if not isinstance(largest, torch.Tensor) or largest.shape != (channels,):
            raise CalibrationError(
                f"{type(calibrator).__name__} gave no maxima of shape [{channels}] for {name!r}. Let "
                "channel_maxima(request) return a tensor for each name of the request."
            )
    return maxima


class DataLoaderCalibrator(Calibrator):
    """Runs the model over a DataLoader and chooses scales from the activations it sees.

    One calibrator may serve several compilations: the loader is iterated afresh for each. Until the
    next one it keeps the last model's weights, which are shared with the model, and 16 samples.

    Args:
        dataloader: a ``torch.utils.data.DataLoader``, or anything else that can be iterated several
            times and yields batches, such as a list. Its batch size is free: see ``fit_batches``
            for what a batch may be, and how it meets the inputs.
        cache_file: where the scales are written, in TensorRT's calibration cache format, with a
            JSON sidecar ``<cache_file>.json`` that tells which model they are for. None writes
            nothing.
        use_cache: reads the scales from ``cache_file`` if it exists, instead of running the data.
        algo_type: how scales are chosen.
        algo_options: numbers that the algorithm takes; None for its defaults. They are
            ``{"percentile": 99.99}`` for PERCENTILE_CALIBRATION, and ``{"quantile": 0.999999,
            "regression_cutoff": 1.0}`` for LEGACY_CALIBRATION (see ``trtcompile/ptq/legacy.py``).
        device: where to run the model: a ``torch.device``, its name, or None for where the engine
            will run if that is possible, else the CPU. A CUDA device on a machine without CUDA is a
            ``CalibrationWarning``, and the CPU is used.
        max_batches: how many batches of the loader to use; None for all.
        progress: whether to show progress on stderr; None shows it on a terminal.
        distributed: merges the statistics of all processes of ``torch.distributed``'s default
            group. Each process compiles the same model, which is checked, and gives a loader of its
            part of the data, such as one with a ``DistributedSampler``; all get the same scales, and the first
            writes the cache. What fails or is interrupted in one is an error in all. With NCCL,
            choose each process's GPU by ``torch.cuda.set_device``.

    Raises:
        SettingsError: an argument has the wrong type or value.
    """

    def __init__(
        self,
        dataloader: Iterable[Any],
        *,
        cache_file: str | os.PathLike[str] | None = None,
        use_cache: bool = False,
        algo_type: CalibrationAlgo = CalibrationAlgo.ENTROPY_CALIBRATION_2,
        algo_options: Mapping[str, float] | None = None,
        device: torch.device | str | None = None,
        max_batches: int | None = None,
        progress: bool | None = None,
        distributed: bool = False,
    ) -> None:
        check_dataloader(dataloader)
        check_bool("use_cache", use_cache)
        check_bool("distributed", distributed)
        if progress is not None:
            check_bool("progress", progress)
        if use_cache and cache_file is None:
            raise SettingsError(
                "use_cache is True, but there is no cache_file to use. Give cache_file= as well."
            )
        check_max_batches(max_batches)
        self.dataloader = dataloader
        self.cache_file = None if cache_file is None else as_path(cache_file)
        self.use_cache = use_cache
        self.algo_type = algo_type
        self.algo_options = dict(options_of(algo_type, algo_options))
        self.device = as_device(device)
        self.max_batches = max_batches
        self.progress = progress
        self.distributed = distributed
        self._last: tuple[Statistics, _Tensors] | None = None

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """Runs the data, or reads the cache, and writes the cache if there is to be one.

        Raises:
            CalibrationError: the data or the cache cannot be used, or the cache cannot be written.
        """
        self._last = None
        self._check_processes(request)
        if self.cache_file is not None and self.use_cache and self._exists(self.cache_file):
            return table_from_cache(self.cache_file, request, self.algo_type, self.algo_options)
        device = usable_device(self.device, request.device)

        def run() -> Statistics:
            if self.cache_file is not None:
                check_can_write(self.cache_file)
            return collect(request, self._batches(), device=device)

        statistics = processes.merged(run) if self.distributed else run()
        self._last = statistics, _Tensors(request, device)
        # Simulated errors may differ by rounding between unlike GPUs, and all need the same table.
        table = processes.made_by_the_first(self.table) if self.distributed else self.table()
        if self.cache_file is not None and (not self.distributed or processes.is_the_first()):
            write_cache(self.cache_file, table)
        return table

    def channel_maxima(self, request: CalibrationRequest) -> Mapping[str, torch.Tensor]:
        """Runs the data, also with ``use_cache``: the cache is for the graph that the maxima lead to.

        Raises:
            CalibrationError: the data cannot be used.
        """
        self._check_processes(request)

        def run() -> Maxima:
            device = usable_device(self.device, request.device)
            observers = {request.nodes[name]: ChannelMaxima(device) for name in request.names}
            show(request, self._batches(), observers, device=device)
            return Maxima({n: observers[request.nodes[n]].largest for n in request.names})

        return (processes.merged(run) if self.distributed else run()).largest

    def _check_processes(self, request: CalibrationRequest) -> None:
        if not self.distributed:
            return
        processes.check_initialized()
        settings = {
            "algo_type": self.algo_type,
            "algo_options": self.algo_options,
            "use_cache": self.use_cache,
        }
        processes.check_agreed(request.graph_hash, settings)

    def _batches(self) -> Iterable[Any]:
        return with_progress(self.dataloader, max_batches=self.max_batches, show=self.progress)

    def _exists(self, cache_file: Path) -> bool:
        # Path.exists raises where it may not look; then the calibration finds that it cannot write there.
        exists = os.path.exists(cache_file)  # noqa: PTH110
        return bool(processes.of_the_first(exists)) if self.distributed else exists

    def table(
        self,
        algo: CalibrationAlgo | None = None,
        algo_options: Mapping[str, float] | None = None,
    ) -> CalibrationTable:
        """The scales that an algorithm chooses from the last calibration's statistics.

        No data is run.

        Args:
            algo: the algorithm; None for ``algo_type`` with its options.
            algo_options: numbers that the algorithm takes; None for its defaults.

        Raises:
            SettingsError: the algorithm has no such options.
            CalibrationError: no data was run yet, or AUTO_CALIBRATION cannot run the model, such as
                when its weights have changed since.
        """
        if algo is None and algo_options is None:
            algo_options = self.algo_options
        algo = self.algo_type if algo is None else algo
        options = options_of(algo, algo_options)
        if self._last is None:
            raise CalibrationError(
                "There are no statistics: this calibrator has not run its data, or took its last "
                "scales from the cache. Compile a model with it and use_cache=False first."
            )
        statistics, tensors = self._last
        if algo is CalibrationAlgo.AUTO_CALIBRATION:
            chosen = auto_amax(statistics, tensors.measured, tensors.simulation)
        else:
            histograms = [statistics.shared(group) for group in tensors.measured]
            chosen = amax_of(histograms, algo, options)
        ranges = zip(tensors.groups, chosen, strict=True)
        amax = {name: value for group, value in ranges for name in group}
        provenance = Provenance(
            graph_hash=tensors.graph_hash,
            fingerprints=tensors.fingerprints,
            amax=amax,
            samples=statistics.samples,
            algo_options=options,
        )
        scales = {name: scale_of(value) for name, value in amax.items()}
        return CalibrationTable(scales, algo=algo, provenance=provenance)

    def __repr__(self) -> str:
        batches = batch_count(self.dataloader)
        loader = type(self.dataloader).__name__
        shown = f"<{loader}>" if batches is None else f"<{loader} of {batches} batches>"
        cache_file = None if self.cache_file is None else str(self.cache_file)
        return (
            f"DataLoaderCalibrator({shown}, cache_file={cache_file!r}, use_cache={self.use_cache}, "
            f"algo_type={self.algo_type}, algo_options={self.algo_options}, device={self.device!r}, "
            f"max_batches={self.max_batches}, distributed={self.distributed})"
        )


class CacheCalibrator(Calibrator):
    """Takes scales from a calibration cache file, which it never writes.

    The file is one that a ``DataLoaderCalibrator`` wrote, or TensorRT itself, for the same model exported to ONNX or
    rebuilt with the network API. TensorRT's names for tensors are matched with the model's as ``match_cache``
    describes; ``print(calibrator.report)`` shows how. A tensor whose scale is not found that way is an error that
    lists all, and ``names`` can tell it.

    Args:
        cache_file: the cache, of any version of TensorRT.
        algo_type: the algorithm that the cache must have been made with.
        names: tensor -> name in the file, such as ``{"relu_3": "217"}``, for tensors that are not found otherwise, or
            not rightly. The report has the names of both.
        onnx_file: the ONNX file that TensorRT parsed when it wrote the cache; it tells what the names in the cache
            are, whatever they look like. Needs the package ``onnx``.

    Attributes:
        report: how the last cache of TensorRT's was matched, also if tensors were missing; None before that, and for
            a cache with the model's own names.

    Raises:
        SettingsError: an argument has the wrong type.
    """

    def __init__(
        self,
        cache_file: str | os.PathLike[str],
        *,
        algo_type: CalibrationAlgo = CalibrationAlgo.ENTROPY_CALIBRATION_2,
        names: Mapping[str, str] | None = None,
        onnx_file: str | os.PathLike[str] | None = None,
    ) -> None:
        options_of(algo_type)
        self.cache_file = as_path(cache_file)
        self.algo_type = algo_type
        self.names = as_names(names)
        self.onnx_file = None if onnx_file is None else as_path(onnx_file, "onnx_file")
        self.report: CacheReport | None = None

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        """Reads the scales of a request's tensors.

        Raises:
            CalibrationError: a file is missing or corrupted, or the cache is not for this model and algorithm.
            SettingsError: ``onnx_file`` cannot be read without the package ``onnx``.
        """
        self.report = None
        cached = read_cache(self.cache_file)
        source = f"The calibration cache {str(self.cache_file)!r}"
        if not self.names and self.onnx_file is None and has_names_of(cached, request):
            return matched_table(cached, source, request, self.algo_type)
        check_is_native(cached, source, self.algo_type)
        self.report = match_cache(cached.table, source, request, self.names, self.onnx_file)
        return table_of_report(self.report, self.algo_type)

    def __repr__(self) -> str:
        more = f", names={self.names}" if self.names else ""
        more += "" if self.onnx_file is None else f", onnx_file={str(self.onnx_file)!r}"
        return f"CacheCalibrator({str(self.cache_file)!r}, algo_type={self.algo_type}{more})"


class _Tensors:
    """What a table needs of a request: the graph's nodes and weights, as they were then."""

    def __init__(self, request: CalibrationRequest, device: torch.device) -> None:
        self.groups = request.groups
        self.measured = request.measured
        self.fingerprints = {name: request.fingerprints[name] for name in request.names}
        self.graph_hash = request.graph_hash
        self._simulation: Simulation | None = Simulation.of(request, device)

    @property
    def simulation(self) -> Simulation:
        """The graph, to simulate with.

        Raises:
            CalibrationError: the calibrator was pickled, which leaves the graph behind; or the model's weights, which
                the graph shares, have changed.
        """
        if self._simulation is None:
            raise CalibrationError(
                "AUTO_CALIBRATION simulates the model, but this calibrator was pickled, which "
                "leaves the model behind. Compile with it first."
            )
        if self._simulation.is_stale:
            raise CalibrationError(
                "AUTO_CALIBRATION simulates the model, but weights of it have changed since this "
                "calibrator ran its data. Compile it again."
            )
        return self._simulation

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_simulation": None}
