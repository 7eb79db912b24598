"""AUTO calibration: for each tensor, the algorithm whose quantization shows least where it is read.

No single algorithm is best. Entropy suits convolution networks and ruins transformers, whose rare
large values matter; the largest value is right for those and wastes nearly all levels where one
outlier does not matter (measured by H. Wu et al., arXiv 2004.09602). The histogram cannot tell the two
apart: judged by the error of the values themselves, MSE calibration is best by definition. What
counts is the error that is left at the outputs of the operators that read the tensor, after their
weights have weighed it.

So AUTO simulates. The candidates are the ranges that ``CANDIDATES`` choose from the histograms. A
few samples, kept from the one pass over the data (``InputSample``), go through the FP32 graph once.
At each operator that reads the tensor, its output is computed again for each candidate, with the
tensor quantized to that range and the weights to INT8, the other inputs being those of FP32. The
score of a range is the squared error of the output relative to its squared values, each summed over
a sample; and the sum of that over the samples, and all readers of all tensors that share the range.

- Relative to each sample, so that a sample with large values does not outvote the others.
- At the next operators, not at the end of the model: that costs one run of each operator for each
  candidate, not one run of the model for each tensor and candidate, and a rounding error is judged
  where it arises, not after the rest of the model has amplified or hidden it by chance.
- One tensor at a time: candidates of different tensors do not multiply.

To judge by the outputs of a layer is what AdaRound does for the rounding of weights (M. Nagel et al.,
arXiv 2004.10568). Here it chooses from a list, so that each range has the good reasons of one
algorithm for it. The least score wins; of several, the first of the list.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.errors import CalibrationError
from trtcompile.inputs import flat_inputs
from trtcompile.ptq.algorithms import CalibrationAlgo, amax_of, scale_of
from trtcompile.ptq.batches import FittedBatch, fit_batches
from trtcompile.ptq.collect import Statistics, samples_of
from trtcompile.ptq.graph_copy import copied_graph, copied_to
from trtcompile.ptq.insert import weight_scales
from trtcompile.ptq.request import CalibrationRequest, Reader

# The first of equally good ones is taken.
CANDIDATES: tuple[tuple[CalibrationAlgo, Mapping[str, float]], ...] = (
    (CalibrationAlgo.ENTROPY_CALIBRATION_2, {}),
    (CalibrationAlgo.PERCENTILE_CALIBRATION, {"percentile": 99.99}),
    (CalibrationAlgo.PERCENTILE_CALIBRATION, {"percentile": 99.999}),
    (CalibrationAlgo.MSE_CALIBRATION, {}),
    (CalibrationAlgo.MINMAX_CALIBRATION, {}),
)


@dataclass(frozen=True)
class Simulation:
    """What scoring needs of a request, independent of what becomes of its graph afterwards.

    Attributes:
        graph: a copy of the nodes; the weights are the request's own tensors, not copies.
        groups: measured node -> the index of the group whose range it gets.
        readers: for each of those nodes, the operators that read it quantized.
        arguments: one ``Input`` for each placeholder.
        device: where to run.
        versions: PyTorch's count of the writes to each of the weights.
    """

    graph: fx.GraphModule
    groups: Mapping[fx.Node, int]
    readers: Mapping[fx.Node, tuple[Reader, ...]]
    arguments: tuple[Any, ...]
    device: torch.device
    versions: tuple[int, ...]

    @classmethod
    def of(cls, request: CalibrationRequest, device: torch.device) -> Simulation:
        """A request's graph as it is now."""
        graph, copies = copied_graph(request.graph)
        groups: dict[fx.Node, int] = {}
        readers: dict[fx.Node, tuple[Reader, ...]] = {}
        for index, names in enumerate(request.measured):
            for name in names:
                node = copies[request.nodes[name]]
                groups[node] = index
                readers[node] = tuple(_copied(r, copies) for r in request.readers.get(name, ()))
        arguments = tuple(flat_inputs(request.arguments))
        return cls(graph, groups, readers, arguments, device, _versions(graph))

    @property
    def is_stale(self) -> bool:
        """Whether weights were written to since; they are the model's own where it has them on the CPU."""
        return _versions(self.graph) != self.versions

    def on_device(self) -> Simulation:
        """The same, with the weights on the device."""
        graph, copies = copied_to(self.graph, self.device)
        groups = {copies[node]: group for node, group in self.groups.items()}
        readers = {
            copies[node]: tuple(_copied(reader, copies) for reader in all_readers)
            for node, all_readers in self.readers.items()
        }
        return Simulation(graph, groups, readers, self.arguments, self.device, _versions(graph))


def _versions(graph: fx.GraphModule) -> tuple[int, ...]:
    weights = itertools.chain(graph.parameters(), graph.buffers())
    # Writes to inference tensors are not counted.
    return tuple(0 if weight.is_inference() else weight._version for weight in weights)


def _copied(reader: Reader, copies: Mapping[fx.Node, fx.Node]) -> Reader:
    weight = None if reader.weight is None else copies[reader.weight]
    return Reader(copies[reader.node], weight, reader.weight_axis)


def auto_amax(
    statistics: Statistics, groups: Sequence[Sequence[str]], simulation: Simulation
) -> list[float]:
    """The amax of each group of measured tensors with the least simulated error.

    Raises:
        CalibrationError: a histogram was shown NaN or infinity, or the graph fails on a sample.
    """
    ranges = candidate_ranges(statistics, groups)
    scores = simulated_errors(statistics, ranges, simulation)
    return [amax[row.index(min(row))] for amax, row in zip(ranges, scores, strict=True)]


