"""Recurrent layers over sequences of a known length, unrolled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.fx import Node

from trtcompile._tensorrt import trt
from trtcompile.conversion.arguments import arguments_of
from trtcompile.conversion.network import ITensor, Network, TensorLike
from trtcompile.conversion.ops.linear import product_and_bias
from trtcompile.conversion.registry import converter
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

#: So many steps, over all layers and directions, are unrolled; the network grows with each.
_MOST_STEPS = 512

#: (network, x @ W_ih.T + b_ih of one step, state) to the next state, whose first tensor is the result.
Step = Callable[[Network, ITensor, list[ITensor]], list[ITensor]]


def _supports_recurrent(node: Node, spec: CompileSpec) -> str | None:
    arguments = arguments_of(node)
    value = arguments["input"]
    if arguments["train"] and arguments["dropout"]:
        return f"it drops out at random (dropout {arguments['dropout']})"
    if not value.dtype.is_floating_point:
        return f"TensorRT multiplies matrices of floats, not {value.dtype}"
    length = value.shape[1 if arguments["batch_first"] and value.dim() == 3 else 0]
    if not isinstance(length, int):
        return "the length of the sequence is only known at run time"
    steps = length * arguments["num_layers"] * (2 if arguments["bidirectional"] else 1)
    if length == 0 or steps > _MOST_STEPS:
        return f"{steps} steps are too many, or none, to unroll (at most {_MOST_STEPS})"
    return None


class _Weights:
    """The parameters of one layer in one direction."""

    def __init__(self, parameters: Iterator[TensorLike], has_biases: bool, projects: bool) -> None:
        self.input = next(parameters)
        self.hidden = next(parameters)
        self.input_bias = next(parameters) if has_biases else None
        self.hidden_bias = next(parameters) if has_biases else None
        self.projection = next(parameters) if projects else None


def _gates(net: Network, x: ITensor, count: int) -> list[ITensor]:
    """Equal parts of the columns."""
    rows, width = net.size(x, 0), net.dims(x)[1] // count
    return [net.slice(x, [0, i * width], [rows, width]) for i in range(count)]


def _lstm_step(weights: _Weights) -> Step:
    def step(net: Network, x: ITensor, state: list[ITensor]) -> list[ITensor]:
        operation, activation = trt.ElementWiseOperation, trt.ActivationType
        hidden, cell = state
        recurrent = product_and_bias(net, hidden, weights.hidden, weights.hidden_bias)
        gates = _gates(net, net.elementwise(x, recurrent, operation.SUM), 4)
        kinds = (activation.SIGMOID, activation.SIGMOID, activation.TANH, activation.SIGMOID)
        admit, forget, new, out = (
            net.activation(g, kind) for g, kind in zip(gates, kinds, strict=True)
        )
        kept = net.elementwise(forget, cell, operation.PROD)
        cell = net.elementwise(kept, net.elementwise(admit, new, operation.PROD), operation.SUM)
        hidden = net.elementwise(out, net.activation(cell, activation.TANH), operation.PROD)
        if weights.projection is not None:
            hidden = product_and_bias(net, hidden, weights.projection)
        return [hidden, cell]

    return step


def _gru_step(weights: _Weights) -> Step:
    def step(net: Network, x: ITensor, state: list[ITensor]) -> list[ITensor]:
        operation, activation = trt.ElementWiseOperation, trt.ActivationType
        (hidden,) = state
        recurrent = product_and_bias(net, hidden, weights.hidden, weights.hidden_bias)
        reset_x, update_x, new_x = _gates(net, x, 3)
        reset_h, update_h, new_h = _gates(net, recurrent, 3)
        reset, update = (
            net.activation(net.elementwise(a, b, operation.SUM), activation.SIGMOID)
            for a, b in ((reset_x, reset_h), (update_x, update_h))
        )
        inner = net.elementwise(new_x, net.elementwise(reset, new_h, operation.PROD), operation.SUM)
        new = net.activation(inner, activation.TANH)
        change = net.elementwise(hidden, new, operation.SUB)
        kept = net.elementwise(update, change, operation.PROD)
        return [net.elementwise(new, kept, operation.SUM)]

    return step


def _plain_step(kind: str) -> Callable[[_Weights], Step]:
    def with_weights(weights: _Weights) -> Step:
        def step(net: Network, x: ITensor, state: list[ITensor]) -> list[ITensor]:
            recurrent = product_and_bias(net, state[0], weights.hidden, weights.hidden_bias)
            total = net.elementwise(x, recurrent, trt.ElementWiseOperation.SUM)
            return [net.activation(total, getattr(trt.ActivationType, kind))]

        return step

    return with_weights


def _direction(
    net: Network, x: ITensor, weights: _Weights, step: Step, state: list[ITensor], backward: bool
) -> tuple[list[ITensor], list[ITensor]]:
    """The results of all steps in the order of time, each [1, batch, hidden], and the last state."""
    length, batch = net.dims(x)[0], net.size(x, 1)
    # One product for all steps; only the recurrent part has to wait.
    projected = product_and_bias(net, x, weights.input, weights.input_bias)
    width = net.dims(projected)[2]
    results: list[ITensor] = [None] * length
    for time in reversed(range(length)) if backward else range(length):
        at = net.slice(projected, [time, 0, 0], [1, batch, width])
        state = step(net, net.reshape(at, [batch, width]), state)
        results[time] = net.unsqueeze(state[0], [0])
    return results, state


def _recurrent(
    net: Network,
    input: ITensor,
    hx: Sequence[TensorLike],
    params: Sequence[TensorLike],
    has_biases: bool,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    cell: Callable[[_Weights], Step],
) -> tuple[ITensor, ...]:
    """The results, and the last state of each layer and direction for each of ``hx``."""
    directions = 2 if bidirectional else 1
    x, unbatched = net.tensor(input), net.rank(input) == 2
    states = [net.tensor(h) for h in hx]
    if unbatched:
        x = net.unsqueeze(x, [1])
        states = [net.unsqueeze(h, [1]) for h in states]
    elif batch_first:
        x = net.permute(x, [1, 0, 2])
    count = len(params) // (num_layers * directions)
    parameters, last = iter(params), list[list[ITensor]]()
    for layer in range(num_layers):
        outputs = []
        for direction in range(directions):
            weights = _Weights(parameters, has_biases, count == (5 if has_biases else 3))
            index = layer * directions + direction
            first = [_state_at(net, h, index) for h in states]
            results, state = _direction(net, x, weights, cell(weights), first, direction == 1)
            outputs.append(_joined(net, results, 0))
            last.append([net.unsqueeze(s, [0]) for s in state])
        x = _joined(net, outputs, 2)
    finals = [_joined(net, [state[i] for state in last], 0) for i in range(len(states))]
    if unbatched:
        return tuple(net.squeeze(t, [1]) for t in (x, *finals))
    return (net.permute(x, [1, 0, 2]) if batch_first else x, *finals)


def _joined(net: Network, tensors: list[ITensor], dim: int) -> ITensor:
    return tensors[0] if len(tensors) == 1 else net.concat(tensors, dim)


def _state_at(net: Network, states: ITensor, index: int) -> ITensor:
    batch, width = net.size(states, 1), net.dims(states)[2]
    return net.reshape(net.slice(states, [index, 0, 0], [1, batch, width]), [batch, width])


def _layer_of(cell: Callable[[_Weights], Step]) -> Callable[..., Any]:
    def convert(
        net: Network,
        input: ITensor,
        hx: TensorLike | Sequence[TensorLike],
        params: Sequence[TensorLike],
        has_biases: bool,
        num_layers: int,
        dropout: float,
        train: bool,
        bidirectional: bool,
        batch_first: bool,
    ) -> tuple[ITensor, ...]:
        states = hx if isinstance(hx, (list, tuple)) else [hx]
        return _recurrent(
            net, input, states, params, has_biases, num_layers, bidirectional, batch_first, cell
        )

    return convert


for _target, _cell in (
    (aten.lstm.input, _lstm_step),
    (aten.gru.input, _gru_step),
    (aten.rnn_tanh.input, _plain_step("TANH")),
    (aten.rnn_relu.input, _plain_step("RELU")),
):
    converter(_target, supports=_supports_recurrent)(_layer_of(_cell))
