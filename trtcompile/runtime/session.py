"""Executes one engine on one GPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from trtcompile import _tensorrt
from trtcompile._tensorrt import trt
from trtcompile.engine import Engine
from trtcompile.errors import EngineLoadError, InputMismatchError


class EngineSession:
    """A deserialized engine with an execution context for each optimization profile in use, and a stream.

    Calls from different streams are ordered one after the other, since they share the engine's memory. Not
    thread-safe: an execution context serves one call at a time.

    Args:
        engine: the engine; the caller has checked that it can run here.
        device: the CUDA device.
        use_cuda_graphs: replays a captured CUDA graph for each set of input shapes.

    Raises:
        EngineLoadError: TensorRT cannot read the plan.
    """

    def __init__(self, engine: Engine, device: torch.device, *, use_cuda_graphs: bool) -> None:
        self._engine = engine
        self._device = device
        self._use_cuda_graphs = use_cuda_graphs
        self._graphs: dict[tuple[tuple[int, ...], ...], _CapturedExecution] = {}
        self._logger = logger = _tensorrt.new_logger()
        with torch.cuda.device(device):
            self._runtime = trt.Runtime(logger)
            self._cuda_engine = self._runtime.deserialize_cuda_engine(engine.plan)
            if self._cuda_engine is None:
                said = "; ".join(logger.lines) or "it logged nothing"
                raise EngineLoadError(
                    f"TensorRT cannot read the plan of {engine.name} (built by {engine.provenance.flavour} "
                    f"{engine.provenance.version}): {said}. Compile the model again on this machine."
                )
            self._contexts: dict[int, Any] = {}
            # On the default stream TensorRT synchronizes more than it needs to.
            self._stream = torch.cuda.Stream(device)
            self._no_values = torch.empty(1, dtype=torch.uint8, device=device)
        self._is_static = engine.is_static
        self._output_shapes: list[tuple[int, ...]] | None = None
        self._last_caller: torch.cuda.Stream | None = None

    def inspect(self) -> str:
        """TensorRT's own description of the engine's layers, as JSON."""
        inspector = self._cuda_engine.create_engine_inspector()
        return str(inspector.get_engine_information(trt.LayerInformationFormat.JSON))

    def run(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Executes the engine; the result is ordered after it on the current stream.

        Args:
            inputs: one tensor on the session's device for each input binding, of its dtype and within its shapes.

        Raises:
            InputMismatchError: each shape is within its range, but the model does not take them together.
        """
        with torch.cuda.device(self._device):
            caller = torch.cuda.current_stream(self._device)
            if self._last_caller is not None and caller != self._last_caller:
                caller.wait_stream(self._last_caller)
            self._last_caller = caller
            inputs = [tensor.contiguous() for tensor in inputs]
            if self._use_cuda_graphs:
                return self._replay(inputs, caller)
            context = self._context_for(inputs)
            outputs = self._bind(context, inputs)
            self._launch(context, caller)
            return outputs

    def _context_for(self, inputs: Sequence[torch.Tensor]) -> Any:
        """The context of the first optimization profile that takes the inputs.

        Each profile has a context of its own: TensorRT wants that of contexts on one engine, and a captured CUDA graph
        keeps using the memory of the context that it was captured from.
        """
        index = self._profile_for(inputs)
        context = self._contexts.get(index)
        if context is None:
            context = self._contexts[index] = self._create_context(index)
        return context

    def _profile_for(self, inputs: Sequence[torch.Tensor]) -> int:
        if len(self._engine.profiles) == 1:
            return 0
        shapes = [tuple(tensor.shape) for tensor in inputs]
        index = self._engine.profile_for(shapes)
        if index is None:
            raise InputMismatchError(
                f"the inputs of {self._engine.name} have the shapes {', '.join(str(list(s)) for s in shapes)}, which "
                f"none of its {len(self._engine.profiles)} optimization profiles takes. Compile with a profile for "
                "these."
            )
        return index

    def _create_context(self, index: int) -> Any:
        context = self._cuda_engine.create_execution_context()
        selected = context is not None and (
            len(self._engine.profiles) == 1
            or context.set_optimization_profile_async(index, self._stream.cuda_stream)
        )
        if not selected:
            said = "; ".join(self._logger.lines) or "it logged nothing"
            raise EngineLoadError(
                f"TensorRT made no execution context of {self._engine.name} for optimization profile {index}: {said}. "
                "Check that the GPU has memory left."
            )
        # Calls on other streams must not overtake what TensorRT copies for the profile.
        self._stream.synchronize()
        return context

    def _bind(self, context: Any, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        for binding, tensor in zip(self._engine.inputs, inputs, strict=True):
            if not self._is_static:
                context.set_input_shape(binding.name, tuple(tensor.shape))
            context.set_tensor_address(binding.name, self._address(tensor))
        outputs = []
        for binding, shape in zip(
            self._engine.outputs, self._shapes_of_outputs(context), strict=True
        ):
            output = torch.empty(shape, dtype=binding.dtype, device=self._device)
            context.set_tensor_address(binding.name, self._address(output))
            outputs.append(output)
        return tuple(outputs)

    def _address(self, tensor: torch.Tensor) -> int:
        """Where a tensor's values are; TensorRT wants an address even where there are no values."""
        return tensor.data_ptr() or self._no_values.data_ptr()

    def _shapes_of_outputs(self, context: Any) -> list[tuple[int, ...]]:
        if self._output_shapes is not None:
            return self._output_shapes
        shapes = [self._shape_of(context, b.name) for b in self._engine.outputs]
        if self._is_static:
            self._output_shapes = shapes
        return shapes

    def _shape_of(self, context: Any, name: str) -> tuple[int, ...]:
        # Not through infer_shapes(): TensorRT 10.6 crashes in it on sizes that contradict each other.
        try:
            shape = tuple(context.get_tensor_shape(name))
        except ValueError:  # 10.6 stands for "unknown" with a negative rank
            shape = (-1,)
        if any(size < 0 for size in shape):
            raise InputMismatchError(
                f"the inputs have shapes that {self._engine.name} does not take together: TensorRT infers no shape "
                f"for {name}. Pass sizes that fit each other."
            )
        return shape

    def _launch(self, context: Any, caller: torch.cuda.Stream) -> None:
        if caller != torch.cuda.default_stream(self._device):
            self._execute(context, caller)
            return
        self._stream.wait_stream(caller)
        self._execute(context, self._stream)
        caller.wait_stream(self._stream)

    def _execute(self, context: Any, stream: torch.cuda.Stream) -> None:
        already_logged = len(self._logger.lines)
        if not context.execute_async_v3(stream.cuda_stream):
            said = "; ".join(self._logger.lines[already_logged:]) or "it logged nothing"
            raise EngineLoadError(
                f"TensorRT failed to launch {self._engine.name}: {said}. Check that the GPU has memory left, or "
                "report this with the model."
            )

    def _replay(
        self, inputs: Sequence[torch.Tensor], caller: torch.cuda.Stream
    ) -> tuple[torch.Tensor, ...]:
        key = tuple(tuple(tensor.shape) for tensor in inputs)
        captured = self._graphs.get(key)
        if captured is None:
            captured = self._graphs[key] = self._capture(inputs, caller)
        for static, tensor in zip(captured.inputs, inputs, strict=True):
            static.copy_(tensor)
        captured.graph.replay()
        # The graph writes to the same memory at each replay, which a caller who keeps a result must not see.
        return tuple(output.clone() for output in captured.outputs)

    def _capture(
        self, inputs: Sequence[torch.Tensor], caller: torch.cuda.Stream
    ) -> _CapturedExecution:
        static = [tensor.clone() for tensor in inputs]
        context = self._context_for(static)
        outputs = self._bind(context, static)
        # TensorRT allocates and uploads at the first execution, which a graph must not contain.
        self._launch(context, caller)
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self._stream):
            self._execute(context, self._stream)
        return _CapturedExecution(graph, static, outputs)


class _CapturedExecution:
    def __init__(
        self, graph: Any, inputs: list[torch.Tensor], outputs: tuple[torch.Tensor, ...]
    ) -> None:
        self.graph = graph
        self.inputs = inputs
        self.outputs = outputs
