"""Scales of TensorRT's native calibrators beside ours, on the same trained VGG16 and the same batches.

    python benchmarks/native_calibration.py --checkpoint vgg16.pt

The result lists every pair of tensors with both scales and their ratio, ours over native. The exit
status is 1 if a tensor has no counterpart, or if a min-max scale differs by more than 1 %.
"""

from __future__ import annotations

import argparse
import math
import struct
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import environment
import torch
from metrics import spread
from onnx_route import build_route, export_onnx
from reader_pairs import Reader, readers_of_graph
from result_file import write_result
from simulation import simulation
from tensor_pairs import NamedTensor, pair, tensors_of_graph, tensors_of_onnx
from workloads import with_example_on_path

from trtcompile.ptq import CalibrationAlgo, CalibrationTable, Calibrator, DataLoaderCalibrator
from trtcompile.ptq.request import CalibrationRequest

ALGORITHMS = {
    "entropy2": CalibrationAlgo.ENTROPY_CALIBRATION_2,
    "minmax": CalibrationAlgo.MINMAX_CALIBRATION,
}
MINMAX_TOLERANCE = 0.01


class RecordingCalibrator(Calibrator):
    """Calibrates, and keeps the graph that it did it for, before Q/DQ are in it."""

    def __init__(self, calibrator: DataLoaderCalibrator) -> None:
        self._calibrator = calibrator
        self.tensors: list[NamedTensor] = []
        self.readers: list[Reader] = []
        self.groups: tuple[tuple[str, ...], ...] = ()

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        self.tensors = tensors_of_graph(request.graph)
        self.readers = readers_of_graph(request.graph)
        self.groups = request.groups
        return self._calibrator.calibrate(request)


def our_tables(
    model: torch.nn.Module, batches: Sequence[torch.Tensor], device: torch.device
) -> tuple[dict[str, CalibrationTable], list[NamedTensor]]:
    """Our tables by algorithm, from one pass over the batches, and the tensors of the graph."""
    calibrator = DataLoaderCalibrator(list(batches), device=device, progress=False)
    recording = RecordingCalibrator(calibrator)
    simulation(model, tuple(batches[0].shape), recording, {torch.float, torch.int8})
    tables = {name: calibrator.table(algo) for name, algo in ALGORITHMS.items()}
    return tables, recording.tensors


def read_cache(text: str) -> dict[str, float]:
    """The scales of a native calibration cache, which may also be zero or infinite."""
    scales = {}
    for line in text.splitlines()[1:]:
        name, separator, digits = line.rpartition(": ")
        if separator:
            scales[name] = struct.unpack(">f", bytes.fromhex(digits.strip()))[0]
    return scales


def compare(
    pairs: Sequence[tuple[str, str, str]], ours: Mapping[str, float], native: Mapping[str, float]
) -> dict[str, Any]:
    """Compares the scales of every tensor that we quantize.

    Args:
        pairs: ``(kind, our name, native name)``.
        ours: our scales; every name is among the pairs' or else reported.
        native: native scales, which cover more tensors than ours.
    """
    rows, missing = [], []
    for kind, our_name, native_name in pairs:
        if our_name not in ours:
            continue
        native_scale = native.get(native_name, math.nan)
        if not (math.isfinite(native_scale) and native_scale > 0):
            missing.append({"kind": kind, "ours": our_name, "native": native_name})
            continue
        rows.append(
            {
                "kind": kind,
                "ours": our_name,
                "native": native_name,
                "our_scale": ours[our_name],
                "native_scale": native_scale,
                "ratio": ours[our_name] / native_scale,
            }
        )
    paired = {our_name for _, our_name, _ in pairs}
    used = {row["native"] for row in rows}
    return {
        "ratio": spread([row["ratio"] for row in rows]) if rows else None,
        "pairs": rows,
        "not_in_native_cache": missing,
        "ours_without_pair": sorted(set(ours) - paired),
        "native_only": sorted(set(native) - used),
    }


def is_good(algorithm: str, comparison: Mapping[str, Any]) -> bool:
    """Whether every tensor has its counterpart and, for min-max, a scale within 1 %."""
    if comparison["not_in_native_cache"] or comparison["ours_without_pair"]:
        return False
    ratios = [row["ratio"] for row in comparison["pairs"]]
    within = all(abs(ratio - 1) <= MINMAX_TOLERANCE for ratio in ratios)
    return bool(ratios) and (within or algorithm != "minmax")


def print_comparison(algorithm: str, comparison: Mapping[str, Any]) -> None:
    print(f"\n{algorithm}: ours / native")
    for row in comparison["pairs"]:
        scales = f"{row['our_scale']:.6f} / {row['native_scale']:.6f} = {row['ratio']:.4f}"
        print(f"  {row['ours']:<16} {row['native']:<44} {scales}")
    for row in comparison["not_in_native_cache"]:
        print(f"  {row['ours']:<16} {row['native']:<44} not in the native cache")
    for name in comparison["ours_without_pair"]:
        print(f"  {name:<16} has no counterpart")
    print(f"  {comparison['ratio']}")


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="written by train.py")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--images", type=int, default=1024, help="calibration images")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    default = Path(__file__).resolve().parent / "results" / "native-calibration-vgg16.json"
    parser.add_argument("--output", type=Path, default=default)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if not torch.cuda.is_available():
        sys.exit("The native calibrators need an NVIDIA GPU and TensorRT 10.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with_example_on_path()
    from checkpoint import load_checkpoint
    from data import calibration_subset, load

    model, metadata = load_checkpoint(options.checkpoint)
    splits = load(str(metadata["data"]), data_dir=options.data_dir, seed=int(metadata["seed"]))
    chosen, _ = calibration_subset(splits.plain_train, options.images)
    images = torch.stack([image for image, _ in chosen])
    images = images[: len(images) // options.batch * options.batch]  # native batches are full
    batches = [batch.contiguous().cuda() for batch in images.split(options.batch)]

    tables, our_tensors = our_tables(model, batches, torch.device("cuda:0"))
    on_gpu = model.cuda().eval()
    pairs = pair(our_tensors, tensors_of_onnx(export_onnx(on_gpu, batches[0])))
    result: dict[str, Any] = {
        "kind": "native calibration",
        "environment": environment.describe(options.commit),
        "checkpoint": metadata,
        "calibration": {"images": len(images), "batch": options.batch},
        "algorithms": {},
    }
    good = True
    for algorithm in ALGORITHMS:
        # The table does not depend on the builder's effort, so the least will do.
        route = build_route(
            on_gpu,
            batches[0],
            fp16=False,
            int8=True,
            batches=batches,
            algorithm=algorithm,
            optimization_level=0,
        )
        comparison = compare(pairs, tables[algorithm], read_cache(route.calibration_cache or ""))
        comparison["native_cache"] = route.calibration_cache
        result["algorithms"][algorithm] = comparison
        write_result(options.output, result)
        print_comparison(algorithm, comparison)
        good = is_good(algorithm, comparison) and good
    print(f"wrote {options.output}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
