"""An analysis as text."""

from __future__ import annotations

from collections.abc import Sequence

from trtcompile.ptq.analysis.findings import Findings, TensorRow


def as_text(analysis: Findings) -> str:
    """The tables of layers, the most sensitive first, and of tensors."""
    columns = _layer_columns(analysis)
    layers = [list(columns), *(list(cells) for cells in zip(*columns.values(), strict=True))]
    algorithms = algorithms_of(analysis)
    tensors = [["tensor", "SQNR dB", "clipped", "peak", "amax", *map(short_name, algorithms)]]
    tensors += [_tensor_cells(row, algorithms) for row in analysis.tensors]
    return "\n".join([summary(analysis), "", *_table(layers), "", *_table(tensors)])


def summary(analysis: Findings) -> str:
    """One sentence on the whole model."""
    whole = f"SQNR of the outputs {analysis.output_sqnr_db:.1f} dB"
    if analysis.metric_name != "sqnr":
        whole = (
            f"{analysis.metric_name} {number(analysis.metric_reference)} without quantization, "
            f"{number(analysis.metric_quantized)} with it; {whole}"
        )
    count = len(analysis.layers)
    layers = f"{count} quantized layer{'' if count == 1 else 's'}"
    return f"{layers}, {analysis.samples} samples: {whole}"


def algorithms_of(analysis: Findings) -> tuple[str, ...]:
    """The names of the algorithms that chose an amax."""
    return tuple(dict.fromkeys(name for row in analysis.tensors for name in row.amax_by_algorithm))


def short_name(algorithm: str) -> str:
    """``ENTROPY_CALIBRATION_2`` as ``entropy 2``."""
    return algorithm.replace("_CALIBRATION", "").replace("_", " ").lower()


def number(value: float | None) -> str:
    """A number with four digits, or as a whole number where it is larger; ``-`` for none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if 1e4 <= abs(value) < 1e7 else f"{value:.4g}"


def ratio(db: float | None) -> str:
    """A ratio in dB with one decimal; ``-`` for none."""
    return "-" if db is None else f"{round(db, 1) + 0.0:.1f}"  # and no -0.0


def share(value: float) -> str:
    """A share as a percentage that does not hide what is small: 0, or at least three digits of it."""
    return "0 %" if value == 0 else f"{100 * value:.3g} %"


def _layer_columns(analysis: Findings) -> dict[str, list[str]]:
    rows = analysis.by_sensitivity
    columns = {
        "layer": [row.name for row in rows],
        "module": [row.module for row in rows],
        "sensitivity": [number(row.sensitivity) for row in rows],
        analysis.metric_name: [number(row.metric) for row in rows],
        "out dB": [ratio(row.output_sqnr_db) for row in rows],
        "own dB": [ratio(row.sqnr_db) for row in rows],
        "weight dB": [ratio(row.weight_sqnr_db) for row in rows],
        "acc. dB": [ratio(row.accumulated_sqnr_db) for row in rows],
        "parity dB": [ratio(row.parity_sqnr_db) for row in rows],
    }
    if analysis.metric_name == "sqnr":  # it is that of the outputs
        del columns["sqnr"]
    if all(row.parity_sqnr_db is None for row in rows):
        del columns["parity dB"]
    return columns


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
