from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, refusal

from trtcompile.conversion.ops.pooling import averaging_matrix

aten = torch.ops.aten

_KERNEL_STRIDE_PADDING = [
    (kernel, stride, padding)
    for kernel, stride in itertools.product((2, 3, 4), (1, 2, 3, 4))
    for padding in range(kernel // 2 + 1)
]
_MAX = {aten.max_pool2d.default: (F.max_pool2d, 2), aten.max_pool3d.default: (F.max_pool3d, 3)}


def _grid(pool: Callable[..., torch.Tensor], **options: object) -> Callable[..., object]:
    """All kernels, strides, and paddings in one graph."""
    return lambda x: [pool(x, k, s, p, **options) for k, s, p in _KERNEL_STRIDE_PADDING]


def _shape(dims: int, size: int) -> tuple[int, ...]:
    return (1, 2, *(size, size + 1, size + 2)[:dims])


CASES = [
    *(
        case(
            target,
            f"grid_{size}_{mode}",
            _grid(f, ceil_mode=mode == "ceil"),
            floats(*_shape(dims, size)),
            build=dims == 2,
        )
        for target, (f, dims) in _MAX.items()
        for size in (6, 7)
        for mode in ("floor", "ceil")
    ),
    *(
        case(
            aten.avg_pool2d.default,
            f"grid_{mode}_{'counting' if counting else 'excluding'}",
            _grid(F.avg_pool2d, ceil_mode=mode == "ceil", count_include_pad=counting),
            floats(1, 2, 7, 8),
        )
        for mode, counting in (("floor", True), ("floor", False), ("ceil", False))
    ),
    case(
        aten.avg_pool2d.default,
        "ceil_counting_without_padding",
        lambda x: [F.avg_pool2d(x, k, s, 0, True, True) for k in (2, 3) for s in (2, 3, 4)],
        floats(1, 2, 7, 8),
    ),
    case(
        aten.avg_pool2d.default,
        "asymmetric",
        lambda x: F.avg_pool2d(x, (3, 2), (1, 2), (1, 0)),
        floats(2, 3, 7, 8),
    ),
    case(
        aten.avg_pool2d.default,
        "half",
        lambda x: F.avg_pool2d(x, 3, 2, 1),
        floats(2, 3, 7, 8).half(),
        tolerance=2e-3,
    ),
    case(
        aten.avg_pool2d.default,
        "dynamic",
        lambda x: F.avg_pool2d(x, 3, 1, 1),
        floats(2, 3, 7, 8),
        dynamic={0: {0: (1, 2, 4), 2: (3, 7, 10)}},
    ),
    case(aten.avg_pool2d.default, "1d", lambda x: F.avg_pool1d(x, 3, 2, 1), floats(2, 3, 8)),
    case(
        aten.max_pool2d.default, "default_stride", lambda x: F.max_pool2d(x, 2), floats(2, 3, 7, 8)
    ),
    case(
        aten.max_pool2d.default,
        "asymmetric",
        lambda x: F.max_pool2d(x, (3, 2), (1, 2), (1, 0)),
        floats(2, 3, 7, 8),
    ),
    case(
        aten.max_pool2d.default,
        "negative",
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        -floats(1, 2, 6, 6).abs() - 1,
    ),
    case(
        aten.max_pool2d.default,
        "half",
        lambda x: F.max_pool2d(x, 3, 2, 1),
        floats(2, 3, 7, 8).half(),
    ),
    case(
        aten.max_pool2d.default,
        "dynamic",
        lambda x: F.max_pool2d(x, 3, 1, 1),
        floats(2, 3, 7, 8),
        dynamic={0: {0: (1, 2, 4), 3: (3, 8, 10)}},
    ),
    case(
        aten.max_pool2d.default,
        "ceil_dynamic_batch",
        lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
        floats(2, 3, 6, 8),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    case(
        aten.max_pool3d.default,
        "default_stride",
        lambda x: F.max_pool3d(x, (1, 2, 3)),
        floats(2, 3, 4, 5, 6),
    ),
    *(
        case(
            aten.adaptive_avg_pool2d.default,
            f"{'x'.join(map(str, size))}_to_{'x'.join(map(str, out))}",
            lambda x, out=out: F.adaptive_avg_pool2d(x, out),
            floats(2, 3, *size),
        )
        for size, out in (
            ((8, 6), (1, 1)),
            ((8, 6), (4, 3)),
            ((8, 6), (2, 6)),
            ((7, 5), (3, 2)),
            ((7, 5), (3, 5)),
            ((1, 1), (7, 7)),
            ((3, 4), (7, 6)),
            ((2, 9), (3, 1)),
        )
    ),
    case(
        aten.adaptive_avg_pool2d.default,
        "half",
        lambda x: F.adaptive_avg_pool2d(x, 3),
        floats(2, 3, 7, 5).half(),
        tolerance=2e-3,
    ),
    case(
        aten.adaptive_avg_pool2d.default,
        "dynamic_to_1x1",
        lambda x: F.adaptive_avg_pool2d(x, 1),
        floats(2, 3, 7, 5),
        dynamic={0: {0: (1, 2, 4), 2: (2, 7, 9), 3: (2, 5, 6)}},
    ),
    case(
        aten.adaptive_avg_pool2d.default,
        "dynamic_batch",
        lambda x: F.adaptive_avg_pool2d(x, (3, 2)),
        floats(2, 3, 7, 5),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    case(
        aten.adaptive_avg_pool2d.default,
        "1d",
        lambda x: F.adaptive_avg_pool1d(x, 3),
        floats(2, 3, 8),
    ),
    case(
        aten.max_pool1d.default,
        "grid",
        lambda x: [_grid(F.max_pool1d)(x), _grid(F.max_pool1d, ceil_mode=True)(x)],
        floats(2, 3, 7),
    ),
    case(aten.max_pool1d.default, "default_stride", lambda x: F.max_pool1d(x, 3), floats(2, 3, 8)),
    case(
        aten.max_pool1d.default,
        "dynamic",
        lambda x: F.max_pool1d(x, 3, 1, 1),
        floats(2, 3, 8),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    case(
        aten.avg_pool3d.default,
        "grid_counting",
        lambda x: [
            F.avg_pool3d(x, k, s, p)
            for k, s, p in ((2, 1, 0), (3, 2, 1), ((1, 2, 3), 2, (0, 1, 1)))
        ],
        floats(1, 2, 5, 6, 7),
    ),
    case(
        aten.avg_pool3d.default,
        "grid_excluding_ceil",
        lambda x: [F.avg_pool3d(x, 3, s, p, True, False) for s in (1, 2, 3) for p in (0, 1)],
        floats(1, 2, 5, 6, 7),
    ),
    *(
        case(
            aten._adaptive_avg_pool3d.default,
            f"to_{'x'.join(map(str, out))}",
            lambda x, out=out: F.adaptive_avg_pool3d(x, out),
            floats(2, 3, 4, 6, 8),
        )
        for out in ((2, 3, 8), (4, 1, 2))
    ),
]

_MAP = floats(1, 2, 6, 6)
_DYNAMIC = {0: {2: (4, 6, 8)}}
REFUSALS = [
    *(
        refusal(
            target,
            "no_batch",
            "no batch dimension",
            lambda x, f=f: f(x, 2),
            floats(*(2, 6, 6, 6)[: dims + 1]),
        )
        for target, (f, dims) in _MAX.items()
    ),
    *(
        refusal(
            target,
            "dilation",
            "dilated pooling",
            lambda x, f=f: f(x, 2, 1, 0, 2),
            floats(*_shape(dims, 6)),
        )
        for target, (f, dims) in _MAX.items()
    ),
    refusal(
        aten.max_pool2d.default,
        "int64",
        "floating-point",
        lambda x: F.max_pool2d(x, 2),
        integers(1, 2, 6, 6),
    ),
    refusal(
        aten.max_pool2d.default,
        "ceil_dynamic",
        "known when compiling",
        lambda x: F.max_pool2d(x, 3, 1, ceil_mode=True),
        _MAP,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.avg_pool2d.default,
        "no_batch",
        "no batch dimension",
        lambda x: F.avg_pool2d(x, 2),
        floats(2, 6, 6),
    ),
    refusal(
        aten.avg_pool2d.default,
        "divisor",
        "divisor_override",
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        _MAP,
    ),
    refusal(
        aten.avg_pool2d.default,
        "ceil_counting_padding",
        "counted padding",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True),
        _MAP,
    ),
    refusal(
        aten.adaptive_avg_pool2d.default,
        "no_batch",
        "no batch dimension",
        lambda x: F.adaptive_avg_pool2d(x, 3),
        floats(2, 6, 6),
    ),
    refusal(
        aten.adaptive_avg_pool2d.default,
        "dynamic",
        "known when compiling",
        lambda x: F.adaptive_avg_pool2d(x, 3),
        _MAP,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.max_pool1d.default,
        "dilation",
        "dilated pooling",
        lambda x: F.max_pool1d(x, 2, 1, 0, 2),
        floats(1, 2, 8),
    ),
    refusal(
        aten.avg_pool3d.default,
        "divisor",
        "divisor_override",
        lambda x: F.avg_pool3d(x, 2, divisor_override=3),
        floats(1, 2, 4, 4, 4),
    ),
    refusal(
        aten._adaptive_avg_pool3d.default,
        "unequal_windows",
        "differ in size",
        lambda x: F.adaptive_avg_pool3d(x, 3),
        floats(1, 2, 4, 4, 4),
    ),
    refusal(
        aten._adaptive_avg_pool3d.default,
        "no_batch",
        "no batch dimension",
        lambda x: F.adaptive_avg_pool3d(x, 2),
        floats(2, 4, 4, 4),
    ),
    refusal(
        aten._adaptive_avg_pool3d.default,
        "dynamic",
        "known when compiling",
        lambda x: F.adaptive_avg_pool3d(x, 2),
        floats(1, 2, 4, 4, 4),
        dynamic={0: {2: (2, 4, 6)}},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.parametrize(("size", "output_size"), [*itertools.product((1, 2, 5, 12), (1, 2, 3, 7))])
def test_averaging_matrix_is_adaptive_average_pooling(size: int, output_size: int) -> None:
    x = floats(1, 3, size).double()
    matrix = averaging_matrix(size, output_size)
    torch.testing.assert_close(x @ matrix.T, F.adaptive_avg_pool1d(x, output_size))
