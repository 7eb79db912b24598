"""Runs a graph over calibration data and counts the values of chosen tensors."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.ptq.batches import FittedBatch, fit_batches
from trtcompile.ptq.count_queue import CountQueue, waiting_bytes
from trtcompile.ptq.cuda_counting import kernels_on
from trtcompile.ptq.graph_copy import copied_to
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.input_sample import InputSample
from trtcompile.ptq.late_reading import LateReading
from trtcompile.ptq.nvrtc import NvrtcError
from trtcompile.ptq.observer import FiniteCheck, Observer
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.ptq.request import CalibrationRequest


class NoSamplesError(CalibrationError):
    """The data is empty; that of other processes need not be."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one pass over the data found out; enough for every algorithm.

    Statistics of the same request from different data, such as from several processes, can be
    merged.

    Attributes:
        histograms: of the absolute values of each observed node.
        positions: name of a measured tensor -> which histogram is its own; names of one node have
            the same.
        samples: how many samples were run.
        inputs: a few of the samples, for algorithms that simulate.
    """

    histograms: tuple[AbsHistogram, ...]
    positions: Mapping[str, int]
    samples: int
    inputs: InputSample

    def shared(self, group: Sequence[str]) -> AbsHistogram:
        """The histogram of the values of several tensors together."""
        first, *others = dict.fromkeys(self.positions[name] for name in group)
        shared = self.histograms[first].to(self.histograms[first].device)
        for position in others:
            shared.merge(self.histograms[position])
        return shared

    def merged(self, other: Statistics) -> Statistics:
        """The statistics of both data sets together.

        Raises:
            CalibrationError: they are of different tensors.
        """
        if self.positions != other.positions:
            raise CalibrationError(
                "The statistics of different tensors cannot be merged. Merge statistics of one "
                "request."
            )
        merged = tuple(mine.to(mine.device) for mine in self.histograms)
        for mine, theirs in zip(merged, other.histograms, strict=True):
            mine.merge(theirs)
        samples = self.samples + other.samples
        return Statistics(merged, self.positions, samples, self.inputs.merged(other.inputs))


def collect(
    request: CalibrationRequest,
    loader: Iterable[Any],
    *,
    device: torch.device,
) -> Statistics:
    """Runs a request's graph over a loader, and counts the absolute values of its measured tensors.

    Rows that only fill up the last batch are not counted: of a tensor whose dimension 0 is a
    multiple k of the batch size, the first k * valid rows are. Tensors of another size there hold
    values of all samples in each row, and are counted whole; what they repeat are values of real
    samples.

    The graph and the global random states are not changed. On another device than the CPU the
    graph's weights are copied there, and tensors that it creates are created there. Results of the
    graph are freed as soon as nothing needs them.

    Args:
        request: the graph and its tensors.
        loader: yields batches that ``fit_batches`` can fit to the request's inputs.
        device: where to run.

    Raises:
        NoSamplesError: no samples.
        CalibrationError: samples that do not fit, NaN or infinity in a tensor, or the graph fails
            on a batch.
    """
    nodes = {name: request.nodes[name] for group in request.measured for name in group}
    observed = list(dict.fromkeys(nodes.values()))
    histograms = dict(zip(observed, AbsHistogram.several(len(observed), device), strict=True))
    inputs = InputSample()
    if device.type == "cuda":
        samples = _show_together(request, loader, histograms, device=device, inputs=inputs)
    else:
        samples = show(request, loader, histograms, device=device, inputs=inputs)
    order = {node: position for position, node in enumerate(histograms)}
    positions = {name: order[node] for name, node in nodes.items()}
    return Statistics(tuple(histograms.values()), positions, samples, inputs)


def _show_together(
    request: CalibrationRequest,
    loader: Iterable[Any],
    histograms: Mapping[fx.Node, AbsHistogram],
    *,
    device: torch.device,
    inputs: InputSample,
) -> int:
    """``show`` for histograms on a CUDA device, which counts many tensors at a time."""
    kernels = kernels_on(device)
    if isinstance(kernels, NvrtcError):
        warnings.warn(
            "Calibration counts with PyTorch's operators, which gives the same result slowly: "
            f"{kernels}. Use a PyTorch that comes with its NVRTC library.",
            CalibrationWarning,
            stacklevel=2,
        )
    queue = CountQueue(waiting_bytes(device))
    observers = {node: queue.observer_of(histogram) for node, histogram in histograms.items()}
    samples = show(request, loader, observers, device=device, inputs=inputs)
    queue.flush()
    return samples


def show(
    request: CalibrationRequest,
    loader: Iterable[Any],
    observers: Mapping[fx.Node, Observer],
    *,
    device: torch.device,
    inputs: InputSample | None = None,
) -> int:
    """Runs a request's graph over a loader, as ``collect`` does, and shows nodes' values to observers.

    Args:
        request: the graph and its tensors.
        loader: yields batches that ``fit_batches`` can fit to the request's inputs.
        observers: of nodes of the graph.
        device: where to run.
        inputs: is shown the inputs.

    Returns:
        How many samples were run.

    Raises:
        NoSamplesError: no samples.
        CalibrationError: samples that do not fit, NaN or infinity in a tensor, or the graph fails
            on a batch.
    """
    names = {node: name for name, node in request.nodes.items()}
    graph = _ObservedGraph(request.graph, names, observers, device)
    samples = 0
    # Reading from a CUDA device waits until it has come so far. What is read is what it found out
    # before this batch, so that it always has a batch to work on.
    with kept_random_state():
        # The loader's own code runs outside of no_grad: what it creates may outlive calibration.
        for batch in fit_batches(loader, request.arguments, device):
            keys = None if inputs is None else LateReading(inputs.keys_of(batch))
            graph.run(batch)
            if inputs is not None and keys is not None:
                inputs.update(batch, keys.tolist())
            samples += batch.valid
        graph.check_finite()
    if inputs is not None:
        inputs.move_to_cpu()
    if samples == 0:
        raise NoSamplesError(
            "The calibration data has no samples. Give a dataloader with at least one batch that "
            "has rows, also when it is iterated again."
        )
    return samples


def samples_of(value: Tensor, batch: FittedBatch) -> Tensor:
    """The rows of a value that belong to a batch's own samples; all if they cannot be told."""
    if batch.valid < batch.batch_size and value.dim() > 0:
        rows, rest = divmod(value.shape[0], batch.batch_size)
        if rest == 0:
            return value[: rows * batch.valid]
    return value


