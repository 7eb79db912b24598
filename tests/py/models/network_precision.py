"""Which layers of a network definition multiply in INT8, read from the layers themselves."""

from __future__ import annotations

from typing import Any

from trtcompile._tensorrt import trt

_PRODUCTS = ("CONVOLUTION", "DECONVOLUTION", "MATRIX_MULTIPLY")


def products(definition: Any) -> list[Any]:
    """The convolutions and linear layers of a network, in its order.

    Matrix products that stand for an adaptive pool are none of the model's.
    """
    layers = [definition.get_layer(index) for index in range(definition.num_layers)]
    return [
        layer
        for layer in layers
        if _kind(layer) in _PRODUCTS and not layer.name.startswith("adaptive_avg_pool")
    ]


def int8_products(definition: Any) -> list[Any]:
    """Those whose data and weights both come out of Dequantize layers that read INT8."""
    producers = {
        layer.get_output(output).name: layer
        for layer in (definition.get_layer(index) for index in range(definition.num_layers))
        for output in range(layer.num_outputs)
    }

    def reads_int8(tensor: Any) -> bool:
        producer = producers.get(tensor.name) if tensor is not None else None
        while producer is not None and _kind(producer) == "SHUFFLE":  # a kernel made 2-D
            producer = producers.get(producer.get_input(0).name)
        return (
            producer is not None
            and _kind(producer) == "DEQUANTIZE"
            and producer.get_input(0).dtype == trt.DataType.INT8
        )

    return [
        layer
        for layer in products(definition)
        if layer.num_inputs > 1
        and reads_int8(layer.get_input(0))
        and reads_int8(layer.get_input(1))
    ]


def _kind(layer: Any) -> str:
    # Some layer classes hide ILayer.type behind a type of their own.
    return str(trt.ILayer.type.fget(layer).name)
