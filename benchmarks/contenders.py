"""The sides of a comparison: each builds a serialized engine of the same model."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from engine_layers import expected_int8
from onnx_route import build_route
from stages import BUILDER, timed_stages
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import Workload

import trtcompile
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator


@dataclass(frozen=True)
class Built:
    """One build.

    Attributes:
        plan: the serialized engine.
        seconds: from the PyTorch model to the plan, calibration included.
        stages: seconds of its parts; ``before_builder`` is everything but NVIDIA's builder.
        simulation: the lowered graph in PyTorch, on the CPU; None for the route.
        int8_operators: the convolutions that are INT8 in the lowered graph.
        left_out: weighted operators that are not, and the rule for it.
        calibrated: False if the scales were those of an earlier build.
        reused: whether another process has made it.
    """

    plan: bytes | memoryview
    seconds: float
    stages: dict[str, float]
    simulation: nn.Module | None
    int8_operators: tuple[str, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    calibrated: bool = True
    reused: bool = False


@dataclass(frozen=True)
class Contender:
    """A side.

    Attributes:
        name: its key in result files.
        description: what it is, for readers.
        minimum_sqnr_db: what its outputs must reach against the simulation, or against eager FP32
            where there is none: far above what a wrong scale or a missing layer gives, and below
            what 50 layers of random weights leave of the precision.
        build: makes an engine for the workload; its second argument is the model on the GPU.
    """

    name: str
    description: str
    minimum_sqnr_db: float
    build: Callable[[Workload, nn.Module], Built]


def build_ours(workload: Workload, precisions: set[torch.dtype], device: Any = "cuda:0") -> Built:
    """Compiles with trtcompile, by default for the GPU of this machine."""
    options: dict[str, Any] = {}
    if torch.int8 in precisions:
        loader = DataLoader(TensorDataset(workload.calibration), batch_size=workload.batch)
        algorithm = CalibrationAlgo.ENTROPY_CALIBRATION_2
        options["calibrator"] = DataLoaderCalibrator(loader, algo_type=algorithm, progress=False)
    with timed_stages() as stages:
        start = time.perf_counter()
        compiled = trtcompile.compile(
            workload.model,
            [trtcompile.Input(workload.input_shape)],
            enabled_precisions=precisions,
            device=device,
            require_full_compilation=True,
            **options,
        )
        seconds = time.perf_counter() - start
    (engine,) = compiled.engines
    stages = {**stages, "before_builder": seconds - stages[BUILDER]}
    convolutions, _ = expected_int8(compiled.report)
    left_out = compiled.report.not_quantized
    return Built(engine.plan, seconds, stages, compiled.lowered, tuple(convolutions), left_out)


def build_onnx(
    workload: Workload, on_gpu: nn.Module, *, int8: bool, caches: Path | None = None
) -> Built:
    """Goes through ONNX, with the FP16 flag, and with the INT8 flag and calibrator if asked for.

    Args:
        workload: the model and its data.
        on_gpu: the model on the GPU.
        int8: with INT8.
        caches: folder for TensorRT's calibration caches, a file for each model. Where it has one,
            the batches are not needed: names and scales do not depend on the batch size.
    """
    device = next(on_gpu.parameters()).device
    start = time.perf_counter()
    batches = [b.to(device) for b in workload.calibration.split(workload.batch)] if int8 else []
    example = workload.evaluation[: workload.batch].to(device)
    file = caches / f"{workload.name}.cache" if int8 and caches is not None else None
    cache = file.read_bytes() if file is not None and file.is_file() else None
    route = build_route(on_gpu, example, fp16=True, int8=int8, batches=batches, cache=cache)
    seconds = time.perf_counter() - start
    if file is not None and cache is None and route.calibration_cache is not None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(route.calibration_cache)
    # The builder calibrates by itself, so only what is in front of it can be told apart.
    stages = {**route.stages, "before_builder": seconds - route.stages["build"]}
    return Built(route.plan, seconds, stages, None, calibrated=cache is None)


def kept(side: Contender, folder: Path) -> Contender:
    """The same side, but its builds are written to files, and those that are there are not made again.

    So the sides of a row whose builds take minutes can be built by several processes at once, each on a GPU of its own
    of the same kind.
    """
    numbers = itertools.count(1)

    def build(workload: Workload, on_gpu: nn.Module) -> Built:
        file = folder / f"{workload.name}-b{workload.batch}-{side.name}-{next(numbers)}.pt"
        if file.is_file():
            # Files of this program alone; a simulation is code, which safe loading refuses.
            return dataclasses.replace(torch.load(file, weights_only=False), reused=True)
        built = side.build(workload, on_gpu)
        # Loading traces the code again, for which the tracer of torch.export does not do.
        if built.simulation is not None:
            vars(built.simulation).pop("_tracer_cls", None)
        folder.mkdir(parents=True, exist_ok=True)
        unfinished = file.with_suffix(".part")
        torch.save(dataclasses.replace(built, plan=bytes(built.plan)), unfinished)
        unfinished.replace(file)
        return built

    return dataclasses.replace(side, build=build)


def contenders(caches: Path | None = None) -> dict[str, Contender]:
    """All sides by name.

    Args:
        caches: as ``build_onnx`` takes it.
    """
    sides = (
        Contender(
            "ours-int8",
            "trtcompile {float, half, int8}, strongly typed, entropy calibration in PyTorch",
            6.0,
            lambda workload, _: build_ours(workload, {torch.float, torch.half, torch.int8}),
        ),
        Contender(
            "ours-fp16",
            "trtcompile {float, half}, strongly typed",
            20.0,
            lambda workload, _: build_ours(workload, {torch.float, torch.half}),
        ),
        Contender(
            "onnx-int8",
            "ONNX -> TensorRT, weakly typed, flags INT8 and FP16, native entropy calibrator 2",
            1.0,
            lambda workload, on_gpu: build_onnx(workload, on_gpu, int8=True, caches=caches),
        ),
        Contender(
            "onnx-fp16",
            "ONNX -> TensorRT, weakly typed, flag FP16",
            20.0,
            lambda workload, on_gpu: build_onnx(workload, on_gpu, int8=False),
        ),
    )
    return {side.name: side for side in sides}
