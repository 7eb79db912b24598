"""Calibrate a trained VGG16, compile it to an INT8 TensorRT engine, and compare."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from checkpoint import load_checkpoint
from data import (
    MAX_CALIBRATION_IMAGES,
    DatasetMissingError,
    ImageDataset,
    Splits,
    calibration_subset,
    load,
    require_disjoint,
)
from evaluate import classify_all, median_latency_ms, signal_to_noise_db
from plot import plot_scales
from torch.utils.data import DataLoader
from vgg import VGG16

import trtcompile
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

CPU = torch.device("cpu")
DEFAULT_COMPUTE_CAPABILITY = "8.9"
ENGINE_FILE = "vgg16_int8.trtc"
CACHE_FILE = "calibration.cache"
INDICES_FILE = "calibration_indices.json"
PICTURE_FILE = "scales.png"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, default=Path("build/demo/vgg16.pt"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--batch-size", type=int, default=32, help="the engine's batch size")
    parser.add_argument(
        "--calibration-images",
        type=int,
        default=MAX_CALIBRATION_IMAGES,
        help="how many training images to calibrate with",
    )
    parser.add_argument("--seed", type=int, default=0, help="chooses the calibration images")
    parser.add_argument(
        "--compute-capability",
        default=None if torch.cuda.is_available() else DEFAULT_COMPUTE_CAPABILITY,
        help="build ahead of time for this GPU generation instead of for the GPU that is here",
    )
    parser.add_argument("--output", type=Path, default=Path("build/demo"), help="folder to write")
    return parser.parse_args(arguments)


def choose_target(compute_capability: str | None) -> tuple[trtcompile.Device, set[torch.dtype]]:
    """The device to compile for, and the precisions that its INT8 engine may use."""
    if compute_capability is not None:
        return trtcompile.Device(compute_capability=compute_capability), {torch.int8}
    return trtcompile.Device(gpu_id=0), {torch.float, torch.half, torch.int8}


def make_calibrator(
    splits: Splits, *, count: int, seed: int, output: Path
) -> tuple[DataLoaderCalibrator, int]:
    """A calibrator over training images, and how many; saves their indices."""
    subset, indices = calibration_subset(
        splits.plain_train, min(count, len(splits.plain_train)), seed
    )
    require_disjoint(subset, splits.test)
    record = {"split": "train", "seed": seed, "indices": indices}
    (output / INDICES_FILE).write_text(json.dumps(record) + "\n")
    calibrator = DataLoaderCalibrator(
        DataLoader(subset, batch_size=64),
        cache_file=output / CACHE_FILE,
        use_cache=False,
        algo_type=CalibrationAlgo.ENTROPY_CALIBRATION_2,
    )
    return calibrator, len(indices)


def compare(
    model: VGG16,
    fp32: trtcompile.TRTModule,
    int8: trtcompile.TRTModule,
    test: ImageDataset,
    batch_size: int,
) -> list[tuple[str, str]]:
    """Rows of the closing table: what was measured, or why it was not."""
    total = len(test)

    def share(correct: torch.Tensor) -> str:
        count = int(correct.sum())
        return f"{100 * count / total:.2f} % ({count} of {total})"

    eager, labels = classify_all(model, test, batch_size=batch_size, device=CPU)
    simulated, _ = classify_all(int8.lowered, test, batch_size=batch_size, device=CPU)
    right_in_fp32 = eager.argmax(dim=1) == labels
    right_in_int8 = simulated.argmax(dim=1) == labels
    rows = [
        ("FP32 accuracy", share(right_in_fp32)),
        ("INT8 simulation accuracy", share(right_in_int8)),
        ("  right in FP32, wrong in INT8", str(int((right_in_fp32 & ~right_in_int8).sum()))),
        ("  wrong in FP32, right in INT8", str(int((~right_in_fp32 & right_in_int8).sum()))),
        ("  signal to noise of its logits", f"{signal_to_noise_db(eager, simulated):.1f} dB"),
    ]
    if int8.runnable is None:
        device = int8.spec.device.torch_device
        executed, _ = classify_all(int8, test, batch_size=batch_size, device=device)
        images = torch.stack([test[index % total][0] for index in range(batch_size)]).to(device)
        model = model.to(device)
        rows += [
            ("INT8 engine accuracy", share(executed.argmax(dim=1) == labels)),
            (
                "  same class as simulation",
                share(executed.argmax(dim=1) == simulated.argmax(dim=1)),
            ),
            (f"PyTorch FP32, batch {batch_size}", f"{median_latency_ms(model, images):.3f} ms"),
            (f"FP32 engine, batch {batch_size}", f"{median_latency_ms(fp32, images):.3f} ms"),
            (f"INT8 engine, batch {batch_size}", f"{median_latency_ms(int8, images):.3f} ms"),
        ]
    else:
        rows += [
            ("INT8 engine accuracy", f"not run: {int8.runnable}"),
            ("latency", "not run: the same reason"),
        ]
    fp32_bytes, int8_bytes = plan_bytes(fp32), plan_bytes(int8)
    rows += [
        ("FP32 engine size", f"{fp32_bytes / 1e6:.2f} MB"),
        ("INT8 engine size", f"{int8_bytes / 1e6:.2f} MB ({int8_bytes / fp32_bytes:.2f} of FP32)"),
    ]
    return rows


def plan_bytes(compiled: trtcompile.TRTModule) -> int:
    return sum(len(engine.plan) for engine in compiled.engines)


def main(arguments: Sequence[str] | None = None) -> None:
    options = parse_arguments(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    model, metadata = load_checkpoint(options.checkpoint)
    # The checkpoint's own seed gives the split that it was trained on.
    splits = load(str(metadata["data"]), data_dir=options.data_dir, seed=int(metadata["seed"]))
    calibrator, image_count = make_calibrator(
        splits, count=options.calibration_images, seed=options.seed, output=options.output
    )
    device, precisions = choose_target(options.compute_capability)
    inputs = [trtcompile.Input((options.batch_size, 3, 32, 32))]

    description = f"VGG16 (width {metadata['width']}) on {metadata['data']}"
    target = f"compute capability {options.compute_capability}, without running it"
    print(f"{description}, compiled for {target if options.compute_capability else device}")
    fp32 = trtcompile.compile(model, inputs=inputs, enabled_precisions={torch.float}, device=device)
    int8 = trtcompile.compile(
        model,
        inputs=inputs,
        enabled_precisions=precisions,
        calibrator=calibrator,
        device=device,
    )
    print(f"\n{int8.report}\n")

    trtcompile.save(int8, options.output / ENGINE_FILE)
    plot_scales(
        calibrator.table(),
        calibrator.table(CalibrationAlgo.MINMAX_CALIBRATION),
        options.output / PICTURE_FILE,
        title=f"Activation scales of {description}, {image_count} calibration images",
    )
    rows = compare(model, fp32, int8, splits.test, options.batch_size)
    rows.append(("calibration images", f"{image_count}, from the training split"))
    label_width = max(len(label) for label, _ in rows)
    for label, value in rows:
        print(f"{label:<{label_width}}  {value}")
    files = f"{ENGINE_FILE}, {CACHE_FILE}, {INDICES_FILE} and {PICTURE_FILE}"
    print(f"\nwrote {files} to {options.output}")


if __name__ == "__main__":
    try:
        main()
    except DatasetMissingError as error:
        sys.exit(str(error))
