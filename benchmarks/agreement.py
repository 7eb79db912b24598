"""Engine against simulation on a trained VGG16, and which of its layers run in INT8.

    python benchmarks/agreement.py --checkpoint vgg16.pt

The exit status is 1 if fewer than 99.5 % of the predictions agree, or if a convolution that has
INT8 inputs and weights in the lowered graph is no INT8 layer of the engine.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import environment
import torch
from engine_layers import expected_int8, int8_layers
from metrics import sqnr_db, top1
from result_file import write_result
from torch.utils.data import DataLoader
from workloads import with_example_on_path

import trtcompile
from trtcompile.ptq import DataLoaderCalibrator

LEAST_AGREEMENT = 0.995


def compare_outputs(
    engine: torch.Tensor, simulation: torch.Tensor, eager: torch.Tensor
) -> dict[str, float]:
    """Agreement and SQNR of logits ``[images, classes]``."""
    return {
        "images": len(engine),
        "top1_engine_simulation": top1(simulation, engine).agreement,
        "top1_engine_eager": top1(eager, engine).agreement,
        "top1_simulation_eager": top1(eager, simulation).agreement,
        "sqnr_db_engine_simulation": sqnr_db(simulation, engine),
        "sqnr_db_engine_eager": sqnr_db(eager, engine),
        "sqnr_db_simulation_eager": sqnr_db(eager, simulation),
    }


def layer_problems(convolutions: Sequence[str], layers: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the convolutions of an engine, one sentence each.

    Linear layers are reported and not judged: the builder may run a small one in FP16.
    """
    if not convolutions:
        return ["no convolution of the lowered graph is INT8"]
    verdicts = {layer["operator"]: layer["verdict"] for layer in layers}
    return [
        f"{name} is {verdicts.get(name, 'not found')} in the engine"
        for name in convolutions
        if verdicts.get(name) != "INT8"
    ]


def outputs_of(
    function: Callable[[torch.Tensor], torch.Tensor], batches: Sequence[torch.Tensor]
) -> torch.Tensor:
    with torch.no_grad():
        return torch.cat([function(batch).float().cpu() for batch in batches])


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", type=Path, required=True, help="written by train.py")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--images", type=int, default=5000, help="images to predict, at most")
    parser.add_argument("--calibration-images", type=int, default=1024)
    parser.add_argument("--inspection", type=Path, help="where to write TensorRT's layer list")
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    default = Path(__file__).resolve().parent / "results" / "agreement-vgg16.json"
    parser.add_argument("--output", type=Path, default=default)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if not torch.cuda.is_available():
        sys.exit("This benchmark runs an engine: it needs an NVIDIA GPU and a TensorRT for it.")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    with_example_on_path()
    from checkpoint import load_checkpoint
    from data import calibration_subset, load
    from evaluate import accuracy

    model, metadata = load_checkpoint(options.checkpoint)
    splits = load(str(metadata["data"]), data_dir=options.data_dir, seed=int(metadata["seed"]))
    chosen, indices = calibration_subset(splits.plain_train, options.calibration_images)
    compiled = trtcompile.compile(
        model,
        [trtcompile.Input((options.batch, 3, 32, 32))],
        enabled_precisions={torch.float, torch.half, torch.int8},
        calibrator=DataLoaderCalibrator(DataLoader(chosen, batch_size=64), progress=False),
        device="cuda:0",
        require_full_compilation=True,
    )
    # Test images first. Whether engine and simulation agree can be asked of training images too.
    pool = [splits.test[i] for i in range(min(len(splits.test), options.images))]
    rest = range(min(len(splits.train), options.images - len(pool)))
    pool += [splits.train[i] for i in rest]
    pool = pool[: len(pool) // options.batch * options.batch]
    images = torch.stack([image for image, _ in pool])
    tests = min(len(splits.test), len(images))
    labels = torch.tensor([label for _, label in pool[:tests]])
    batches = [batch.cuda() for batch in images.split(options.batch)]

    engine = outputs_of(compiled, batches)
    simulation = outputs_of(copy.deepcopy(compiled.lowered).cuda(), batches)
    eager = outputs_of(copy.deepcopy(model).cuda().eval(), batches)
    named = {"engine": engine, "simulation": simulation, "eager FP32": eager}
    convolutions, linears = expected_int8(compiled.report)
    inspection = compiled.engine_modules[0].session().inspect()
    if options.inspection is not None:
        options.inspection.write_text(inspection)
    layers = [layer.as_json() for layer in int8_layers(inspection, [*convolutions, *linears])]
    outputs = compare_outputs(engine, simulation, eager)
    problems = layer_problems(convolutions, layers)
    if outputs["top1_engine_simulation"] < LEAST_AGREEMENT:
        problems.append(f"only {outputs['top1_engine_simulation']:.2%} of the predictions agree")
    result = {
        "kind": "agreement",
        "environment": environment.describe(options.commit),
        "checkpoint": metadata,
        "batch": options.batch,
        "calibration_indices": indices,
        "outputs": outputs,
        "test_images": tests,
        "test_accuracy": {
            name: accuracy(logits[:tests].argmax(dim=1), labels) for name, logits in named.items()
        },
        "plan_bytes": len(compiled.engines[0].plan),
        "layers": layers,
        "problems": problems,
    }
    write_result(options.output, result)
    print_result(result)
    print(f"wrote {options.output}")
    return 1 if problems else 0


def print_result(result: Mapping[str, Any]) -> None:
    for layer in result["layers"]:
        inputs = ", ".join(layer["inputs"])
        print(f"{layer['operator']:<16} {layer['verdict']:<9} {inputs}  weights {layer['weights']}")
    for name, value in result["outputs"].items():
        print(f"{name}: {value:.4f}" if isinstance(value, float) else f"{name}: {value}")
    print(f"accuracy on {result['test_images']} test images: {result['test_accuracy']}")
    for problem in result["problems"]:
        print(f"PROBLEM: {problem}")


if __name__ == "__main__":
    sys.exit(main())
