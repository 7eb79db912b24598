"""Interpreting a graph whose weights are on the CPU on another device."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import torch
from torch import Tensor, fx


class InterpreterOnDevice(fx.Interpreter):
    """Interprets a graph on a device and leaves the graph as it is.

    Weights are copied there once, tensors that the graph creates are created there, and results are
    freed as soon as nothing needs them.

    Args:
        graph: what to interpret.
        device: where.
    """

    def __init__(self, graph: fx.GraphModule, device: torch.device) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.extra_traceback = False  # it would append itself to our own errors
        self.device = device
        self._attributes: dict[str, Any] = {}

    def fetch_attr(self, target: str) -> Any:
        """A weight or submodule, on the device where the graph runs."""
        if target not in self._attributes:
            value = super().fetch_attr(target)
            if isinstance(value, Tensor):
                value = value.to(self.device)
            elif isinstance(value, torch.nn.Module) and _elsewhere(value, self.device):
                value = copy.deepcopy(value).to(self.device)
            self._attributes[target] = value
        return self._attributes[target]

    def call_function(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operator; one that creates a tensor creates it where the graph runs."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self.device}
        return super().call_function(target, args, kwargs)


def _elsewhere(module: torch.nn.Module, device: torch.device) -> bool:
    tensors = itertools.chain(module.parameters(), module.buffers())
    return any(tensor.device != device for tensor in tensors)
