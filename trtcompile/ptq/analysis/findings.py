"""``Findings``: what quantization costs, by layer and by tensor."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from typing_extensions import Self


@dataclass(frozen=True)
class HistogramSummary:
    """How absolute values are distributed.

    Attributes:
        bin_width: the width of a bin; the first starts at 0.
        counts: how many values each bin has; trailing bins without any are left out.
    """

    bin_width: float
    counts: tuple[int, ...]


@dataclass(frozen=True)
class TensorRow:
    """A quantized tensor; all values are those without quantization.

    Attributes:
        name: tensor name, as in the calibration table.
        scale: the scale in use; None if it is quantized per channel.
        amax: the largest value that the scale represents, 127 * scale; None likewise.
        peak: the largest absolute value seen.
        values: how many values were seen.
        clipped: the share of them, from 0 to 1, that is larger than ``amax``.
        sqnr_db: SQNR of this tensor's Q/DQ alone, in dB.
        amax_by_algorithm: name of a ``CalibrationAlgo`` -> the amax that it chooses with default options from these
            values. A tensor that shares its scale with others got one that is made for the values of all, but for those
            that are only moved on, such as into a max pool.
        histogram: of the absolute values.
        layers: names of the layers for whose sake it is quantized.
    """

    name: str
    scale: float | None
    amax: float | None
    peak: float
    values: int
    clipped: float
    sqnr_db: float
    amax_by_algorithm: Mapping[str, float]
    histogram: HistogramSummary
    layers: tuple[str, ...]


@dataclass(frozen=True)
class LayerRow:
    """A quantized layer; ratios are in dB, from -200 to 200, where 200 stands for no difference.

    Attributes:
        name: tensor name of its result, as in ``report.rows`` and for ``int8_excluded_nodes``.
        operator: ``aten.convolution.default`` and the like.
        module: path of the module it was traced from, if known.
        source: the user's source line.
        tensors: names of the quantized tensors that it needs, a residual that it adds included.
        sqnr_db: SQNR of its result with only its own operands quantized, against no quantization at all.
        weight_sqnr_db: SQNR of its weight's Q/DQ; None if it has no constant weight.
        accumulated_sqnr_db: SQNR of its result with every layer quantized.
        output_sqnr_db: SQNR of the model's centred outputs with only this layer quantized; None if not measured.
        metric: the metric with only this layer quantized; None if not measured.
        sensitivity: how much worse that is than without quantization, in the metric's unit; for ``"sqnr"`` the power of
            the noise in the outputs over that of the signal. None if not measured.
        parity_sqnr_db: SQNR of the engine's values against the simulation's, see ``layer_parity``: the worst among
            its result and the tensors it needs. None if not measured.
    """

    name: str
    operator: str
    module: str
    source: str
    tensors: tuple[str, ...]
    sqnr_db: float
    weight_sqnr_db: float | None
    accumulated_sqnr_db: float
    output_sqnr_db: float | None
    metric: float | None
    sensitivity: float | None
    parity_sqnr_db: float | None = None


F = TypeVar("F", bound="Findings")


@dataclass(frozen=True)
class Findings:
    """What quantization costs.

    Attributes:
        layers: in the order of the graph.
        tensors: in the order of the graph.
        samples: how many samples were run.
        metric_name: ``"sqnr"``, ``"agreement"``, or the name of the metric function.
        higher_is_better: the metric's direction.
        metric_reference: the metric without quantization; 200 dB for ``"sqnr"``, which stands for no difference.
        metric_quantized: the metric with every layer quantized.
        output_sqnr_db: SQNR of the model's centred outputs with every layer quantized.
    """

    layers: tuple[LayerRow, ...]
    tensors: tuple[TensorRow, ...]
    samples: int
    metric_name: str
    higher_is_better: bool
    metric_reference: float
    metric_quantized: float
    output_sqnr_db: float

    def layer(self, name: str) -> LayerRow:
        """The layer of a name.

        Raises:
            KeyError: there is none.
        """
        return {row.name: row for row in self.layers}[name]

    def tensor(self, name: str) -> TensorRow:
        """The tensor of a name; the first, where a model that came quantized has several.

        Raises:
            KeyError: there is none.
        """
        return {row.name: row for row in reversed(self.tensors)}[name]

    @property
    def by_sensitivity(self) -> tuple[LayerRow, ...]:
        """The layers, the most sensitive first; by their own SQNR where sensitivity was not measured."""
        return tuple(sorted(self.layers, key=_harmlessness))

    def with_parity(self, parity: Mapping[str, float]) -> Self:
        """The same with what ``layer_parity`` found.

        Args:
            parity: tensor name -> SQNR of the engine against the simulation, in dB; others' are left out.
        """
        layers = []
        for row in self.layers:
            known = [parity[name] for name in (row.name, *row.tensors) if name in parity]
            layers.append(dataclasses.replace(row, parity_sqnr_db=min(known, default=None)))
        return dataclasses.replace(self, layers=tuple(layers))


def _harmlessness(row: LayerRow) -> tuple[float, float]:
    """The metric often ties on little data; then the noise in the outputs decides."""
    noise = row.sqnr_db if row.output_sqnr_db is None else row.output_sqnr_db
    return (0.0 if row.sensitivity is None else -row.sensitivity, noise)
