"""Walk a network in order, evaluate each layer, check each tensor against its declaration."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from network_oracle import (  # noqa: F401 - importing a module registers its handlers
    constants,
    convolution,
    elementwise,
    indexing,
    linear,
    normalization,
    pooling,
    quantization,
    reduction,
    resampling,
    shaping,
    slicing,
)
from network_oracle.dtypes import FLOATS, torch_dtype
from network_oracle.errors import NetworkMismatchError, UnsupportedLayer
from network_oracle.layer_view import LayerView
from network_oracle.registry import HANDLERS, Handler


def supported_layer_types() -> tuple[str, ...]:
    """Names of the ``trt.LayerType`` members that are modelled."""
    return tuple(sorted(HANDLERS))


def run_network(
    network: Any,
    inputs: Mapping[str, torch.Tensor] | Sequence[torch.Tensor],
    *,
    trt: Any = None,
) -> dict[str, torch.Tensor]:
    """Evaluate ``network`` on the CPU.

    float16 and bfloat16 tensors are computed in float32 and rounded at each layer's output;
    int8 appears only through Quantize layers and constants, as in a strongly typed network.

    Args:
        network: an ``INetworkDefinition`` of any TensorRT flavour, strongly typed.
        inputs: tensors by input name, or in the order of the network's inputs; dtypes must be
            the declared ones.
        trt: the TensorRT module; found through the network's class by default.

    Returns:
        The network's outputs by name, in order.

    Raises:
        UnsupportedLayer: a layer kind, attribute or value is not modelled.
        NetworkMismatchError: an input or a computed tensor does not have the declared shape or
            dtype, inputs of a layer differ in type, or the network reads out of bounds.
    """
    trt = trt or _module_of(network)
    with torch.no_grad():
        pending = [network.get_layer(index) for index in range(network.num_layers)]
        _refuse_unknown_kinds(trt, pending)
        values = _bind_inputs(network, inputs)
        while pending:
            # Layers come in the order of their making, which set_input may have overtaken.
            waiting = [layer for layer in pending if not _run_if_ready(trt, layer, values)]
            if len(waiting) == len(pending):
                raise NetworkMismatchError(
                    f"Layers {[layer.name for layer in waiting]} read tensors nobody computes."
                )
            pending = waiting
    outputs = {}
    for index in range(network.num_outputs):
        tensor = network.get_output(index)
        if tensor.name not in values:
            raise NetworkMismatchError(f"Nothing computes the network's output {tensor.name!r}.")
        outputs[tensor.name] = values[tensor.name].clone()
    return outputs


def _module_of(network: Any) -> Any:
    """The module that defines the network's class, and with it every layer class."""
    kind = type(network)
    candidates = [sys.modules.get(kind.__module__), *list(sys.modules.values())]
    for module in candidates:
        if getattr(module, "__dict__", {}).get("INetworkDefinition") is kind:
            return module
    raise TypeError(f"{kind.__name__} is no network definition of a loaded TensorRT.")


def _kind(trt: Any, layer: Any) -> str:
    """Name of the layer's ``LayerType``.

    Some layer classes hide ``ILayer.type`` behind a ``type`` of their own (pooling, activation).
    """
    return str(trt.ILayer.type.fget(layer).name)


def _refuse_unknown_kinds(trt: Any, layers: Sequence[Any]) -> None:
    unknown = [
        f"{kind} layer {layer.name!r}"
        for layer in layers
        if (kind := _kind(trt, layer)) not in HANDLERS
    ]
    if unknown:
        raise UnsupportedLayer(f"Not modelled: {', '.join(unknown)}.")


def _bind_inputs(
    network: Any, inputs: Mapping[str, torch.Tensor] | Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    tensors = [network.get_input(index) for index in range(network.num_inputs)]
    names = [tensor.name for tensor in tensors]
    if not isinstance(inputs, Mapping):
        if len(inputs) != len(names):
            raise NetworkMismatchError(
                f"The network has {len(names)} inputs {names}, {len(inputs)} were given."
            )
        inputs = dict(zip(names, inputs, strict=True))
    if set(inputs) != set(names):
        raise NetworkMismatchError(
            f"The network's inputs are {sorted(names)}, given were {sorted(inputs)}."
        )
    values: dict[str, torch.Tensor] = {}
    for tensor in tensors:
        value = inputs[tensor.name].detach().cpu()
        _check(tensor, value, f"network input {tensor.name!r}")
        values[tensor.name] = value
    return values


def _run_if_ready(trt: Any, layer: Any, values: dict[str, torch.Tensor]) -> bool:
    """Run the layer if its inputs are there."""
    sources = [layer.get_input(index) for index in range(layer.num_inputs)]
    if any(source is not None and source.name not in values for source in sources):
        return False
    _run_layer(trt, layer, sources, values)
    return True


def _run_layer(trt: Any, layer: Any, sources: list[Any], values: dict[str, torch.Tensor]) -> None:
    kind = _kind(trt, layer)
    handler = HANDLERS[kind]
    layer.__class__ = getattr(trt, handler.class_name)
    raw = [None if source is None else values[source.name] for source in sources]
    tensors = [layer.get_output(index) for index in range(layer.num_outputs)]
    view = LayerView(
        layer,
        kind,
        raw,
        [None if tensor is None else tuple(tensor.shape) for tensor in sources],
        [torch_dtype(tensor.dtype, f"tensor {tensor.name!r}") for tensor in tensors],
    )
    _check_input_types(view, handler)
    result = handler.evaluate(view)
    results = [result] if isinstance(result, torch.Tensor) else list(result)
    if len(results) != len(tensors):
        raise view.mismatch(f"{len(results)} outputs computed, {len(tensors)} declared.")
    for tensor, value in zip(tensors, results, strict=True):
        rounded = _round_like_input(value, view, handler)
        _check(tensor, rounded, f"output {tensor.name!r} of {view}")
        if tensor.name in values:
            raise view.mismatch(f"tensor name {tensor.name!r} is used twice.")
        values[tensor.name] = rounded


def _check_input_types(view: LayerView, handler: Handler) -> None:
    indices = range(len(view.raw)) if handler.same_type is None else handler.same_type
    given = [
        value for index in indices if view.has(index) and (value := view.raw[index]) is not None
    ]
    dtypes = {value.dtype for value in given}
    if len(dtypes) > 1:
        names = ", ".join(str(value.dtype) for value in given)
        raise view.mismatch(f"its inputs must have one type, they have {names}.")


def _round_like_input(value: torch.Tensor, view: LayerView, handler: Handler) -> torch.Tensor:
    if handler.rounds_to is None or value.dtype not in FLOATS:
        return value
    source = view.raw[handler.rounds_to]
    if source is None or source.dtype not in FLOATS:
        return value
    return value.to(source.dtype)


def _check(tensor: Any, value: torch.Tensor, what: str) -> None:
    declared_dtype = torch_dtype(tensor.dtype, f"tensor {tensor.name!r}")
    if value.dtype != declared_dtype:
        raise NetworkMismatchError(f"{what} is declared {declared_dtype}, is {value.dtype}.")
    declared = tuple(tensor.shape)
    actual = tuple(value.shape)
    if len(declared) != len(actual) or any(
        size not in (-1, real) for size, real in zip(declared, actual, strict=True)
    ):
        raise NetworkMismatchError(f"{what} is declared with shape {declared}, has {actual}.")
