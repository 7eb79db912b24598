"""A dynamo graph that compiles itself for the shapes that it is called with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from trtcompile.backend.bounded_sizes import BoundedSize
from trtcompile.backend.dynamo_graph import DynamoGraph, number_of
from trtcompile.backend.origin import GraphOrigin
from trtcompile.capture import CapturedGraph, capture
from trtcompile.compiler import compile_captured, undecomposed_operators
from trtcompile.engine import check_buildable
from trtcompile.errors import (
    CalibrationError,
    EngineBuildError,
    SettingsError,
    StaleWeightsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.inputs import Input
from trtcompile.one_thread import one_thread_at_a_time
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.runtime import TRTModule
from trtcompile.settings import QUANTIZED_PRECISIONS, CompileSpec

_log = logging.getLogger(__name__)

#: With more sets of input shapes than these, one engine for a range of them is worth a hint.
_MANY_SHAPES = 8

_WeightState = tuple[tuple[int, int], ...]


class CompiledGraph:
    """What dynamo calls in place of one of its graphs.

    Args:
        graph: the graph.
        origin: what it was captured from.
        options: the fields of ``CompileSpec``, as the user gave them.
        mode: as the user gave it.
    """

    # While any thread exports, PyTorch 2.11 notes in all threads what they call in place of a graph, and fails where
    # the export ends before the call: the notes are the process's. It leaves out what has this name.
    __name__ = "__torch_dispatch__"

    def __init__(
        self,
        graph: DynamoGraph,
        origin: GraphOrigin,
        options: Mapping[str, Any] | None,
        mode: str | None,
    ) -> None:
        self._graph = graph
        self._origin = origin
        self._options = options
        self._mode = mode
        # None stands for a graph that PyTorch runs as it is.
        self._by_shape: dict[tuple[Any, ...], TRTModule | None] = {}
        self._hinted = False
        self._weight_state: _WeightState | None = None

    def __call__(self, *values: Any) -> Any:
        """Runs the graph, compiled for the shapes of ``values`` or for a range that has them.

        Raises:
            StaleWeightsError: the weights are not those that the engines have.
        """
        key = self._key(values)
        if key not in self._by_shape:
            with one_thread_at_a_time():
                if self._key(values) not in self._by_shape:  # otherwise another thread was first
                    self._check_weights(values)
                    compiled = self._compile(values)
                    # Another key than before where there can be no engine for a range.
                    self._by_shape[self._key(values)] = compiled
                    self._hint_at_ranges()
                key = self._key(values)
        compiled = self._by_shape[key]
        if compiled is None:
            return self._graph.graph_module(*values)
        self._check_weights(values)
        return compiled(*(values[index] for index in self._graph.inputs))

    def _check_weights(self, values: Sequence[Any]) -> None:
        if self._weight_state not in (None, self._state_of_weights(values)):
            raise StaleWeightsError(
                "the model's parameters changed after they had become constants of an engine. Call "
                "torch._dynamo.reset() and run the compiled model again to build it with the new ones."
            )

    def _compile(self, values: Sequence[Any]) -> TRTModule | None:
        if self._mode is not None:
            raise SettingsError(
                f"mode is {self._mode!r}, which the backend 'trt' does not have. Use options={{...}} with the fields "
                "of CompileSpec."
            )
        spec = CompileSpec.from_options(self._options or {})
        if spec.optimization_profiles is not None:
            raise SettingsError(
                "optimization_profiles is given, and the graphs of torch.compile have no named dimensions. Use "
                "trtcompile.compile() with trtcompile.Dim, or torch._dynamo.mark_dynamic for one range."
            )
        check_buildable(spec)
        self._check_evaluates(spec)
        if spec.quantized_dtype is not None:
            self._graph = self._graph.in_order_of_arguments(self._origin)
        if not self._graph.inputs:
            return None
        with kept_random_state():
            compiled = self._compile_for_ranges(values, spec) if self._graph.ranges else None
            if not self._graph.ranges:
                compiled = _compile_or_leave(
                    self._graph.freeze(values), self._inputs_of(values), spec
                )
        if compiled is not None and self._weight_state is None:
            self._weight_state = self._state_of_weights(values)
        return compiled

    def _compile_for_ranges(self, values: Sequence[Any], spec: CompileSpec) -> TRTModule | None:
        """The graph with engines for all sizes in its ranges; forgets the ranges if it cannot have them."""
        try:
            captured = _capture(self._graph.freeze(values), self._inputs_of(values))
            return _compile(captured, spec)
        except (UnsupportedGraphError, EngineBuildError) as error:
            self._graph = self._graph.without_ranges()
            warnings.warn(
                f"a graph gets an engine for each set of input shapes, since it cannot have one for a range: {error}",
                TRTCompileWarning,
                stacklevel=5,
            )
            return None

    def _inputs_of(self, values: Sequence[Any]) -> tuple[Input, ...]:
        """The shapes to compile for, tuned for those of ``values``."""
        return tuple(self._input(index, values[index]) for index in self._graph.inputs)

    def _input(self, index: int, tensor: torch.Tensor) -> Input:
        ranges = self._graph.ranges.get(index, {})
        low, high = list(tensor.shape), list(tensor.shape)
        for dim, size in ranges.items():
            low[dim], high[dim] = size.low, size.high
        return Input(
            min_shape=low,
            opt_shape=tensor.shape,
            max_shape=high,
            dtype=tensor.dtype,
            name=self._graph.argument_name(index),
            dims={dim: size.symbol for dim, size in ranges.items()},
        )

    def _hint_at_ranges(self) -> None:
        shapes = {shape for shape, _ in self._by_shape}
        if self._hinted or len(shapes) <= _MANY_SHAPES:
            return
        self._hinted = True
        warnings.warn(
            f"a graph has been compiled for {len(shapes)} sets of input shapes, each with engines of its own. For one "
            "engine of all sizes in a range, call torch._dynamo.mark_dynamic(tensor, dim, min=..., max=...) on the "
            "inputs before the first call.",
            TRTCompileWarning,
            stacklevel=3,
        )

    def _check_evaluates(self, spec: CompileSpec) -> None:
        operators = ", ".join(self._graph.operators_in_training)
        if not operators:
            return
        problem = f"the model is in train mode: {operators} behave as in training"
        if spec.quantized_dtype is not None:
            raise CalibrationError(
                f"{QUANTIZED_PRECISIONS[spec.quantized_dtype]} was asked for, but {problem}, which scales would be "
                "measured of. Call model.eval() first."
            )
        warnings.warn(
            f"{problem}, and PyTorch runs them. Call model.eval() first to compile the model for inference.",
            TRTCompileWarning,
            stacklevel=4,
        )

    def _key(self, values: Sequence[Any]) -> tuple[Any, ...]:
        graph = self._graph
        shapes = tuple(_fixed_sizes(values[i].shape, graph.ranges.get(i)) for i in graph.inputs)
        return shapes, tuple(number_of(values[i]) for i in graph.constant_numbers)

    def _state_of_weights(self, values: Sequence[Any]) -> _WeightState:
        return tuple(
            (t.data_ptr(), _version(t)) for t in map(values.__getitem__, self._graph.weights)
        )


def _fixed_sizes(
    shape: torch.Size, ranges: Mapping[int, BoundedSize] | None
) -> tuple[int | None, ...]:
    """A shape with None for sizes that have a range."""
    if ranges is None:
        return shape
    return tuple(None if dim in ranges else size for dim, size in enumerate(shape))


def _version(tensor: torch.Tensor) -> int:
    # Inference tensors count no versions: they cannot be written to outside of inference mode.
    return -1 if tensor.is_inference() else tensor._version


def _compile_or_leave(
    frozen: GraphModule, inputs: tuple[Input, ...], spec: CompileSpec
) -> TRTModule | None:
    """The compiled graph; None if PyTorch is to run it."""
    try:
        captured = _capture(frozen, inputs)
    except UnsupportedGraphError as error:
        if spec.require_full_compilation or spec.quantized_dtype is not None:
            raise
        warnings.warn(f"a graph stays in PyTorch: {error}", TRTCompileWarning, stacklevel=4)
        return None
    return _compile(captured, spec)


def _capture(frozen: GraphModule, inputs: tuple[Input, ...]) -> CapturedGraph:
    return capture(_TracedGraph(frozen), inputs, undecomposed=undecomposed_operators())


def _compile(captured: CapturedGraph, spec: CompileSpec) -> TRTModule | None:
    module = compile_captured(captured, spec)
    _log.info("%s", module.report)
    return module if module.engines else None


class _TracedGraph(nn.Module):
    """Runs a graph node by node, so that traced operators inherit the user's source lines."""

    def __init__(self, graph_module: GraphModule) -> None:
        super().__init__()
        self.graph_module = graph_module
        self.eval()

    def forward(self, *inputs: torch.Tensor) -> Any:
        with torch.fx.traceback.preserve_node_meta():
            return torch.fx.Interpreter(self.graph_module).run(*inputs)
