"""A dynamo graph that compiles itself for the shapes that it is called with."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from trtcompile.backend.dynamo_graph import DynamoGraph, number_of
from trtcompile.backend.origin import GraphOrigin
from trtcompile.capture import capture
from trtcompile.compiler import compile_captured, undecomposed_operators
from trtcompile.engine import check_buildable
from trtcompile.errors import (
    CalibrationError,
    SettingsError,
    StaleWeightsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.inputs import Input
from trtcompile.ptq.random_state import kept_random_state
from trtcompile.runtime import TRTModule
from trtcompile.settings import CompileSpec

_log = logging.getLogger(__name__)

_WeightState = tuple[tuple[int, int], ...]


class CompiledGraph:
    """What dynamo calls in place of one of its graphs.

    Args:
        graph: the graph.
        origin: what it was captured from.
        options: the fields of ``CompileSpec``, as the user gave them.
        mode: as the user gave it.
    """

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
        self._weight_state: _WeightState | None = None

    def __call__(self, *values: Any) -> Any:
        """Runs the graph, compiled for the shapes of ``values``.

        Raises:
            StaleWeightsError: the weights are not those that the engines have.
        """
        key = self._key(values)
        if key not in self._by_shape:
            self._check_weights(values)
            self._by_shape[key] = self._compile(values)
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
        check_buildable(spec)
        self._check_evaluates(spec)
        if spec.uses_int8:
            self._graph = self._graph.in_order_of_arguments(self._origin)
        if not self._graph.inputs:
            return None
        frozen = self._graph.freeze(values)
        inputs = tuple(
            Input(tuple(values[i].shape), dtype=values[i].dtype) for i in self._graph.inputs
        )
        with kept_random_state():
            compiled = _compile_or_leave(frozen, inputs, spec)
        if compiled is not None and self._weight_state is None:
            self._weight_state = self._state_of_weights(values)
        return compiled

    def _check_evaluates(self, spec: CompileSpec) -> None:
        operators = ", ".join(self._graph.operators_in_training)
        if not operators:
            return
        problem = f"the model is in train mode: {operators} behave as in training"
        if spec.uses_int8:
            raise CalibrationError(
                f"INT8 was asked for, but {problem}, which scales would be measured of. Call model.eval() first."
            )
        warnings.warn(
            f"{problem}, and PyTorch runs them. Call model.eval() first to compile the model for inference.",
            TRTCompileWarning,
            stacklevel=4,
        )

    def _key(self, values: Sequence[Any]) -> tuple[Any, ...]:
        shapes = tuple(values[i].shape for i in self._graph.inputs)
        return (shapes, tuple(number_of(values[i]) for i in self._graph.numbers))

    def _state_of_weights(self, values: Sequence[Any]) -> _WeightState:
        return tuple(
            (t.data_ptr(), _version(t)) for t in map(values.__getitem__, self._graph.weights)
        )


def _version(tensor: torch.Tensor) -> int:
    # Inference tensors count no versions: they cannot be written to outside of inference mode.
    return -1 if tensor.is_inference() else tensor._version


def _compile_or_leave(
    frozen: GraphModule, inputs: tuple[Input, ...], spec: CompileSpec
) -> TRTModule | None:
    """The compiled graph; None if PyTorch is to run it."""
    try:
        captured = capture(_TracedGraph(frozen), inputs, undecomposed=undecomposed_operators())
    except UnsupportedGraphError as error:
        if spec.require_full_compilation or spec.uses_int8:
            raise
        warnings.warn(f"a graph stays in PyTorch: {error}", TRTCompileWarning, stacklevel=4)
        return None
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