@dataclass
class _Running:
    """What a graph runs on at the moment."""

    batch: FittedBatch | None = None


class _Beside:
    """What stands beside an observed node: shows its values to its observer."""

    def __init__(self, name: str, observer: Observer, running: _Running) -> None:
        self.name, self.observer, self._running = name, observer, running

    def show(self, value: Any) -> None:
        """Shows the part of a value that belongs to real samples."""
        batch = self._running.batch
        assert batch is not None
        try:
            if not isinstance(value, Tensor):
                raise CalibrationError(
                    f"A {type(value).__name__} has no scale. Observe nodes that give one tensor."
                )
            self.observer.update(samples_of(value, batch))
        except CalibrationError as error:
            raise _named(error, self.name, batch.loader_batch) from error


def _named(error: CalibrationError, name: str, loader_batch: int) -> CalibrationError:
    return CalibrationError(
        f"Tensor {name!r}, batch {loader_batch} of the calibration data: {error}"
    )


class _ObservedGraph:
    """A copy of a graph in which each observed value also goes to its observer.

    It runs as the code that FX generates for it, which costs less than interpreting it, and frees
    each value as soon as nothing needs it.
    """

    def __init__(
        self,
        graph: fx.GraphModule,
        names: Mapping[fx.Node, str],
        observers: Mapping[fx.Node, Observer],
        device: torch.device,
    ) -> None:
        self._device = device
        self._running = _Running()
        self._beside = [
            _Beside(names[node], observer, self._running) for node, observer in observers.items()
        ]
        shows = [beside.show for beside in self._beside]
        self._graph, _ = copied_to(graph, device, dict(zip(observers, shows, strict=True)))
        # Of the last batch: which one it was, and what its values were.
        self._unread: tuple[int, FiniteCheck] | None = None

    def run(self, batch: FittedBatch) -> None:
        """Runs one batch, then checks the values of the one before."""
        self._running.batch = batch
        try:
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                # Not the module itself: called, it would print where in the code an error arose.
                self._graph.forward(*batch.tensors)
        except CalibrationError:
            raise
        except Exception as error:  # whatever the user's data makes the user's model raise
            raise CalibrationError(
                f"The model fails on batch {batch.loader_batch} of the calibration data: "
                f"{type(error).__name__}: {error}. Check that the model runs on this data in "
                "PyTorch."
            ) from error
        check = FiniteCheck([beside.observer for beside in self._beside])
        self.check_finite()
        self._unread = batch.loader_batch, check

    def check_finite(self) -> None:
        """Raises if some value of the last batch was NaN or infinity; waits for that batch."""
        if self._unread is None:
            return
        loader_batch, check = self._unread
        self._unread = None
        bad = check.first_bad()
        if bad is not None:
            beside = self._beside[bad]
            try:
                beside.observer.check_finite()
            except CalibrationError as error:
                raise _named(error, beside.name, loader_batch) from error
