"""An analysis as text."""

from __future__ import annotations

from collections.abc import Sequence

from trtcompile.ptq.analysis.result import Analysis, LayerRow, TensorRow


def as_text(analysis: Analysis) -> str:
    """The tables of layers, the most sensitive first, and of tensors."""
    layers = [
        ["layer", "module", "metric", "sensitivity", "out dB", "own dB", "weight dB", "acc. dB"]
    ]
    layers += [_layer_cells(row) for row in analysis.by_sensitivity]
    if any(row.parity_sqnr_db is not None for row in analysis.layers):
        layers[0].append("parity dB")
        for cells, row in zip(layers[1:], analysis.by_sensitivity, strict=True):
            cells.append(ratio(row.parity_sqnr_db))
    algorithms = algorithms_of(analysis)
    tensors = [["tensor", "SQNR dB", "clipped", "peak", "amax", *map(short_name, algorithms)]]
    tensors += [_tensor_cells(row, algorithms) for row in analysis.tensors]
    return "\n".join([summary(analysis), "", *_table(layers), "", *_table(tensors)])


def summary(analysis: Analysis) -> str:
    """One sentence on the whole model."""
    whole = f"SQNR of the outputs {analysis.output_sqnr_db:.1f} dB"
    if analysis.metric_name != "sqnr":
        whole = (
            f"{analysis.metric_name} {number(analysis.metric_reference)} without quantization, "
            f"{number(analysis.metric_quantized)} in INT8; {whole}"
        )
    return f"{len(analysis.layers)} layers in INT8, {analysis.samples} samples: {whole}"


def algorithms_of(analysis: Analysis) -> tuple[str, ...]:
    """The names of the algorithms that chose an amax."""
    return tuple(dict.fromkeys(name for row in analysis.tensors for name in row.amax_by_algorithm))


def short_name(algorithm: str) -> str:
    """``ENTROPY_CALIBRATION_2`` as ``entropy 2``."""
    return algorithm.replace("_CALIBRATION", "").replace("_", " ").lower()


def number(value: float | None) -> str:
    """A number with four digits; ``-`` for none."""
    return "-" if value is None else f"{value:.4g}"


def ratio(db: float | None) -> str:
    """A ratio in dB with one decimal; ``-`` for none."""
    return "-" if db is None else f"{db:.1f}"


def share(value: float) -> str:
    """A share as a percentage that does not hide what is small: 0, or at least three digits of it."""
    return "0 %" if value == 0 else f"{100 * value:.3g} %"


def _layer_cells(row: LayerRow) -> list[str]:
    return [
        row.name,
        row.module,
        number(row.metric),
        number(row.sensitivity),
        ratio(row.output_sqnr_db),
        ratio(row.sqnr_db),
        ratio(row.weight_sqnr_db),
        ratio(row.accumulated_sqnr_db),
    ]


def _tensor_cells(row: TensorRow, algorithms: Sequence[str]) -> list[str]:
    chosen = [number(row.amax_by_algorithm.get(name)) for name in algorithms]
    return [
        row.name,
        ratio(row.sqnr_db),
        share(row.clipped),
        number(row.peak),
        number(row.amax),
        *chosen,
    ]


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return [lines[0], "  ".join("-" * width for width in widths), *lines[1:]]
