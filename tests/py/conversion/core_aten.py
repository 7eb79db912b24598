"""The operators of PyTorch's core ATen opset, and why some of them have no converter."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

aten = torch.ops.aten

_TRAINING = "computes gradients, which no inference graph does"
_RANDOM = "is random; TensorRT's generator gives other numbers than PyTorch's"
_DECOMPOSED = "PyTorch writes it as operators that are listed above"
_LAYOUT = "asks for the layout of memory, which engines do not keep"
_COMPLEX = "has complex numbers, for which TensorRT has no type"

STAYS_IN_PYTORCH: dict[Any, str] = {
    aten._adaptive_avg_pool2d_backward.default: _TRAINING,
    aten._fft_c2r.default: _COMPLEX,
    aten._fft_r2c.default: _COMPLEX,
    aten._local_scalar_dense.default: "gives a Python number, which leaves the graph",
    aten._native_batch_norm_legit.default: "updates running statistics, as in training only",
    aten.adaptive_avg_pool1d.default: _DECOMPOSED,
    aten.alias.default: "changes nothing; lowering removes it",
    aten.atan2.out: "writes to its argument; captured graphs have the functional form",
    aten.avg_pool1d.default: _DECOMPOSED,
    aten.avg_pool2d_backward.default: _TRAINING,
    aten.convolution_backward.default: _TRAINING,
    aten.embedding_dense_backward.default: _TRAINING,
    aten.fill.Scalar: _DECOMPOSED,
    aten.max_pool2d_with_indices_backward.default: _TRAINING,
    aten.native_dropout.default: _RANDOM,
    aten.native_group_norm_backward.default: _TRAINING,
    aten.native_layer_norm_backward.default: _TRAINING,
    aten.nonzero.default: "gives a tensor whose shape depends on data",
    aten.rand.default: _RANDOM,
    aten.randn.default: _RANDOM,
    aten.randperm.default: _RANDOM,
    aten.resize_.default: "writes to its argument; captured graphs have the functional form",
    aten.sym_is_contiguous.default: _LAYOUT,
    aten.sym_numel.default: _DECOMPOSED,
    aten.sym_storage_offset.default: _LAYOUT,
    aten.sym_stride.int: _LAYOUT,
    aten.var.dim: _DECOMPOSED,
}


def core_operators() -> Iterator[Any]:
    """The overloads that PyTorch tags as core."""
    for name in torch._C._dispatch_get_all_op_names():
        namespace, _, operator = name.partition("::")
        packet, _, overload = operator.partition(".")
        found = getattr(getattr(aten, packet, None), overload or "default", None)
        if namespace == "aten" and found is not None and torch.Tag.core in found.tags:
            yield found
