"""Tables and bars of ``native_comparison.py``, from its result files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

LEAST_AGREEMENT = 0.997  # top-1, engine against simulation
LEAST_SQNR_DB = 30.0  # of the logits, engine against simulation
MOST_BEHIND = 0.1  # percentage points that our INT8 engine may lie below the native one
MINMAX_TOLERANCE = 0.01
DEVIATION = 0.1  # entropy scales that differ by more are listed


def problems(result: Mapping[str, Any]) -> list[str]:
    """Which bars a model's result misses, a sentence each."""
    found = list(result["errors"])
    parity, ours = result.get("parity"), result.get("ours")
    if parity is None or ours is None:
        return [*found, "our engine was not run"]
    if parity["top1_agreement"] < LEAST_AGREEMENT:
        found.append(f"engine and simulation agree on {parity['top1_agreement']:.2%} only")
    if parity["sqnr_db"] < LEAST_SQNR_DB:
        found.append(f"engine against simulation: {parity['sqnr_db']:.1f} dB")
    for algorithm, native in result["native"].items():
        behind = 100 * (native["accuracy"] - ours["accuracy"])
        if behind > MOST_BEHIND + 1e-9:
            found.append(f"our engine is {behind:.2f} points below native {algorithm}")
        scales = native.get("scales")
        if algorithm == "minmax" and scales is not None:
            found += _minmax_problems(scales)
    cache = result.get("our_cache")
    if cache is not None:
        taken, wrong = cache["ours"], cache["ours with all scales / 8"]
        if taken["batches_read"]:
            found.append("TensorRT calibrated although it was given our cache")
        if not wrong["sqnr_db_against_fp32"] < taken["sqnr_db_against_fp32"] - 6:
            layers = taken.get("int8_layers")
            spoken = "nothing" if not layers else f"{layers} layers"
            found.append(
                f"wrong scales in our cache change nothing: with it, TensorRT runs {spoken} in INT8"
            )
    return found


def _minmax_problems(scales: Mapping[str, Any]) -> list[str]:
    found = [
        f"min-max scale of {pair['ours']} is {pair['ratio']:.3f} times the native one"
        for pair in scales["pairs"]
        if abs(pair["ratio"] - 1) > MINMAX_TOLERANCE
    ]
    missing = [row["ours"] for row in scales["not_in_native_cache"]]
    return found + [
        f"{name} has no native min-max scale" for name in (*missing, *scales["ours_without_pair"])
    ]


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Three tables: accuracy, parity, and ratios of scales; and the entropy scales that deviate."""
    return "\n\n".join(
        "\n".join(table)
        for table in (_accuracy(results), _parity(results), _scales(results), _deviations(results))
        if table
    )


def _accuracy(results: Sequence[Mapping[str, Any]]) -> list[str]:
    algorithms = list(dict.fromkeys(name for result in results for name in result["native"]))
    head = [
        "model",
        "images",
        "FP32, %",
        "ours entropy2, %",
        *(f"native {n}, %" for n in algorithms),
    ]
    lines = _head([*head, "ours - best native"])
    for result in (result for result in results if "ours" in result):
        native = {name: 100 * row["accuracy"] for name, row in result["native"].items()}
        ours = 100 * result["ours"]["accuracy"]
        cells = [
            result["model"],
            str(result["test_images"]),
            f"{100 * result['fp32_accuracy']:.2f}",
            f"{ours:.2f}",
            *(f"{native[name]:.2f}" if name in native else "not run" for name in algorithms),
            f"{ours - max(native.values()):+.2f}" if native else "-",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _parity(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _head(
        ["model", "top-1, engine = simulation", "SQNR, dB", "INT8 layers", "our cache in TensorRT"]
    )
    for result in (result for result in results if "ours" in result):
        parity, layers = result["parity"], result["ours"]["int8_layers"]
        cache = result.get("our_cache")
        spoken = "not run"
        if cache is not None:
            spoken = (
                f"{cache['ours']['batches_read']} batches read, "
                f"{100 * cache['ours']['accuracy']:.2f} %; scales / 8: "
                f"{100 * cache['ours with all scales / 8']['accuracy']:.2f} %"
            )
        lines.append(
            f"| {result['model']} | {100 * parity['top1_agreement']:.2f} % | {parity['sqnr_db']:.1f} | "
            f"{layers.get('INT8', 0)} of {layers['expected']} | {spoken} |"
        )
    return lines


def _scales(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _head(
        ["model", "calibrator", "tensors", "ours / native: median", "p5", "p95", "not in its cache"]
    )
    for result in results:
        for algorithm, native in result["native"].items():
            scales = native.get("scales")
            if scales is None or scales["ratio"] is None:
                continue
            ratio = scales["ratio"]
            lines.append(
                f"| {result['model']} | {algorithm} | {ratio['count']} | {ratio['median']:.3f} | "
                f"{ratio['p5']:.3f} | {ratio['p95']:.3f} | {len(scales['not_in_native_cache'])} |"
            )
    return lines


def _deviations(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = _head(
        ["model", "calibrator", "tensor", "ours / native", "ours / min-max", "native / min-max"]
    )
    for result in results:
        for algorithm, native in result["native"].items():
            for pair in native.get("scales", {"pairs": []})["pairs"]:
                if abs(pair["ratio"] - 1) > DEVIATION:
                    lines.append(
                        f"| {result['model']} | {algorithm} | {pair['ours']} | {pair['ratio']:.3f} | "
                        f"{pair['ours_of_minmax']:.3f} | {pair['native_of_minmax']:.3f} |"
                    )
    return lines if len(lines) > 2 else []


def _head(titles: Sequence[str]) -> list[str]:
    return ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
