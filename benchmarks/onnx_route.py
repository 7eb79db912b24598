"""The reference: PyTorch -> ONNX -> TensorRT's parser -> weakly typed network, native calibrators.

It needs a TensorRT 10: weak typing and calibrators are gone from TensorRT 11 and TensorRT-RTX.
"""

from __future__ import annotations

import contextlib
import io
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from trtcompile import _tensorrt

OPSET = 17
INPUT_NAME, OUTPUT_NAME = "input", "output"
#: Native calibrators, by the names that result files use.
CALIBRATORS = {
    "entropy2": "IInt8EntropyCalibrator2",
    "minmax": "IInt8MinMaxCalibrator",
    "entropy": "IInt8EntropyCalibrator",
    "legacy": "IInt8LegacyCalibrator",
}


class RouteError(RuntimeError):
    """The route is not available with this TensorRT, or a step of it failed."""


@dataclass(frozen=True)
class RouteBuild:
    """What the route made.

    Attributes:
        plan: the serialized engine.
        stages: seconds of ``export``, ``parse``, and ``build``, and, as a part of ``build``, of
            ``calibrate``: from the first batch asked for to the finished table.
        calibration_cache: TensorRT's calibration cache as text; None without INT8, or if it was given.
        batches_read: how many batches the calibrator handed out.
        timing_cache: what the builder measured, for a further build of the same layers.
    """

    plan: bytes
    stages: dict[str, float]
    calibration_cache: str | None
    batches_read: int = 0
    timing_cache: bytes = b""


def export_onnx(model: nn.Module, example: torch.Tensor) -> bytes:
    """The ONNX file of a model in eval mode for the example's shape."""
    file = io.BytesIO()
    with warnings.catch_warnings(), torch.no_grad():
        # The exporter that most users of TensorRT 10 have used; it says that it is the old one.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model,
            (example,),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=[INPUT_NAME],
            output_names=[OUTPUT_NAME],
        )
    return file.getvalue()


def build_route(model: nn.Module, example: torch.Tensor, **options: Any) -> RouteBuild:
    """Exports a model and builds a weakly typed engine with FP32 bindings.

    Args:
        model: in eval mode, on the device of ``example``.
        example: one float32 batch on the GPU.
        **options: those of ``build_onnx``.

    Raises:
        RouteError: this TensorRT has no weak typing or calibrators, or refused a step.
    """
    _require_calibrators()
    start = time.perf_counter()
    onnx_file = export_onnx(model, example)
    seconds = time.perf_counter() - start
    built = build_onnx(onnx_file, **options)
    return replace(built, stages={"export": seconds, **built.stages})


def build_onnx(
    onnx_file: bytes,
    *,
    fp16: bool,
    int8: bool,
    batches: Sequence[torch.Tensor] = (),
    algorithm: str = "entropy2",
    algorithm_options: Mapping[str, float] | None = None,
    cache: bytes | None = None,
    optimization_level: int | None = None,
    timing_cache: bytes | None = None,
) -> RouteBuild:
    """Builds a weakly typed engine of an ONNX file.

    Args:
        onnx_file: its content.
        fp16: sets the FP16 flag.
        int8: sets the INT8 flag and calibrates.
        batches: float32 calibration batches on the GPU, of the input's shape.
        algorithm: a key of ``CALIBRATORS``.
        algorithm_options: ``quantile`` and ``regression_cutoff`` of the legacy calibrator.
        cache: a calibration cache that the calibrator gives instead of reading batches.
        optimization_level: builder effort; None for TensorRT's default.
        timing_cache: of an earlier build, or empty for a build whose cache is to be kept; None
            keeps none, which is how build times are measured.

    Raises:
        RouteError: this TensorRT has no weak typing or calibrators, or refused a step.
    """
    flavour = _require_calibrators()
    trt = flavour.trt
    clock = _Stages()
    logger = _tensorrt.new_logger()
    builder = trt.Builder(logger)
    with clock.stage("parse"):
        network, parser = parse(builder, onnx_file, logger)
    config = builder.create_builder_config()
    # Both as in trtcompile's engines; eight timings are also what trtexec takes.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.avg_timing_iterations = 8
    if optimization_level is not None:
        config.builder_optimization_level = optimization_level
    if timing_cache is not None:
        config.set_timing_cache(config.create_timing_cache(timing_cache), False)
    calibrator = None
    if fp16:
        config.set_flag(trt.BuilderFlag.FP16)
    if int8:
        config.set_flag(trt.BuilderFlag.INT8)
        base = getattr(trt, CALIBRATORS[algorithm])
        calibrator = native_calibrator(base, batches, cache, algorithm_options)
        config.int8_calibrator = calibrator
    torch.cuda.synchronize()  # TensorRT reads the batches on a stream of its own
    with clock.stage("build"):
        plan = builder.build_serialized_network(network, config)
    del parser
    if plan is None:
        raise RouteError(f"{flavour} could not build the network: {'; '.join(logger.lines)}")
    if calibrator is not None and cache is None:
        if calibrator.cache is None:
            raise RouteError(f"{flavour} did not calibrate: {'; '.join(logger.lines)}")
        clock.seconds["calibrate"] = calibrator.finished - calibrator.started
    written = None if calibrator is None else calibrator.cache
    return RouteBuild(
        bytes(plan),
        clock.seconds,
        None if written is None else written.decode(),
        0 if calibrator is None else calibrator.batches_read,
        b"" if timing_cache is None else bytes(config.get_timing_cache().serialize()),
    )


