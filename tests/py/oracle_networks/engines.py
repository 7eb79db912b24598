"""Build and run a network with the bare TensorRT API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from oracle_networks.network_case import TORCH_TYPES, Feeds, OracleNetwork

# The lowest level that still chooses among kernels: these networks are about numbers, not speed.
_OPTIMIZATION_LEVEL = 1


def make_logger(trt: Any) -> tuple[Any, list[str]]:
    """A logger, to be kept alive, and the list in which it collects TensorRT's errors."""
    messages: list[str] = []

    class Collector(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message)

    return Collector(), messages


def strongly_typed(trt: Any, builder: Any) -> Any:
    """An empty, strongly typed network."""
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    return builder.create_network(0 if flag is None else 1 << int(flag))


def build(
    trt: Any, builder: Any, case: OracleNetwork, *, ahead_of_time: bool
) -> tuple[Any, Feeds, Any]:
    """The network, its inputs, and its plan (None where the builder refuses it).

    Args:
        trt: the TensorRT module.
        builder: a ``trt.Builder``.
        case: what to build.
        ahead_of_time: build for compute capability 8.9 with no GPU (TensorRT-RTX only).
    """
    network = strongly_typed(trt, builder)
    feeds = case(trt, network)
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    config.builder_optimization_level = _OPTIMIZATION_LEVEL
    if ahead_of_time:
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    if case.dynamic:
        profile = builder.create_optimization_profile()
        for index, declared in case.dynamic.items():
            actual = tuple(case.inputs[index].shape)
            pairs = list(zip(declared, actual, strict=True))
            smallest = tuple(1 if known == -1 else size for known, size in pairs)
            largest = tuple(2 * size if known == -1 else size for known, size in pairs)
            profile.set_shape(f"x{index}", smallest, actual, largest)
        config.add_optimization_profile(profile)
    return network, feeds, builder.build_serialized_network(network, config)


def run_plan(
    trt: Any, runtime: Any, plan: Any, inputs: Mapping[str, torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Execute a plan on the current GPU, on a stream of its own; outputs on the CPU."""
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise RuntimeError("TensorRT cannot deserialize its plan.")
    context = engine.create_execution_context()
    stream = torch.cuda.Stream()
    buffers: dict[str, torch.Tensor] = {}
    allocators: dict[str, Any] = {}
    with torch.cuda.stream(stream):
        for name, value in inputs.items():
            buffers[name] = _on_device(value)
            if not context.set_input_shape(name, tuple(value.shape)):
                raise RuntimeError(f"TensorRT refuses shape {tuple(value.shape)} for {name}.")
            context.set_tensor_address(name, buffers[name].data_ptr())
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        outputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.OUTPUT]
        for name in outputs:
            shape = tuple(context.get_tensor_shape(name))
            if -1 in shape:  # depends on the data
                allocators[name] = _make_allocator(trt)
                context.set_output_allocator(name, allocators[name])
            else:
                dtype = TORCH_TYPES[engine.get_tensor_dtype(name).name]
                buffers[name] = torch.empty(shape, dtype=dtype, device="cuda")
                spare = torch.empty(1, device="cuda")  # an empty tensor has no address
                buffers[f"{name} (spare)"] = spare
                address = buffers[name].data_ptr() or spare.data_ptr()
                context.set_tensor_address(name, address)
        if not context.execute_async_v3(stream.cuda_stream):
            raise RuntimeError("TensorRT could not execute the engine.")
    stream.synchronize()
    results = {}
    for name in outputs:
        if name in allocators:
            dtype = TORCH_TYPES[engine.get_tensor_dtype(name).name]
            results[name] = allocators[name].tensor(dtype).cpu()
        else:
            results[name] = buffers[name].cpu()
    return results


def _on_device(value: torch.Tensor) -> torch.Tensor:
    """A contiguous copy on the GPU; one spare element where the tensor is empty."""
    return value.contiguous().cuda() if value.numel() else value.new_empty(1).cuda()


def _make_allocator(trt: Any) -> Any:
    """Takes an output whose shape is known only when it has been computed."""

    class Allocator(trt.IOutputAllocator):
        def __init__(self) -> None:
            trt.IOutputAllocator.__init__(self)
            self.memory = torch.empty(0, dtype=torch.uint8, device="cuda")
            self.shape: tuple[int, ...] = ()

        def reallocate_output(self, name: str, memory: int, size: int, alignment: int) -> int:
            self.memory = torch.empty(max(size, 1), dtype=torch.uint8, device="cuda")
            return self.memory.data_ptr()

        def reallocate_output_async(
            self, name: str, memory: int, size: int, alignment: int, stream: int
        ) -> int:
            return self.reallocate_output(name, memory, size, alignment)

        def notify_shape(self, name: str, shape: Any) -> None:
            self.shape = tuple(shape)

        def tensor(self, dtype: torch.dtype) -> torch.Tensor:
            count = torch.Size(self.shape).numel()
            return self.memory[: count * dtype.itemsize].view(dtype).reshape(self.shape)

    return Allocator()
