"""``Network``: a thin typed layer over ``INetworkDefinition`` that the converters write against.

It adds what every converter would repeat: broadcasting ranks, constants from torch tensors that outlive the
build, layer names, and a typed error when TensorRT refuses a layer.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from trtcompile._tensorrt import Flavour, trt
from trtcompile.errors import ConversionError

#: TensorRT's classes come from whichever flavour is installed, so they have no static type.
ITensor = Any
#: What a converter may receive for a Tensor argument: a network tensor, or a constant that has not entered the network.
TensorLike = Any
#: A size: known, or a network tensor of one INT64 element.
Size = Any

_FROM_TORCH = {
    torch.float32: "FLOAT",
    torch.float16: "HALF",
    torch.bfloat16: "BF16",
    torch.int8: "INT8",
    torch.float8_e4m3fn: "FP8",
    torch.uint8: "UINT8",
    torch.int32: "INT32",
    torch.int64: "INT64",
    torch.bool: "BOOL",
}


def tensorrt_dtype(dtype: torch.dtype) -> Any:
    """The TensorRT type of a torch dtype.

    Raises:
        ConversionError: TensorRT has no such type.
    """
    if dtype not in _FROM_TORCH:
        raise ConversionError(
            f"TensorRT has no type for {dtype}. Cast to float32 or int64 in the model."
        )
    return getattr(trt.DataType, _FROM_TORCH[dtype])


def torch_dtype(dtype: Any) -> torch.dtype:
    """The torch dtype of a TensorRT type."""
    return next(key for key, name in _FROM_TORCH.items() if name == dtype.name)


def has_tensorrt_dtype(dtype: torch.dtype) -> bool:
    """Whether TensorRT has a type for this torch dtype."""
    return dtype in _FROM_TORCH


_OF_KNOWN_SIZES: dict[str, Callable[[int, int], int]] = {
    "SUM": operator.add,
    "SUB": operator.sub,
    "PROD": operator.mul,
    "FLOOR_DIV": operator.floordiv,
    "MIN": min,
    "MAX": max,
}


class Network:
    """A network under construction.

    Attributes:
        definition: TensorRT's ``INetworkDefinition``.
        trt: the installed flavour's module, for its enumerations.
        result_dtypes: the dtypes of the outputs of the node being converted.
        result_shapes: their shapes; a size that is not known is a ``SymInt``.
    """

    def __init__(self, flavour: Flavour, definition: Any) -> None:
        self.flavour = flavour
        self.trt = flavour.trt
        self.definition = definition
        self.result_dtypes: list[torch.dtype] = []
        self.result_shapes: list[tuple[Any, ...]] = []
        self._scope = ""
        self._layers_in_scope = 0
        # TensorRT reads weights during the build, long after add_constant returned.
        self._weights: list[Any] = []
        self._dequantized: dict[int, tuple[ITensor, torch.dtype]] = {}

    # --- construction -------------------------------------------------------------------------------------------

    def enter_scope(self, name: str) -> None:
        """Names the layers that follow after a node of the graph."""
        self._scope, self._layers_in_scope = name, 0

    def layer(self, layer: Any, what: str) -> Any:
        """Names a new layer.

        Raises:
            ConversionError: TensorRT returned no layer.
        """
        if layer is None:
            raise ConversionError(
                f"TensorRT refused to add a {what} layer. Its log line says which argument is wrong."
            )
        suffix = f"/{what}" if self._layers_in_scope == 0 else f"/{what}.{self._layers_in_scope}"
        layer.name = self._scope + suffix
        self._layers_in_scope += 1
        return layer

    def weights(self, value: torch.Tensor) -> Any:
        """``trt.Weights`` over the memory of a CPU tensor, kept alive with the network."""
        value = value.detach().to("cpu").contiguous()
        self._weights.append(value)
        return trt.Weights(tensorrt_dtype(value.dtype), value.data_ptr(), value.numel())

    def no_weights(self, dtype: torch.dtype = torch.float32) -> Any:
        """Empty weights, for a layer that takes them from a tensor or does without."""
        return trt.Weights(tensorrt_dtype(dtype))

    def add_input(self, name: str, dtype: torch.dtype, shape: Sequence[int]) -> ITensor:
        """An input binding; -1 stands for a dynamic size."""
        return self.definition.add_input(name, tensorrt_dtype(dtype), tuple(shape))

    def mark_output(self, tensor: ITensor, name: str) -> None:
        """Makes ``tensor`` an output binding called ``name``."""
        tensor.name = name
        self.definition.mark_output(tensor)

    # --- constants and types ------------------------------------------------------------------------------------

    def constant(self, value: torch.Tensor) -> ITensor:
        """A constant layer. FP64 becomes FP32, TensorRT having no wider type."""
        value = value.to(torch.float32) if value.dtype == torch.float64 else value
        layer = self.definition.add_constant(tuple(value.shape), self.weights(value))
        return self.layer(layer, "constant").get_output(0)

    def tensor(self, value: TensorLike, dtype: torch.dtype | None = None) -> ITensor:
        """A network tensor of ``dtype`` from a network tensor, a torch tensor, or a Python number."""
        if isinstance(value, (bool, int, float)):
            return self.constant(torch.tensor(value, dtype=dtype))
        if isinstance(value, torch.Tensor):
            return self.constant(value if dtype is None else value.to(dtype))
        return value if dtype is None else self.cast(value, dtype)

    def dtype_of(self, value: TensorLike) -> torch.dtype:
        """The torch dtype of a network or torch tensor."""
        return value.dtype if isinstance(value, torch.Tensor) else torch_dtype(value.dtype)

    def rank(self, value: TensorLike) -> int:
        """The number of dimensions."""
        return 0 if isinstance(value, (bool, int, float)) else len(tuple(value.shape))

    def dims(self, value: TensorLike) -> tuple[int, ...]:
        """The sizes; -1 where dynamic."""
        return tuple(value.shape)

    def cast(self, x: ITensor, dtype: torch.dtype) -> ITensor:
        """``x`` as ``dtype``; no layer if it already is."""
        if torch_dtype(x.dtype) == dtype:
            return x
        return self.layer(self.definition.add_cast(x, tensorrt_dtype(dtype)), "cast").get_output(0)

    def identity(self, x: ITensor) -> ITensor:
        """A copy of ``x`` with a name of its own."""
        return self.layer(self.definition.add_identity(x), "identity").get_output(0)

    # --- arithmetic ---------------------------------------------------------------------------------------------

    def activation(
        self, x: ITensor, kind: Any, alpha: float | None = None, beta: float | None = None
    ) -> ITensor:
        """A pointwise activation."""
        layer = self.layer(self.definition.add_activation(x, kind), "activation")
        if alpha is not None:
            layer.alpha = alpha
        if beta is not None:
            layer.beta = beta
        return layer.get_output(0)

    def unary(self, x: ITensor, operation: Any) -> ITensor:
        """A unary operation; TensorRT wants at least one dimension for it."""
        if self.rank(x) == 0:
            raised = self.reshape(x, [1])
            return self.reshape(self.unary(raised, operation), [])
        return self.layer(self.definition.add_unary(x, operation), "unary").get_output(0)

    def elementwise(
        self, a: TensorLike, b: TensorLike, operation: Any, dtype: torch.dtype | None = None
    ) -> ITensor:
        """``a op b`` with both as ``dtype`` and NumPy broadcasting."""
        a, b = self.tensor(a, dtype), self.tensor(b, dtype)
        rank = max(self.rank(a), self.rank(b))
        a, b = self.expand_rank(a, rank), self.expand_rank(b, rank)
        return self.layer(
            self.definition.add_elementwise(a, b, operation), "elementwise"
        ).get_output(0)

    def select(
        self, condition: ITensor, a: TensorLike, b: TensorLike, dtype: torch.dtype | None = None
    ) -> ITensor:
        """``a`` where the condition holds, else ``b``, both as ``dtype``; all three broadcast."""
        values = [condition, self.tensor(a, dtype), self.tensor(b, dtype)]
        rank = max(self.rank(value) for value in values)
        values = [self.expand_rank(value, rank) for value in values]
        return self.layer(self.definition.add_select(*values), "select").get_output(0)

    def isnan(self, x: ITensor) -> ITensor:
        """Whether ``x`` is NaN, which no integer is."""
        return self._is(x, trt.UnaryOperation.ISNAN)

    def isinf(self, x: ITensor) -> ITensor:
        """Whether ``x`` is infinite, which no integer is."""
        return self._is(x, trt.UnaryOperation.ISINF)

    def _is(self, x: ITensor, operation: Any) -> ITensor:
        dtype = self.dtype_of(x)
        if not dtype.is_floating_point:
            x = self.cast(x, torch.int32) if dtype == torch.bool else x
            return self.elementwise(x, x, trt.ElementWiseOperation.LESS)
        # TensorRT 10 asks this of FP32 and FP16 only.
        return self.unary(self.cast(x, torch.float32) if dtype == torch.bfloat16 else x, operation)

    def truth(self, x: TensorLike) -> ITensor:
        """Whether ``x`` is not zero; NaN is not."""
        x = self.tensor(x)
        if self.dtype_of(x) == torch.bool:
            return x
        # A cast to BOOL in TensorRT need not be "unequal to zero".
        is_zero = self.elementwise(x, 0, trt.ElementWiseOperation.EQUAL, self.dtype_of(x))
        return self.unary(is_zero, trt.UnaryOperation.NOT)

    def expand_rank(self, x: ITensor, rank: int) -> ITensor:
        """Puts dimensions of size 1 in front until ``x`` has ``rank``."""
        missing = rank - self.rank(x)
        return x if missing == 0 else self.unsqueeze(x, list(range(missing)))

    def reduce(self, x: ITensor, operation: Any, dims: Sequence[int], keepdim: bool) -> ITensor:
        """A reduction over ``dims`` (negative counts from the end); of a scalar, the scalar."""
        if self.rank(x) == 0:
            return x
        mask = sum(1 << (d % self.rank(x)) for d in dims)
        return self.layer(
            self.definition.add_reduce(x, operation, mask, keepdim), "reduce"
        ).get_output(0)

    def matmul(self, a: ITensor, b: ITensor, *, transpose_b: bool = False) -> ITensor:
        """``a @ b`` over the last two dimensions, leading ones broadcast."""
        rank = max(self.rank(a), self.rank(b))
        a, b = self.expand_rank(a, rank), self.expand_rank(b, rank)
        operation = trt.MatrixOperation.TRANSPOSE if transpose_b else trt.MatrixOperation.NONE
        layer = self.definition.add_matrix_multiply(a, trt.MatrixOperation.NONE, b, operation)
        return self.layer(layer, "matmul").get_output(0)

    # --- shapes -------------------------------------------------------------------------------------------------

    def sizes(self, x: ITensor) -> ITensor:
        """The shape of ``x`` as an INT64 tensor."""
        return self.cast(
            self.layer(self.definition.add_shape(x), "shape").get_output(0), torch.int64
        )

    def size(self, x: ITensor, dim: int) -> Size:
        """One size of ``x``: an int where known, else an INT64 tensor of one element."""
        known = self.dims(x)[dim]
        if known >= 0:
            return known
        index = self.constant(torch.tensor([dim % self.rank(x)], dtype=torch.int32))
        return self.layer(self.definition.add_gather(self.sizes(x), index, 0), "gather").get_output(
            0
        )

    def all_sizes(self, x: TensorLike) -> list[Size]:
        """The size of each dimension of ``x``."""
        return [self.size(x, d) for d in range(self.rank(x))]

    def size_math(self, a: Size, b: Size, operation: str) -> Size:
        """``a op b`` of two sizes: an int where both are known. ``operation`` is an ``ElementWiseOperation``."""
        if isinstance(a, int) and isinstance(b, int):
            return _OF_KNOWN_SIZES[operation](a, b)
        first, second = self.shape_tensor([a]), self.shape_tensor([b])
        return self.elementwise(first, second, getattr(trt.ElementWiseOperation, operation))

    def size_product(self, sizes: Sequence[Size]) -> Size:
        """How many elements these sizes make."""
        return functools.reduce(lambda a, b: self.size_math(a, b, "PROD"), sizes, 1)

    def shape_tensor(self, sizes: Sequence[Size]) -> ITensor:
        """A 1-D INT64 tensor from known sizes and one-element tensors."""
        parts = [
            self.constant(torch.tensor([s], dtype=torch.int64)) if isinstance(s, int) else s
            for s in sizes
        ]
        return parts[0] if len(parts) == 1 else self.concat(parts, 0)

    def arange(
        self, count: Size, start: Size = 0, step: int = 1, dtype: torch.dtype = torch.int64
    ) -> ITensor:
        """``start + i * step`` for each ``i`` below ``count``, as INT64 or INT32."""
        if isinstance(count, int) and isinstance(start, int):
            return self.constant(torch.arange(count, dtype=dtype) * step + start)
        # The shape is an input; what add_fill takes gives the rank only.
        layer = self.definition.add_fill((1,), trt.FillOperation.LINSPACE, tensorrt_dtype(dtype))
        layer = self.layer(layer, "fill")
        layer.set_input(0, self.shape_tensor([count]))
        first = self.cast(self.shape_tensor([start]), dtype)
        layer.set_input(1, self.reshape(first, []))
        layer.set_input(2, self.constant(torch.tensor([step], dtype=dtype)))
        return layer.get_output(0)

    def reshape(self, x: ITensor, sizes: Sequence[Size]) -> ITensor:
        """``x`` with the given sizes; one of them may be -1."""
        layer = self.layer(self.definition.add_shuffle(x), "reshape")
        layer.zero_is_placeholder = False
        if all(isinstance(size, int) for size in sizes):
            layer.reshape_dims = tuple(sizes)
        else:
            layer.set_input(1, self.shape_tensor(sizes))
        return layer.get_output(0)

    def unsqueeze(self, x: ITensor, dims: Sequence[int]) -> ITensor:
        """Inserts dimensions of size 1 at ``dims`` of the result (non-negative, ascending)."""
        sizes = self.all_sizes(x)
        for dim in dims:
            sizes.insert(dim, 1)
        return self.reshape(x, sizes)

    def squeeze(self, x: ITensor, dims: Collection[int]) -> ITensor:
        """Drops dimensions of size 1."""
        rank = self.rank(x)
        dropped = {d % rank for d in dims}
        return self.reshape(x, [self.size(x, d) for d in range(rank) if d not in dropped])

    def slice(
        self,
        x: ITensor,
        starts: Sequence[Size],
        sizes: Sequence[Size],
        steps: Sequence[Size] | None = None,
        *,
        fill: float | None = None,
        mode: str | None = None,
    ) -> ITensor:
        """``result[i] = x[starts + i * steps]`` with the given sizes.

        Outside of ``x`` it is ``fill``, or what ``mode`` says: ``CLAMP``, ``REFLECT``, or ``WRAP``.
        """
        given = (starts, sizes, steps or [1] * len(sizes))
        known = [tuple(v if isinstance(v, int) else 0 for v in values) for values in given]
        layer = self.layer(self.definition.add_slice(x, *known), "slice")
        for index, values in enumerate(given, 1):
            if any(not isinstance(v, int) for v in values):
                layer.set_input(index, self.shape_tensor(values))
        if fill is not None:
            layer.mode = trt.SampleMode.FILL
            layer.set_input(4, self.tensor(fill, self.dtype_of(x)))
        elif mode is not None:
            layer.mode = getattr(trt.SampleMode, mode)
        return layer.get_output(0)

    def pad(
        self, x: ITensor, before: Sequence[int], after: Sequence[int], value: float = 0
    ) -> ITensor:
        """``x`` with so many elements of ``value`` around each dimension; a negative number cuts off."""
        sizes = [
            self.size_math(size, first + last, "SUM")
            for size, first, last in zip(self.all_sizes(x), before, after, strict=True)
        ]
        return self.slice(x, [-first for first in before], sizes, fill=value)

    def permute(self, x: ITensor, order: Sequence[int]) -> ITensor:
        """Reorders dimensions."""
        layer = self.layer(self.definition.add_shuffle(x), "permute")
        layer.first_transpose = trt.Permutation([d % self.rank(x) for d in order])
        return layer.get_output(0)

    def gather(
        self, x: ITensor, indices: TensorLike, dim: int, *, elementwise: bool = False
    ) -> ITensor:
        """``x`` at non-negative ``indices`` along ``dim``, whose place their dimensions take.

        With ``elementwise`` they have the rank of ``x``, and each names one element, as in ``torch.gather``.
        """
        if self.dtype_of(x) == torch.bool:  # not every TensorRT gathers bools
            numbers = self.gather(self.cast(x, torch.int32), indices, dim, elementwise=elementwise)
            return self.cast(numbers, torch.bool)
        mode = trt.GatherMode.ELEMENT if elementwise else trt.GatherMode.DEFAULT
        layer = self.definition.add_gather_v2(x, self.tensor(indices, torch.int32), mode)
        layer = self.layer(layer, "gather")
        layer.axis = dim % self.rank(x)
        return layer.get_output(0)

    def concat(self, tensors: Sequence[ITensor], dim: int) -> ITensor:
        """Joins tensors along ``dim``."""
        layer = self.layer(self.definition.add_concatenation(list(tensors)), "concat")
        layer.axis = dim % self.rank(tensors[0])
        return layer.get_output(0)

    # --- quantization -------------------------------------------------------------------------------------------

    def quantize(
        self,
        x: ITensor,
        scale: torch.Tensor,
        axis: int | None = None,
        *,
        dtype: torch.dtype = torch.int8,
    ) -> ITensor:
        """INT8 or FP8 of floating point: per tensor with a 0-D scale, or per channel with a 1-D scale and ``axis``."""
        layer = self.definition.add_quantize(x, self.constant(scale), tensorrt_dtype(dtype))
        return self._along(self.layer(layer, "quantize"), axis)

    def dequantize(
        self, x: ITensor, scale: torch.Tensor, dtype: torch.dtype, axis: int | None = None
    ) -> ITensor:
        """Floating point of ``dtype`` from INT8 or FP8."""
        layer = self.definition.add_dequantize(x, self.constant(scale), tensorrt_dtype(dtype))
        result = self._along(self.layer(layer, "dequantize"), axis)
        self._dequantized[id(result)] = result, torch_dtype(x.dtype)
        return result

    def dequantize_int4(
        self, levels: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype
    ) -> ITensor:
        """A weight of ``dtype`` from levels from -8 to 7, with a scale for each block of its last dimension."""
        nibbles = levels.detach().cpu().reshape(-1).to(torch.uint8) & 0xF
        packed = nibbles[0::2] | (nibbles[1::2] << 4)  # the first of two is in the low half
        self._weights.append(packed)
        weights = trt.Weights(trt.DataType.INT4, packed.data_ptr(), levels.numel())
        constant = self.layer(
            self.definition.add_constant(tuple(levels.shape), weights), "constant"
        ).get_output(0)
        layer = self.definition.add_dequantize(
            constant, self.constant(scales), tensorrt_dtype(dtype)
        )
        return self.layer(layer, "dequantize").get_output(0)

    def dequantized_from(self, x: TensorLike) -> torch.dtype | None:
        """What ``x`` was dequantized from; None if it does not come straight from a dequantize layer."""
        result, dtype = self._dequantized.get(id(x), (None, None))
        return dtype if result is x else None

    @staticmethod
    def _along(layer: Any, axis: int | None) -> ITensor:
        if axis is not None:
            layer.axis = axis
        return layer.get_output(0)
