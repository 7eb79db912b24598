"""float16 and bfloat16 versions of networks that are written for float32.

A layer of a strongly typed network rounds once, at its output: what float32 arithmetic makes of
the rounded inputs, rounded. Layers whose coefficients are attributes are left out: those must have
the input's type.
"""

from __future__ import annotations

import dataclasses

import torch

from oracle_networks import elementwise, indexing, linear, pooling, resampling, shaping, slicing
from oracle_networks.network_case import OracleNetwork, Outputs, Tensor

_HALF = [
    "activation-leaky_relu",
    "activation-gelu_erf",
    "activation-sigmoid",
    "activation-selu",
    "unary-exp",
    "unary-erf",
    "elementwise-sum-broadcast",
    "elementwise-div",
    "elementwise-pow",
    "elementwise-greater",
    "select-broadcast",
    "pooling-max-padding-of-negatives",
    "pooling-average-including-padding",
    "matrix_multiply-batch-broadcast",
    "reduce-sum",
    "reduce-avg",
    "softmax-last",
    "shuffle-all-three",
    "concatenation-three",
    "slice-plain",
    "gather-elements",
    "resize-linear-half-pixel",
    "einsum-heads",
]
_BFLOAT16 = [
    "activation-tanh",
    "activation-relu",
    "elementwise-prod",
    "elementwise-max",
    "matrix_multiply-transposed-right",
    "softmax-last",
    "shuffle-first-transpose",
    "reduce-avg",
]


def _in(network: OracleNetwork, dtype: torch.dtype) -> OracleNetwork:
    def convert(value: Tensor, to: torch.dtype) -> Tensor:
        return value.to(to) if value.is_floating_point() else value

    def expect(*inputs: Tensor) -> Outputs:
        result = network.expect(*(convert(value, torch.float32) for value in inputs))
        if isinstance(result, Tensor):
            return convert(result, dtype)
        return [convert(value, dtype) for value in result]

    return dataclasses.replace(
        network,
        name=f"{network.name}-{str(dtype).split('.')[1]}",
        inputs=[convert(value, dtype) for value in network.inputs],
        expect=expect,
    )


_BY_NAME = {
    network.name: network
    for module in (elementwise, pooling, linear, shaping, slicing, indexing, resampling)
    for network in module.NETWORKS
}

NETWORKS = [
    *(_in(_BY_NAME[name], torch.float16) for name in _HALF),
    *(_in(_BY_NAME[name], torch.bfloat16) for name in _BFLOAT16),
]
