"""``DeviceInterpreter``: runs a graph whose weights are on the CPU on any device."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from trtcompile.ptq.graph_copy import on_device


class DeviceInterpreter(fx.Interpreter):
    """Interprets a graph on a device, and frees each value as soon as nothing needs it.

    The graph is not changed: weights are copied to the device when first used, and tensors that
    the graph creates are created there.

    Args:
        graph: flat placeholders.
        device: where to run.
    """

    def __init__(self, graph: fx.GraphModule, device: torch.device) -> None:
        super().__init__(graph, garbage_collect_values=True)
        self.extra_traceback = False  # it would append itself to our own errors
        self._device = device
        self._attributes: dict[str, Any] = {}

    def fetch_attr(self, target: str) -> Any:
        """A weight or submodule, on the device where the graph runs."""
        if target not in self._attributes:
            self._attributes[target] = on_device(super().fetch_attr(target), self._device)
        return self._attributes[target]

    def call_function(self, target: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Runs an operator; one that creates a tensor creates it where the graph runs."""
        if kwargs.get("device") is not None:
            kwargs = {**kwargs, "device": self._device}
        return super().call_function(target, args, kwargs)
