"""Runs a graph over calibration data and counts the values of chosen tensors."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.errors import CalibrationError
from trtcompile.ptq.batches import FittedBatch, fit_batches
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.observer import Observer, find_nonfinite
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.ptq.request import CalibrationRequest


@dataclass(frozen=True, eq=False)
class Statistics:
    """What one pass over the data found out; enough for every algorithm.

    Statistics of the same request from different data, such as from several processes, can be
    merged.

    Attributes:
        histograms: of the absolute values of each observed node.
        positions: tensor name -> which histogram is its own; names of one node have the same.
        samples: how many samples were run.
    """

    histograms: tuple[AbsHistogram, ...]
    positions: Mapping[str, int]
    samples: int

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
        return Statistics(merged, self.positions, self.samples + other.samples)


def collect(
    request: CalibrationRequest,
    loader: Iterable[Any],
    *,
    device: torch.device,
) -> Statistics:
    """Runs a request's graph over a loader, and counts the absolute values of its tensors.

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
        CalibrationError: no samples, samples that do not fit, NaN or infinity in a tensor, or the
            graph fails on a batch.
    """
    nodes = {name: request.nodes[name] for name in request.names}
    histograms = {node: AbsHistogram(device) for node in nodes.values()}
    samples = show(request, loader, histograms, device=device)
    order = {node: position for position, node in enumerate(histograms)}
    positions = {name: order[node] for name, node in nodes.items()}
    return Statistics(tuple(histograms.values()), positions, samples)


def show(
    request: CalibrationRequest,
    loader: Iterable[Any],
    observers: Mapping[fx.Node, Observer],
    *,
    device: torch.device,
) -> int:
    """Runs a request's graph over a loader, as ``collect`` does, and shows nodes' values to observers.

    Returns:
        How many samples were run.

    Raises:
        CalibrationError: no samples, samples that do not fit, NaN or infinity in a tensor, or the
            graph fails on a batch.
    """
    names = {node: name for name, node in request.nodes.items()}
    run = _Run(request.graph, names, observers, device)
    samples = 0
    with kept_random_state():
        # The loader's own code runs outside of no_grad: what it creates may outlive calibration.
        for batch in fit_batches(loader, request.arguments, device):
            run.observe(batch)
            samples += batch.valid
    if samples == 0:
        raise CalibrationError(
            "The calibration data has no samples. Give a dataloader with at least one batch that "
            "has rows."
        )
    return samples


class _Run(fx.Interpreter):
    """Interprets a graph and shows the values of some nodes to their observers."""

    def __init__(
        self,
        graph: fx.GraphModule,
        names: Mapping[fx.Node, str],
        observers: Mapping[fx.Node, Observer],
        device: torch.device,
    ) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.extra_traceback = False  # it would append itself to our own errors
        self._names = names
        self._observers = observers
        self._device = device
        self._attributes: dict[str, Any] = {}
        self._batch: FittedBatch | None = None

    def observe(self, batch: FittedBatch) -> None:
        """Runs one batch."""
        self._batch = batch
        try:
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                self.run(*batch.tensors)
        except CalibrationError:
            raise
        except Exception as error:  # whatever the user's data makes the user's model raise
            raise CalibrationError(
                f"The model fails on batch {batch.loader_batch} of the calibration data: "
                f"{type(error).__name__}: {error}. Check that the model runs on this data in "
                "PyTorch."
            ) from error
        bad = find_nonfinite(list(self._observers.values()))
        if bad is not None:
            node, observer = list(self._observers.items())[bad]
            with self._naming(node):
                observer.check_finite()

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node and counts its value if it is observed."""
        value = super().run_node(n)
        if n in self._observers:
            with self._naming(n):
                self._observers[n].update(self._samples_of(value))
        return value

    def _samples_of(self, value: Any) -> Tensor:
        """The part of an observed value that belongs to real samples."""
        batch = self._batch
        if not isinstance(value, Tensor) or batch is None:
            raise CalibrationError(
                f"A {type(value).__name__} has no scale. Observe nodes that give one tensor."
            )
        if batch.valid < batch.batch_size and value.dim() > 0:
            rows, rest = divmod(value.shape[0], batch.batch_size)
            if rest == 0:
                return value[: rows * batch.valid]
        return value

    @contextlib.contextmanager
    def _naming(self, node: fx.Node) -> Iterator[None]:
        """Adds the tensor's name and the batch to a calibration error."""
        try:
            yield
        except CalibrationError as error:
            number = self._batch.loader_batch if self._batch is not None else None
            raise CalibrationError(
                f"Tensor {self._names[node]!r}, batch {number} of the calibration data: {error}"
            ) from error

    def fetch_attr(self, target: str) -> Any:
        """A weight or submodule, on the device where the graph runs."""
        if target not in self._attributes:
            value = super().fetch_attr(target)
            if isinstance(value, Tensor):
                value = value.to(self._device)
            elif isinstance(value, torch.nn.Module) and _elsewhere(value, self._device):
                value = copy.deepcopy(value).to(self._device)
            self._attributes[target] = value
        return self._attributes[target]

    def call_function(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operator; one that creates a tensor creates it where the graph runs."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self._device}
        return super().call_function(target, args, kwargs)


def _elsewhere(module: torch.nn.Module, device: torch.device) -> bool:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(tensor.device != device for tensor in tensors)
