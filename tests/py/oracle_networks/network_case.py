"""What a small network for the oracle consists of."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

Tensor = torch.Tensor
Outputs = Tensor | Sequence[Tensor]

TORCH_TYPES: dict[str, torch.dtype] = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT8": torch.int8,
    "FP8": torch.float8_e4m3fn,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "BOOL": torch.bool,
    "UINT8": torch.uint8,
}
_TYPE_NAMES = {dtype: name for name, dtype in TORCH_TYPES.items()}

_GENERATOR = torch.Generator().manual_seed(20)


class Feeds(dict[str, Tensor]):
    """Inputs by name; also keeps alive the arrays that the network's weights point at."""

    def __init__(self) -> None:
        super().__init__()
        self.keep_alive: list[Any] = []


class Net:
    """The bare TensorRT API, with a place for weights and constants from tensors."""

    def __init__(self, trt: Any, network: Any) -> None:
        self.trt = trt
        self.network = network
        self.feeds = Feeds()

    def data_type(self, dtype: torch.dtype) -> Any:
        return getattr(self.trt.DataType, _TYPE_NAMES[dtype])

    def weights(self, value: Tensor | None) -> Any:
        """``trt.Weights`` on memory that outlives the network; empty for None."""
        if value is None:
            return self.trt.Weights()
        value = value.detach().contiguous()
        if value.dtype in (torch.bfloat16, torch.float8_e4m3fn):  # NumPy has no such types
            self.feeds.keep_alive.append(value)
            data_type = self.data_type(value.dtype)
            return self.trt.Weights(data_type, value.data_ptr(), value.numel())
        array = np.ascontiguousarray(value.numpy())
        self.feeds.keep_alive.append(array)
        return self.trt.Weights(array)

    def constant(self, value: Tensor) -> Any:
        layer = self.network.add_constant(tuple(value.shape), self.weights(value))
        return layer.get_output(0)

    def int4_constant(self, levels: Tensor) -> Any:
        """Numbers from -8 to 7, two to a byte, the first in its low half."""
        pairs = levels.reshape(-1, 2).tolist()
        data = np.array([(low & 0xF) | (high & 0xF) << 4 for low, high in pairs], dtype=np.uint8)
        self.feeds.keep_alive.append(data)
        weights = self.trt.Weights(self.trt.DataType.INT4, data.ctypes.data, levels.numel())
        return self.network.add_constant(tuple(levels.shape), weights).get_output(0)

    def integers(self, *values: int) -> Any:
        """A one-dimensional int64 constant: a shape, axes."""
        return self.constant(torch.tensor(values, dtype=torch.int64))


@dataclass(frozen=True)
class OracleNetwork:
    """A network of one layer kind or two, and what it computes.

    Attributes:
        name: unique, "<layer>-<variant>".
        inputs: values of the inputs x0, x1, ...
        define: adds the layers, given the inputs; returns the tensors to mark as outputs.
        expect: the outputs by plain PyTorch or NumPy, from the same inputs.
        needs: what the flavour must have, as dotted names in its module.
        dynamic: declared shapes by input index where they have a -1; the build then needs a
            profile.
        refused: why the builder of a flavour (its module's name) refuses it; it is then checked
            on the CPU only.
        tolerance: allowed error relative to the largest expected value; None for the dtype's own.
    """

    name: str
    inputs: Sequence[Tensor]
    define: Callable[..., Any]
    expect: Callable[..., Outputs]
    needs: Sequence[str] = ()
    dynamic: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    tolerance: float | None = None

    @property
    def kind(self) -> str:
        """Name of the ``trt.LayerType`` that the network is about."""
        return self.name.split("-")[0].upper()

    def __call__(self, trt: Any, network: Any) -> Feeds:
        """Add the layers to ``network``; the inputs to run it with."""
        net = Net(trt, network)
        tensors = []
        for index, value in enumerate(self.inputs):
            shape = self.dynamic.get(index, tuple(value.shape))
            tensors.append(network.add_input(f"x{index}", net.data_type(value.dtype), shape))
            net.feeds[f"x{index}"] = value
        outputs = self.define(net, *tensors)
        for index, tensor in enumerate(outputs if isinstance(outputs, list) else [outputs]):
            tensor.name = f"y{index}"
            network.mark_output(tensor)
        return net.feeds

    def expected(self) -> list[Tensor]:
        outputs = self.expect(*self.inputs)
        return [outputs] if isinstance(outputs, Tensor) else list(outputs)

    def missing(self, trt: Any) -> str | None:
        """The first needed name that this flavour lacks."""
        for name in self.needs:
            holder = trt
            for part in name.split("."):
                if not hasattr(holder, part):
                    return name
                holder = getattr(holder, part)
        return None


_ENUMS = {
    "padding_mode": "PaddingMode",
    "resize_mode": "InterpolationMode",
    "interpolation_mode": "InterpolationMode",
    "coordinate_transformation": "ResizeCoordinateTransformation",
    "selector_for_single_pixel": "ResizeSelector",
    "nearest_rounding": "ResizeRoundMode",
    "sample_mode": "SampleMode",
}


def set_attributes(net: Net, layer: Any, attributes: Mapping[str, Any]) -> None:
    """Set attributes of a layer, enumerators given by name."""
    for name, value in attributes.items():
        if name in _ENUMS:
            value = getattr(getattr(net.trt, _ENUMS[name]), value)
        setattr(layer, name, value)


def signed(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal random values of both signs."""
    return torch.randn(shape, generator=_GENERATOR).to(dtype)


def uniform(low: float, high: float, *shape: int) -> Tensor:
    return torch.rand(shape, generator=_GENERATOR) * (high - low) + low


def integers(low: int, high: int, *shape: int, dtype: torch.dtype = torch.int32) -> Tensor:
    """Random integers in [low, high)."""
    return torch.randint(low, high, shape, generator=_GENERATOR).to(dtype)


def booleans(*shape: int) -> Tensor:
    return integers(0, 2, *shape).bool()


def distinct(*shape: int) -> Tensor:
    """Floats of both signs of which no two are equal."""
    count = torch.Size(shape).numel()
    return (torch.randperm(count, generator=_GENERATOR).float() - count // 2).reshape(shape) / 4
