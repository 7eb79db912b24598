"""``analyze``: what quantization costs, by layer and by tensor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from trtcompile.errors import SettingsError
from trtcompile.node_info import module_path, operator_name, source_line
from trtcompile.ptq.algorithms import CalibrationAlgo, amax_of, distinct_algorithms
from trtcompile.ptq.analysis.data import Simulated, loader_batches
from trtcompile.ptq.analysis.evaluate import Evaluation, Quality
from trtcompile.ptq.analysis.findings import HistogramSummary, LayerRow, TensorRow
from trtcompile.ptq.analysis.layers import (
    QuantizedLayer,
    QuantizedLayers,
    quantized_layers,
    tensor_of,
)
from trtcompile.ptq.analysis.observe import ObservedLayer, ObservedTensor, Observer
from trtcompile.ptq.analysis.result import Analysis
from trtcompile.ptq.analysis.scores import Metric, check_metric
from trtcompile.ptq.analysis.switched import SwitchedSimulation
from trtcompile.ptq.arguments import check_bool, check_dataloader, check_max_batches, device_of
from trtcompile.ptq.histogram import BINS, AbsHistogram

#: Bins of a summary over the range of a histogram.
_SHOWN_BINS = 128


def analyze(
    compiled: Simulated,
    loader: Iterable[Any],
    *,
    metric: Metric = "sqnr",
    higher_is_better: bool = True,
    sensitivity: bool = True,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
) -> Analysis:
    """Measures on data what quantization does to each tensor and layer, and to the model's outputs.

    It runs the simulation, so it needs neither an engine nor a GPU. "Without quantization" is the same lowered graph
    with its Q/DQ passing values on: in FP32, or in FP16 where that was enabled.

    One pass over the loader. Each batch is run twice to observe tensors and layers, and once for each layer (that one
    alone quantized) to measure sensitivity: ``layers + 4`` times in all; ``max_batches`` limits it, and
    ``sensitivity=False`` leaves 4. Besides the weights, and their quantized values, the live values of one batch are in
    memory, and its outputs.

    Args:
        compiled: a module compiled for INT8 with ``keep_lowered=True``, or what ``trtcompile.simulate`` returns.
        loader: yields batches as for ``DataLoaderCalibrator``. Those that are no multiple of the inputs' opt batch size
            are filled up, which costs time and changes nothing.
        metric: what sensitivity is measured by. ``"sqnr"``: SQNR of the centred outputs. ``"agreement"``: the share of
            predicted classes (the largest along dimension 1 of the first output) that stays as it was. Or a function
            ``metric(outputs, batch)`` that returns a number, given the model's outputs for one batch of the loader, on
            the CPU, and the batch as the loader gave it, labels included; numbers are averaged over the batches, each
            weighted by its samples.
        higher_is_better: False for a metric of which less is better, such as a loss.
        sensitivity: whether to measure the metric with only one layer quantized, for each.
        max_batches: how many batches of the loader to use; None for all.
        device: where to run; None for the current CUDA device if there is one, else the CPU.

    Raises:
        SettingsError: an argument has the wrong type or value, or the metric returns no number.
        CalibrationError: nothing is quantized, the data does not fit or has no samples, the model fails on it, a tensor
            holds NaN or infinity, or the metric does.
        AttributeError: ``compiled`` has no lowered graph.
    """
    check_metric(metric)
    check_dataloader(loader, "loader")
    check_bool("higher_is_better", higher_is_better)
    check_bool("sensitivity", sensitivity)
    check_max_batches(max_batches)
    if metric == "sqnr" and not higher_is_better:
        raise SettingsError(
            "higher_is_better is False, but metric is 'sqnr', of which more is better. Drop higher_is_better."
        )
    where = device_of(device)
    structure = quantized_layers(compiled.lowered)
    simulation = SwitchedSimulation(compiled.lowered, structure, where)
    observer = Observer(simulation, structure, where)
    singles: list[tuple[str, ...]] = [(name,) for name in structure.names] if sensitivity else []
    evaluation = Evaluation(simulation, [structure.names, *singles], metric)
    samples = 0
    for batch in loader_batches(loader, compiled.arguments, where, max_batches):
        for piece in batch.pieces:
            observer.add(piece)
        evaluation.add(batch)
        samples += batch.samples
    observer.check_finite()
    whole, *alone = evaluation.results
    by_name = dict(zip(structure.names, alone, strict=True)) if sensitivity else {}
    return Analysis(
        layers=tuple(
            _layer_row(
                layer,
                observer.layers[layer.name],
                by_name.get(layer.name),
                _drop(by_name.get(layer.name), evaluation.reference, metric, higher_is_better),
            )
            for layer in structure.layers
        ),
        tensors=_tensor_rows(observer, structure),
        samples=samples,
        metric_name=name_of(metric),
        higher_is_better=higher_is_better,
        metric_reference=evaluation.reference,
        metric_quantized=whole.metric,
        output_sqnr_db=whole.sqnr_db,
    )


def name_of(metric: Metric) -> str:
    """What a metric is called in tables."""
    return metric if isinstance(metric, str) else getattr(metric, "__name__", type(metric).__name__)


def _drop(
    quality: Quality | None, reference: float, metric: Metric, higher_is_better: bool
) -> float | None:
    if quality is None:
        return None
    if metric == "sqnr":
        return min(quality.noise_share, 10.0**20)  # the power ratio of -200 dB
    return reference - quality.metric if higher_is_better else quality.metric - reference


def _layer_row(
    layer: QuantizedLayer,
    observed: ObservedLayer,
    alone: Quality | None,
    drop: float | None,
) -> LayerRow:
    return LayerRow(
        name=layer.name,
        operator=operator_name(layer.node),
        module=module_path(layer.node),
        source=source_line(layer.node),
        tensors=layer.tensors,
        sqnr_db=observed.own.db,
        weight_sqnr_db=None if layer.weight is None else observed.weight.db,
        accumulated_sqnr_db=observed.accumulated.db,
        output_sqnr_db=None if alone is None else alone.sqnr_db,
        metric=None if alone is None else alone.metric,
        sensitivity=drop,
    )


def _tensor_rows(observer: Observer, structure: QuantizedLayers) -> tuple[TensorRow, ...]:
    histograms = [observed.histogram for observed in observer.tensors.values()]
    ranges = (
        {algo: amax_of(histograms, algo) for algo in distinct_algorithms()} if histograms else {}
    )
    return tuple(
        _tensor_row(
            observed,
            name=tensor_of(quantizer),
            ranges={algo: chosen[position] for algo, chosen in ranges.items()},
            layers=structure.readers_of(quantizer),
        )
        for position, (quantizer, observed) in enumerate(observer.tensors.items())
    )


def _tensor_row(
    observed: ObservedTensor,
    *,
    name: str,
    ranges: dict[CalibrationAlgo, float],
    layers: tuple[str, ...],
) -> TensorRow:
    total = observed.histogram.total
    return TensorRow(
        name=name,
        scale=observed.scale,
        amax=observed.amax,
        peak=observed.histogram.amax,
        values=total,
        clipped=int(observed.clipped) / total if total else 0.0,
        sqnr_db=observed.noise.db,
        amax_by_algorithm={algo.name: amax for algo, amax in ranges.items()},
        histogram=_summary(observed.histogram),
        layers=layers,
    )


def _summary(histogram: AbsHistogram) -> HistogramSummary:
    joined = histogram.counts.reshape(_SHOWN_BINS, -1).sum(dim=1)
    filled = joined.nonzero()
    end = int(filled[-1]) + 1 if len(filled) else 0
    width = histogram.bin_width * (BINS // _SHOWN_BINS)
    return HistogramSummary(width, tuple(joined[:end].tolist()))
