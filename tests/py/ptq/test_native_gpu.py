"""TensorRT's own calibrator classes, and our cache in TensorRT's hands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import trtcompile
from trtcompile import _tensorrt
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, DataLoaderCalibrator
from trtcompile.ptq.cache_file import format_text

pytestmark = pytest.mark.gpu

IMAGES = torch.randn(16, 8, 12, 12, generator=torch.Generator().manual_seed(0))
_CLASSES = {
    "IInt8EntropyCalibrator2": CalibrationAlgo.ENTROPY_CALIBRATION_2,
    "IInt8EntropyCalibrator": CalibrationAlgo.ENTROPY_CALIBRATION,
    "IInt8MinMaxCalibrator": CalibrationAlgo.MINMAX_CALIBRATION,
}


@pytest.fixture
def trt() -> Any:
    flavour = _tensorrt.load()
    if not flavour.has_native_calibrators:
        pytest.skip(f"{flavour} has no calibrators: install TensorRT 10")
    return flavour.trt


def native(base: type[Any], batches: Sequence[torch.Tensor], cache: bytes | None = None) -> Any:
    """A calibrator as users of TensorRT write it."""

    class Native(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)  # not super(): TensorRT's classes demand it so
            self.written: bytes | None = None
            self.given = 0

        def get_batch_size(self) -> int:
            return len(batches[0])

        def get_batch(self, names: Sequence[str]) -> list[int] | None:
            if self.given == len(batches):
                return None
            self.given += 1
            return [batches[self.given - 1].data_ptr()]

        def read_calibration_cache(self) -> bytes | None:
            return cache

        def write_calibration_cache(self, text: Any) -> None:
            self.written = bytes(text)

    return Native()


def convolutions() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(8, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)).eval()


@pytest.mark.parametrize("name", _CLASSES)
def test_an_object_of_a_derived_class_is_a_calibrator(trt: Any, name: str) -> None:
    model = convolutions()
    inputs, precisions = [trtcompile.Input((4, 8, 12, 12))], {torch.float, torch.int8}
    calibrator = native(getattr(trt, name), IMAGES.cuda().split(4))
    compiled = trtcompile.compile(
        model, inputs, enabled_precisions=precisions, calibrator=calibrator
    )
    loader = DataLoaderCalibrator([IMAGES], algo_type=_CLASSES[name])
    reference = trtcompile.compile(model, inputs, enabled_precisions=precisions, calibrator=loader)
    assert compiled.calibration_table == reference.calibration_table
    assert calibrator.given == 4 and calibrator.written is not None
    x = IMAGES[:4].cuda()
    torch.testing.assert_close(compiled(x), reference(x), rtol=1e-3, atol=1e-3)


def test_tensorrt_uses_our_cache(trt: Any) -> None:
    logger = _tensorrt.new_logger()
    builder = trt.Builder(logger)
    network = builder.create_network(0)
    image = network.add_input("input_0", trt.float32, (4, 8, 12, 12))
    kernel = np.eye(8, dtype=np.float32).reshape(8, 8, 1, 1)
    layer = network.add_convolution_nd(image, 8, (1, 1), trt.Weights(kernel), trt.Weights())
    layer.get_output(0).name = "convolution"
    pooling = network.add_pooling_nd(layer.get_output(0), trt.PoolingType.MAX, (2, 2))
    pooling.stride_nd = (2, 2)
    pooled = pooling.get_output(0)
    pooled.name = "max_pool2d"
    network.mark_output(pooled)
    scale = 0.25  # so coarse that the engine's output shows it
    table = CalibrationTable(
        dict.fromkeys(("input_0", "convolution", "max_pool2d"), scale),
        algo=CalibrationAlgo.ENTROPY_CALIBRATION_2,
    )
    calibrator = native(trt.IInt8EntropyCalibrator2, IMAGES.cuda().split(4), format_text(table))
    config = builder.create_builder_config()
    config.set_flag(trt.BuilderFlag.INT8)
    config.int8_calibrator = calibrator
    layer.precision = trt.int8
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None, logger.lines
    assert calibrator.given == 0, "TensorRT calibrated anew"
    engine = trt.Runtime(logger).deserialize_cuda_engine(plan)
    context = engine.create_execution_context()
    x, y = IMAGES[:4].cuda(), torch.empty(4, 8, 6, 6, device="cuda")
    context.set_tensor_address("input_0", x.data_ptr())
    context.set_tensor_address("max_pool2d", y.data_ptr())
    stream = torch.cuda.Stream()
    torch.cuda.synchronize()
    assert context.execute_async_v3(stream.cuda_stream)
    stream.synchronize()
    quantized = (x / scale).round().clamp(-128, 127) * scale
    torch.testing.assert_close(y, nn.functional.max_pool2d(quantized, 2), rtol=0, atol=1e-5)
