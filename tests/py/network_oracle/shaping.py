"""Layers that rearrange: Shuffle, Concatenation, Squeeze, Unsqueeze, Padding, assertions."""

from __future__ import annotations

import math

import torch

from network_oracle.layer_view import LayerView
from network_oracle.padding import pad_spatial
from network_oracle.registry import handles


@handles("SHUFFLE", "IShuffleLayer")
def shuffle(view: LayerView) -> torch.Tensor:
    """Transpose, reshape, transpose."""
    x = view.value(0)
    x = x.permute(_permutation(view, "first_transpose", x.dim()))
    if view.has(1):
        sizes: list[int] | None = view.integers(1)
    else:
        sizes = view.optional_dims("reshape_dims")
    if sizes is not None:
        x = x.reshape(_resolve(view, sizes, x))
    return x.permute(_permutation(view, "second_transpose", x.dim()))


def _permutation(view: LayerView, attribute: str, rank: int) -> list[int]:
    order = list(getattr(view.layer, attribute))[:rank]
    if sorted(order) != list(range(rank)):
        raise view.mismatch(f"{attribute} {order} is no permutation of {rank} dimensions.")
    return order


def _resolve(view: LayerView, sizes: list[int], x: torch.Tensor) -> list[int]:
    """Replace the placeholders 0 (copy that dimension of x) and -1 (what remains)."""
    if view.layer.zero_is_placeholder:
        if any(size == 0 and dim >= x.dim() for dim, size in enumerate(sizes)):
            raise view.mismatch(f"reshape {sizes} copies a dimension that the input lacks.")
        sizes = [x.shape[dim] if size == 0 else size for dim, size in enumerate(sizes)]
    known = math.prod(size for size in sizes if size != -1)
    if sizes.count(-1) == 1 and known and x.numel() % known == 0:
        sizes = [x.numel() // known if size == -1 else size for size in sizes]
    if min(sizes, default=0) < 0 or math.prod(sizes) != x.numel():
        raise view.mismatch(f"cannot reshape {tuple(x.shape)} to {tuple(sizes)}.")
    return sizes


@handles("CONCATENATION", "IConcatenationLayer", same_type=None)
def concatenation(view: LayerView) -> torch.Tensor:
    parts = [view.value(index) for index in range(len(view.raw))]
    axis = view.axis(view.layer.axis, parts[0].dim())
    shapes = {tuple(part.shape[:axis] + part.shape[axis + 1 :]) for part in parts}
    if len(shapes) > 1:
        raise view.mismatch(f"its inputs differ beside axis {axis}: {sorted(shapes)}.")
    return torch.cat(parts, dim=axis)


@handles("SQUEEZE", "ISqueezeLayer")
def squeeze(view: LayerView) -> torch.Tensor:
    """Drop the given axes, or all whose length the definition knows to be one."""
    x = view.value(0)
    declared = view.input_shapes[0] or ()
    if not view.has(1):
        return x.reshape([n for n, known in zip(x.shape, declared, strict=True) if known != 1])
    axes = {view.axis(axis, x.dim()) for axis in view.integers(1)}
    if any(x.shape[axis] != 1 for axis in axes):
        raise view.mismatch(f"axes {sorted(axes)} of {tuple(x.shape)} are not all of length 1.")
    return x.reshape([size for dim, size in enumerate(x.shape) if dim not in axes])


@handles("UNSQUEEZE", "IUnsqueezeLayer")
def unsqueeze(view: LayerView) -> torch.Tensor:
    x, given = view.value(0), view.integers(1)
    rank = x.dim() + len(given)
    axes = {view.axis(axis, rank) for axis in given}
    if len(axes) != len(given):
        raise view.mismatch(f"axes {given} repeat.")
    sizes = iter(x.shape)
    return x.reshape([1 if dim in axes else next(sizes) for dim in range(rank)])


@handles("PADDING", "IPaddingLayer")
def padding(view: LayerView) -> torch.Tensor:
    """Zeros around the last dimensions; a negative amount trims."""
    pre, post = view.dims("pre_padding_nd"), view.dims("post_padding_nd")
    return pad_spatial(view.value(), list(zip(pre, post, strict=True)))


@handles("ASSERTION", "IAssertionLayer", rounds_to=None)
def assertion(view: LayerView) -> list[torch.Tensor]:
    if not bool(view.value().all()):
        raise view.mismatch(f"the assertion {view.layer.message!r} fails.")
    return []


@handles("REVERSE_SEQUENCE", "IReverseSequenceLayer")
def reverse_sequence(view: LayerView) -> torch.Tensor:
    """For each index of the batch axis, reverse the first N of the sequence axis."""
    x, lengths = view.value(0), view.integers(1)
    batch_axis = view.axis(view.layer.batch_axis, x.dim())
    sequence_axis = view.axis(view.layer.sequence_axis, x.dim())
    if batch_axis == sequence_axis or len(lengths) != x.shape[batch_axis]:
        raise view.mismatch(f"{len(lengths)} lengths, axes {batch_axis} and {sequence_axis}.")
    if not all(0 <= length <= x.shape[sequence_axis] for length in lengths):
        raise view.mismatch(f"lengths {lengths} for a sequence of {x.shape[sequence_axis]}.")
    result = x.clone()
    swapped, source = (t.movedim((batch_axis, sequence_axis), (0, 1)) for t in (result, x))
    for batch, length in enumerate(lengths):
        swapped[batch, :length] = source[batch, :length].flip(0)
    return result
