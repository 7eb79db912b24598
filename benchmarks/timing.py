"""One harness for serialized engines of either side: the same buffers, stream, graph, and clock."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from layer_times import layer_rows, profile

from trtcompile import _tensorrt

WARM_UP_SECONDS = 0.2
# Not timed on the device: another engine's data is in the caches. Few enough to fit into the queue
# of launches, so that the host does not wait for the device.
REPLAYS_AFTER_SWITCH = 20


class Runner(Protocol):
    """What ``interleave`` times."""

    def sample(self, samples: int, replays: int) -> Sample: ...


@dataclass(frozen=True)
class Sample:
    """Consecutive measurements of one engine.

    Attributes:
        device_ms: milliseconds of device time per replay, the mean of each sample.
        host_ms: milliseconds in which the host enqueues a replay. If this is not well below the
            device time, the device waited for the host.
    """

    device_ms: list[float]
    host_ms: float


@dataclass(frozen=True)
class Round:
    """One engine's turn in one round; ``median_ms`` is the median of its samples."""

    number: int
    median_ms: float
    samples_ms: list[float]
    host_ms: float

    def as_json(self) -> dict[str, Any]:
        """The fields, times rounded to nanoseconds."""
        values = asdict(self)
        values["samples_ms"] = [round(ms, 6) for ms in self.samples_ms]
        values["median_ms"], values["host_ms"] = round(self.median_ms, 6), round(self.host_ms, 6)
        return values


class PlanRunner:
    """A deserialized plan with static FP32 buffers, replayed as a CUDA graph on its own stream.

    Args:
        plan: a serialized engine with static shapes, one input, and one output, both FP32.
        example: a float32 batch for the input buffer; the timed replays compute on it.

    Raises:
        ValueError: the plan cannot be read, or has other bindings.
        RuntimeError: TensorRT failed to launch it.
    """

    def __init__(self, plan: bytes | memoryview, example: torch.Tensor) -> None:
        device = example.device
        trt = _tensorrt.load().trt
        self._logger = _tensorrt.new_logger()
        with torch.cuda.device(device):
            self._runtime = trt.Runtime(self._logger)
            self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise ValueError(f"TensorRT cannot read the plan: {'; '.join(self._logger.lines)}")
            self._context = self._engine.create_execution_context()
            self._stream = torch.cuda.Stream(device)
            self._input, self._output = self._bind(trt, example)
            torch.cuda.synchronize(device)
            self._graph = self._capture()

    def _bind(self, trt: Any, example: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self._buffers: dict[str, torch.Tensor] = {}
        buffers: dict[Any, list[torch.Tensor]] = {
            trt.TensorIOMode.INPUT: [],
            trt.TensorIOMode.OUTPUT: [],
        }
        for index in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(index)
            shape = tuple(self._engine.get_tensor_shape(name))
            if self._engine.get_tensor_dtype(name) != trt.DataType.FLOAT or -1 in shape:
                raise ValueError(f"binding {name!r} of shape {shape} is not static FP32.")
            buffer = torch.empty(shape, dtype=torch.float32, device=example.device)
            self._context.set_tensor_address(name, buffer.data_ptr())
            self._buffers[name] = buffer
            buffers[self._engine.get_tensor_mode(name)].append(buffer)
        inputs, outputs = buffers[trt.TensorIOMode.INPUT], buffers[trt.TensorIOMode.OUTPUT]
        if len(inputs) != 1 or len(outputs) != 1 or inputs[0].shape != example.shape:
            shapes = [list(buffer.shape) for buffer in (*inputs, *outputs)]
            raise ValueError(
                f"the bindings {shapes} are not an input {list(example.shape)} and an output."
            )
        inputs[0].copy_(example)
        return inputs[0], outputs[0]

    def _capture(self) -> torch.cuda.CUDAGraph:
        self._execute()  # the first execution allocates and uploads, which a graph must not contain
        torch.cuda.synchronize(self._input.device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._execute()
        return graph

    def _execute(self) -> None:
        if not self._context.execute_async_v3(self._stream.cuda_stream):
            raise RuntimeError(f"TensorRT failed to launch: {'; '.join(self._logger.lines)}")

    def inspect(self) -> str:
        """TensorRT's description of the layers, as JSON."""
        trt = _tensorrt.load().trt
        inspector = self._engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def layers(self) -> list[dict[str, Any]]:
        """Each layer with its time, on a context of its own."""
        context = self._engine.create_execution_context()
        for name, buffer in self._buffers.items():
            context.set_tensor_address(name, buffer.data_ptr())

        def execute() -> None:
            if not context.execute_async_v3(self._stream.cuda_stream):
                raise RuntimeError(f"TensorRT failed to launch: {'; '.join(self._logger.lines)}")
            self._stream.synchronize()

        return layer_rows(self.inspect(), profile(context, execute))

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        """The output for one batch, through the very graph that is timed; both on the GPU."""
        self._input.copy_(batch)
        self._output.fill_(float("nan"))  # what the engine does not write shows
        torch.cuda.synchronize(batch.device)
        with torch.cuda.stream(self._stream):
            self._graph.replay()
        self._stream.synchronize()
        return self._output.clone()

    def sample(self, samples: int, replays: int) -> Sample:
        """Times ``samples`` groups of ``replays`` consecutive graph replays."""
        events = [torch.cuda.Event(enable_timing=True) for _ in range(samples + 1)]
        with torch.cuda.stream(self._stream):
            start = time.perf_counter()
            for _ in range(REPLAYS_AFTER_SWITCH):
                self._graph.replay()
            host_ms = 1000 * (time.perf_counter() - start) / REPLAYS_AFTER_SWITCH
            events[0].record()
            for event in events[1:]:
                for _ in range(replays):
                    self._graph.replay()
                event.record()
        events[-1].synchronize()
        pairs = itertools.pairwise(events)
        device_ms = [before.elapsed_time(after) / replays for before, after in pairs]
        return Sample(device_ms, host_ms)


def interleave(
    runners: Mapping[str, Runner], *, rounds: int, seconds: float = 0.3, samples: int = 10
) -> dict[str, list[Round]]:
    """Times engines in turns, so that drifting clocks and temperatures meet all of them.

    Args:
        runners: the engines by name. Each round begins with another one.
        rounds: how many turns each gets.
        seconds: the length of one turn.
        samples: into how many samples a turn is divided.
    """
    replays = {name: _warm_up(runner, seconds / samples) for name, runner in runners.items()}
    measured: dict[str, list[Round]] = {name: [] for name in runners}
    names = list(runners)
    for number in range(rounds):
        first = number % len(names)
        for name in (*names[first:], *names[:first]):
            taken = runners[name].sample(samples, replays[name])
            median = statistics.median(taken.device_ms)
            measured[name].append(Round(number + 1, median, taken.device_ms, taken.host_ms))
    return measured


def _warm_up(runner: Runner, sample_seconds: float) -> int:
    """Runs an engine until clocks are up; returns how many replays fill a sample."""
    first = runner.sample(1, 10)
    replays = _replays_in(WARM_UP_SECONDS, first.device_ms[0])
    warm = runner.sample(1, replays)
    return _replays_in(sample_seconds, warm.device_ms[0])


def _replays_in(seconds: float, ms: float) -> int:
    return max(3, round(1000 * seconds / max(ms, 1e-3)))