def _require_calibrators() -> _tensorrt.Flavour:
    flavour = _tensorrt.load()
    if not (flavour.has_native_calibrators and hasattr(flavour.trt.BuilderFlag, "INT8")):
        raise RouteError(f"{flavour} has no weak typing and no calibrators. Use TensorRT 10.")
    return flavour


def parse(builder: Any, onnx_file: bytes, logger: Any) -> tuple[Any, Any]:
    """Reads an ONNX file into a network with default flags: weakly typed where there is weak typing.

    Returns:
        The network definition, and the parser, which owns weights that the build reads.

    Raises:
        RouteError: the parser refused the file.
    """
    trt = _tensorrt.load().trt
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(onnx_file):
        errors = [str(parser.get_error(index)) for index in range(parser.num_errors)]
        raise RouteError(f"TensorRT's ONNX parser refused the file: {'; '.join(errors)}")
    return network, parser


def native_calibrator(
    base: Any,
    batches: Sequence[torch.Tensor],
    given_cache: bytes | None = None,
    options: Mapping[str, float] | None = None,
) -> Any:
    """A calibrator of TensorRT's class ``base`` that hands out batches by their device pointers.

    Args:
        base: one of TensorRT's calibrator classes.
        batches: contiguous, float32.
        given_cache: what it gives as its cache; None for no cache.
        options: ``quantile`` and ``regression_cutoff``, which only the legacy class asks for.
    """

    class BatchCalibrator(base):
        def __init__(self) -> None:
            base.__init__(self)  # not super(): TensorRT's classes demand it so
            self.cache: bytes | None = None
            self.started = self.finished = 0.0
            self.batches_read = 0
            self._remaining = iter(batches)

        def get_batch_size(self) -> int:
            return int(batches[0].shape[0])

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            self.started = self.started or time.perf_counter()
            batch = next(self._remaining, None)
            self.batches_read += batch is not None
            return None if batch is None else [batch.data_ptr()]

        def read_calibration_cache(self) -> bytes | None:
            return given_cache

        def write_calibration_cache(self, cache: Any) -> None:
            self.cache = bytes(cache)
            self.finished = time.perf_counter()

        def get_quantile(self) -> float:
            return (options or {})["quantile"]

        def get_regression_cutoff(self) -> float:
            return (options or {})["regression_cutoff"]

        def read_histogram_cache(self, length: int) -> None:
            return None

        def write_histogram_cache(self, data: Any, length: int) -> None:
            """Keeps nothing."""

    if not batches or any(b.dtype != torch.float32 or not b.is_contiguous() for b in batches):
        raise ValueError("calibration needs contiguous float32 batches.")
    return BatchCalibrator()


@dataclass
class _Stages:
    seconds: dict[str, float] = field(default_factory=dict)

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start
