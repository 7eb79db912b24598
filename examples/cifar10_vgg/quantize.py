"""Calibrate a trained VGG16, compile it to an INT8 TensorRT engine, and compare."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from checkpoint import load_checkpoint
from data import MAX_CALIBRATION_IMAGES, Splits, calibration_subset, load, require_disjoint
from evaluate import accuracy, median_latency_ms, predict
from plot import plot_scales
from torch.utils.data import DataLoader
from vgg import VGG16

import trtcompile
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

CPU = torch.device("cpu")
DEFAULT_COMPUTE_CAPABILITY = "8.9"


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
    splits: Splits, options: argparse.Namespace
) -> tuple[DataLoaderCalibrator, int]:
    """A calibrator over training images, whose indices it saves, and how many there are."""
    subset, indices = calibration_subset(
        splits.plain_train, min(options.calibration_images, len(splits.plain_train)), options.seed
    )
    require_disjoint(subset, splits.test)
    chosen = {"split": "train", "seed": options.seed, "indices": indices}
    (options.output / "calibration_indices.json").write_text(json.dumps(chosen) + "\n")
    calibrator = DataLoaderCalibrator(
        DataLoader(subset, batch_size=64),
        cache_file=options.output / "calibration.cache",
        use_cache=False,
        algo_type=CalibrationAlgo.ENTROPY_CALIBRATION_2,
    )
    return calibrator, len(indices)


def compare(
    model: VGG16,
    fp32: trtcompile.TRTModule,
    int8: trtcompile.TRTModule,
    splits: Splits,
    batch_size: int,
) -> list[tuple[str, str]]:
    """Rows of the closing table: what was measured, or why it was not."""
    total = len(splits.test)

    def share(predicted: torch.Tensor, true: torch.Tensor) -> str:
        correct = int((predicted == true).sum())
        return f"{100 * accuracy(predicted, true):.2f} % ({correct} of {total})"

    eager, true = predict(model, splits.test, batch_size=batch_size, device=CPU)
    simulated, _ = predict(int8.lowered, splits.test, batch_size=batch_size, device=CPU)
    lost = int(((eager == true) & (simulated != true)).sum())
    gained = int(((eager != true) & (simulated == true)).sum())
    rows = [
        ("FP32 accuracy", share(eager, true)),
        ("INT8 simulation accuracy", share(simulated, true)),
        ("  right in FP32, wrong in INT8", str(lost)),
        ("  wrong in FP32, right in INT8", str(gained)),
    ]
    if int8.runnable is None:
        device = int8.spec.device.torch_device
        executed, _ = predict(int8, splits.test, batch_size=batch_size, device=device)
        images = torch.stack([splits.test[i % total][0] for i in range(batch_size)]).to(device)
        model = model.to(device)
        rows += [
            ("INT8 engine accuracy", share(executed, true)),
            ("  same class as the simulation", share(executed, simulated)),
            (f"PyTorch FP32, batch {batch_size}", f"{median_latency_ms(model, images):.3f} ms"),
            (f"FP32 engine, batch {batch_size}", f"{median_latency_ms(fp32, images):.3f} ms"),
            (f"INT8 engine, batch {batch_size}", f"{median_latency_ms(int8, images):.3f} ms"),
        ]
    else:
        rows += [
            ("INT8 engine accuracy", f"not run: {int8.runnable}"),
            ("latency", "not run: for the same reason"),
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
    # The checkpoint's seed, so that the split is the one it was trained on.
    splits = load(str(metadata["data"]), data_dir=options.data_dir, seed=int(metadata["seed"]))
    calibrator, calibration_images = make_calibrator(splits, options)
    device, precisions = choose_target(options.compute_capability)
    inputs = [trtcompile.Input((options.batch_size, 3, 32, 32))]

    print(
        f"VGG16, width {metadata['width']}, trained on {metadata['data']}; compiling for {device}"
    )
    fp32 = trtcompile.compile(model, inputs=inputs, enabled_precisions={torch.float}, device=device)
    int8 = trtcompile.compile(
        model,
        inputs=inputs,
        enabled_precisions=precisions,
        calibrator=calibrator,
        device=device,
    )
    print(int8.report)

    trtcompile.save(int8, options.output / "vgg16_int8.trtc")
    plot_scales(
        calibrator.table(),
        calibrator.table(CalibrationAlgo.MINMAX_CALIBRATION),
        options.output / "scales.png",
        title=f"Activation scales, VGG16 (width {metadata['width']}) on {metadata['data']}, "
        f"{calibration_images} calibration images",
    )
    rows = compare(model, fp32, int8, splits, options.batch_size)
    rows.append(("calibration images", f"{calibration_images}, from the training split"))
    label_width = max(len(label) for label, _ in rows)
    print()
    for label, value in rows:
        print(f"{label:<{label_width}}  {value}")
    print(f"\nwrote {', '.join(sorted(path.name for path in options.output.iterdir()))}")


if __name__ == "__main__":
    main()
