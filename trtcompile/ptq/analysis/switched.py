"""Running a simulation with the quantization of chosen layers only."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

import torch
from torch import Tensor, fx

from trtcompile.errors import CalibrationError
from trtcompile.ptq.analysis.layers import QuantizedLayers
from trtcompile.ptq.batches import FittedBatch
from trtcompile.ptq.interpreter import DeviceInterpreter


class SwitchedSimulation(DeviceInterpreter):
    """Interprets a lowered graph in which Q/DQ are on for some layers, and pass their input on for the others.

    With all layers on it computes what the graph does, with none what the graph without Q/DQ does. Quantized weights
    are computed once and kept beside the weights.

    Args:
        graph: the lowered graph.
        layers: its Q/DQ by layer.
        device: where to run.
    """

    def __init__(
        self, graph: fx.GraphModule, layers: QuantizedLayers, device: torch.device
    ) -> None:
        super().__init__(graph, device)
        self.graph_module = graph
        self._layers = layers
        self._on: frozenset[fx.Node] = frozenset()
        self._observed = False
        self._integers: dict[fx.Node, Tensor] = {}
        self._dequantized: dict[fx.Node, Tensor] = {}
        self._weights: dict[fx.Node, Tensor] = {}

    def twin(self) -> SwitchedSimulation:
        """Another one that shares the weights, to run side by side."""
        twin = SwitchedSimulation(self.graph_module, self._layers, self._device)
        twin._attributes, twin._weights = self._attributes, self._weights
        return twin

    def outputs(self, batch: FittedBatch, on: Collection[str]) -> list[Any]:
        """The flat outputs for a batch with the named layers quantized."""
        last: list[Any] = []
        for node in self.steps(batch, on):
            if node.op == "output":
                last = list(self.env[node])
        return last

    def steps(
        self, batch: FittedBatch, on: Collection[str], *, observed: bool = False
    ) -> Iterator[fx.Node]:
        """Runs node after node, and yields each while its value and operands are in ``env``.

        Args:
            batch: the inputs.
            on: names of the layers that are quantized.
            observed: also computes the quantization of values that no layer reads quantized, for ``dequantized`` and
                ``with_quantized_operands``.

        Raises:
            CalibrationError: the model fails on the batch.
        """
        self._on = self._layers.readers(on)
        self._observed = observed
        self.env = {}
        self.args_iter = iter(batch.tensors)
        for node in self.graph_module.graph.nodes:
            self.env[node] = self._value(node, batch)
            yield node
            for unused in self.user_to_last_uses.get(node, ()):
                self.env.pop(unused, None)
                self._integers.pop(unused, None)
                self._dequantized.pop(unused, None)

    def _value(self, node: fx.Node, batch: FittedBatch) -> Any:
        try:
            with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
                return self.run_node(node)
        except Exception as error:  # whatever the user's data makes the user's model raise
            raise CalibrationError(
                f"The model fails on batch {batch.loader_batch} of the data: {type(error).__name__}: {error}. Check "
                "that the model runs on this data in PyTorch."
            ) from error

    def run_node(self, n: fx.Node) -> Any:
        """Runs a node; one that quantizes passes its input on, and quantizes beside that where somebody asks for it."""
        if n in self._layers.quantizers:
            (source, *_), _ = self.fetch_args_kwargs_from_env(n)
            if any(user not in self._weights and self._is_wanted(user) for user in n.users):
                self._integers[n] = super().run_node(n)
            return source
        if n in self._layers.pairs:
            if self._is_wanted(n):
                self._dequantized[n] = self._dequantize(n)
            source = self.env[self._layers.pairs[n]]
            return source.to(n.kwargs.get("out_dtype") or torch.float32)
        return super().run_node(n)

    def _is_wanted(self, dequantizer: fx.Node) -> bool:
        return self._observed or any(reader in self._on for reader in dequantizer.users)

    def _dequantize(self, node: fx.Node) -> Tensor:
        if node in self._weights:
            return self._weights[node]
        args, kwargs = super().fetch_args_kwargs_from_env(node)
        quantizer = self._layers.pairs[node]
        value: Tensor = self.call_function(
            node.target, (self._integers[quantizer], *args[1:]), dict(kwargs)
        )
        if quantizer.args[0].op == "get_attr":  # type: ignore[union-attr]
            self._weights[node] = value
        return value

    def fetch_args_kwargs_from_env(self, n: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The operands of a node: dequantized where its layer is on."""
        if n in self._on:
            return self._operands(n)
        args, kwargs = super().fetch_args_kwargs_from_env(n)
        return tuple(args), dict(kwargs)

    def dequantized(self, node: fx.Node) -> Tensor:
        """The value of a dequantize node as if it were on; to be asked in a step of ``steps(observed=True)``."""
        return self._dequantized[node]

    def with_quantized_operands(self, node: fx.Node) -> Any:
        """The value of a node as if only its own operands were quantized; to be asked in the step that yields it."""
        args, kwargs = self._operands(node)
        with torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            return getattr(self, node.op)(node.target, args, kwargs)

    def _operands(self, node: fx.Node) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def value(source: fx.Node) -> Any:
            dequantized = self._dequantized.get(source)
            return self.env[source] if dequantized is None else dequantized

        def mapped(arguments: Any) -> Any:
            return fx.node.map_arg(arguments, value)

        return tuple(mapped(node.args)), dict(mapped(dict(node.kwargs)))