def candidate_ranges(
    statistics: Statistics, groups: Sequence[Sequence[str]]
) -> list[tuple[float, ...]]:
    """For each group, the amax that each of ``CANDIDATES`` chooses."""
    histograms = [statistics.shared(group) for group in groups]
    chosen = [amax_of(histograms, algo, options) for algo, options in CANDIDATES]
    return list(zip(*chosen, strict=True))


def simulated_errors(
    statistics: Statistics, ranges: Sequence[Sequence[float]], simulation: Simulation
) -> list[list[float]]:
    """The score of each range of each group.

    Args:
        statistics: has the samples.
        ranges: for each group, the ranges to try.
        simulation: the graph that reads them.

    Raises:
        CalibrationError: the graph fails on a sample.
    """
    judge = _Judge(simulation.on_device(), ranges)
    rows = statistics.inputs.rows.values()
    for batch in fit_batches(rows, simulation.arguments, simulation.device):
        judge.score(batch)
    return judge.scores()


class _Judge(fx.Interpreter):
    """Interprets the FP32 graph, and runs each reader again on each candidate."""

    def __init__(self, simulation: Simulation, ranges: Sequence[Sequence[float]]) -> None:
        super().__init__(simulation.graph, garbage_collect_values=True)
        self.extra_traceback = False  # it would append itself to our own errors
        self._asked = ranges
        self._totals = [dict.fromkeys(amax, 0.0) for amax in ranges]
        self._pending: list[tuple[int, float, Tensor]] = []
        self._simulation = simulation
        self._reads: dict[fx.Node, list[tuple[fx.Node, Reader]]] = {}
        for value, readers in simulation.readers.items():
            for reader in readers:
                self._reads.setdefault(reader.node, []).append((value, reader))
        self._batch: FittedBatch | None = None

    def score(self, batch: FittedBatch) -> None:
        """Adds the errors of a batch's samples."""
        self._batch = batch
        try:
            with torch.no_grad(), torch.autocast(self._simulation.device.type, enabled=False):
                self.run(*batch.tensors)
        except Exception as error:  # the model has run on these samples before
            raise CalibrationError(
                f"The model fails on a sample that it was calibrated with: {type(error).__name__}: "
                f"{error}. Check that enough memory is free, or choose another algo_type."
            ) from error
        for group, amax, errors in self._pending:  # only here: reading one waits for the device
            self._totals[group][amax] += float(errors)
        self._pending.clear()

    def scores(self) -> list[list[float]]:
        """The sums so far, in the order of the ranges."""
        pairs = zip(self._totals, self._asked, strict=True)
        return [[total[amax] for amax in asked] for total, asked in pairs]

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node, and judges the ranges of what it reads."""
        result = super().run_node(n)
        for value, reader in self._reads.get(n, ()):
            int8 = {} if reader.weight is None else {reader.weight: self._int8_weight(reader)}
            for amax in self._ranges_of(value):
                tried = {**int8, value: quantized(self.env[value], amax)}
                self._add(value, amax, self._result_with(n, tried), result)
        if n in self._simulation.groups and not self._simulation.readers[n]:
            for amax in self._ranges_of(n):
                self._add(n, amax, quantized(result, amax), result)
        return result

    def _ranges_of(self, value: fx.Node) -> Iterable[float]:
        return self._totals[self._simulation.groups[value]]

    def _int8_weight(self, reader: Reader) -> Tensor:
        assert reader.weight is not None
        weight = self.env[reader.weight]
        scales = weight_scales(weight, reader.weight_axis)
        zeros = torch.zeros_like(scales, dtype=torch.int32)
        return torch.fake_quantize_per_channel_affine(
            weight, scales, zeros, reader.weight_axis, -127, 127
        )

    def _result_with(self, node: fx.Node, values: Mapping[fx.Node, Tensor]) -> Any:
        """What a node gives if some of what it reads is something else."""
        args, kwargs = fx.node.map_arg(
            (node.args, node.kwargs),
            lambda read: values[read] if read in values else self.env[read],
        )
        return getattr(self, node.op)(node.target, args, kwargs)

    def _add(self, value: fx.Node, amax: float, tried: Any, exact: Any) -> None:
        group = self._simulation.groups[value]
        for one, other in zip(_tensors(tried), _tensors(exact), strict=True):
            self._pending.append((group, amax, self._relative_error(one, other)))

    def _relative_error(self, tried: Tensor, exact: Tensor) -> Tensor:
        batch = self._batch
        assert batch is not None
        by_sample = exact.dim() > 0 and exact.shape[0] % batch.batch_size == 0
        rows = batch.valid if by_sample else 1
        error, power = (
            samples_of(one, batch).reshape(rows, -1).square().sum(dim=1, dtype=torch.float64)
            for one in (tried - exact, exact)
        )
        return torch.where(power > 0, error / power, 0.0).sum()


def _tensors(result: Any) -> Sequence[Tensor]:
    return result if isinstance(result, (list, tuple)) else [result]


def quantized(values: Tensor, amax: float) -> Tensor:
    """Values rounded to the 8-bit integers of a range and back."""
    return torch.fake_quantize_per_tensor_affine(values, scale_of(amax), 0, -128, 127)
