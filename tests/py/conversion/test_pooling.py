from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, positive, refusal
from operator_samples import check_samples

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
            target,
            "no_batch",
            lambda x, f=f, dims=dims: [f(x, 2), f(x, 3, 2, 1)],
            floats(*(3, 6, 7, 8)[: dims + 1]),
        )
        for target, f, dims in (
            (aten.max_pool1d.default, F.max_pool1d, 1),
            (aten.max_pool2d.default, F.max_pool2d, 2),
            (aten.max_pool3d.default, F.max_pool3d, 3),
            (aten.avg_pool2d.default, F.avg_pool1d, 1),
            (aten.avg_pool3d.default, F.avg_pool3d, 3),
        )
    ),
    case(aten.avg_pool2d.default, "no_batch_2d", lambda x: F.avg_pool2d(x, 2), floats(3, 6, 7)),
    *(
        case(
            target,
            f"{name}_{mode}",
            lambda x, f=f, mode=mode, dilation=dilation: [
                f(x, k, s, p, dilation, mode == "ceil") for k, s, p in ((2, 1, 0), (3, 2, 1))
            ],
            x,
            build=mode == "ceil",
        )
        for target, f, dims in (
            (aten.max_pool1d.default, F.max_pool1d, 1),
            (aten.max_pool2d.default, F.max_pool2d, 2),
            (aten.max_pool3d.default, F.max_pool3d, 3),
        )
        for name, x, dilation in (
            ("dilation", floats(*_shape(dims, 7)), 2),
            ("int64", integers(*_shape(dims, 7)), 1),
            ("int32", integers(*_shape(dims, 7), dtype=torch.int32), 1),
        )
        for mode in ("floor", "ceil")
        if dims > 1 or name == "dilation"
    ),
    case(
        aten.max_pool2d.default,
        "dilation_dynamic_batch",
        lambda x: F.max_pool2d(x, 2, 2, 1, (1, 2)),
        floats(2, 3, 7, 8),
        dynamic={0: {0: (1, 2, 4)}},
    ),
    *(
        case(
            target,
            "values",
            lambda x, f=f: f(x, 3, 2, 1, return_indices=True)[0],
            floats(*_shape(dims, 7)),
        )
        for target, f, dims in (
            (aten.max_pool2d_with_indices.default, F.max_pool2d, 2),
            (aten.max_pool3d_with_indices.default, F.max_pool3d, 3),
        )
    ),
    *(
        case(
            target,
            f"divisor_{mode}_{'counting' if counting else 'excluding'}",
            lambda x, f=f, mode=mode, counting=counting: f(x, 3, 2, 1, mode == "ceil", counting, 5),
            floats(*_shape(dims, 8)),
            build=counting,
        )
        for target, f, dims in (
            (aten.avg_pool2d.default, F.avg_pool2d, 2),
            (aten.avg_pool3d.default, F.avg_pool3d, 3),
        )
        for mode in ("floor", "ceil")
        for counting in (False, True)
    ),
    *(
        case(
            aten.avg_pool2d.default,
            f"grid_ceil_counting_{size}",
            _grid(F.avg_pool2d, ceil_mode=True),
            floats(1, 2, size, size + 1),
        )
        for size in (7, 8)
    ),
    case(
        aten.avg_pool3d.default,
        "ceil_counting",
        lambda x: [F.avg_pool3d(x, 3, s, 1, True) for s in (1, 2, 3)],
        floats(1, 2, 6, 6, 7),
    ),
    *(
        case(
            target,
            "stride_2_dynamic",
            lambda x, f=f: f(x, 3, 2, 1),
            floats(2, 3, 7, 8),
            dynamic={0: {0: (1, 2, 3), 2: (3, 7, 10), 3: (3, 8, 9)}},
        )
        for target, f in (
            (aten.max_pool2d.default, F.max_pool2d),
            (aten.avg_pool2d.default, F.avg_pool2d),
        )
    ),
    *(
        case(aten.avg_pool2d.default, f"lp_{d}d", lambda x, f=f: f(x, 2, 3, 2), positive(*shape))
        for d, f, shape in ((1, F.lp_pool1d, (2, 3, 8)), (2, F.lp_pool2d, (2, 3, 8, 7)))
    ),
    case(aten.avg_pool3d.default, "lp_3d", lambda x: F.lp_pool3d(x, 2, 3), positive(1, 2, 6, 6, 7)),
]

_MAP = floats(1, 2, 6, 6)
REFUSALS = [
    *(
        refusal(
            target,
            "indices",
            "indices of the maxima",
            lambda x, f=f: f(x, 2, return_indices=True),
            floats(*_shape(dims, 6)),
        )
        for target, f, dims in (
            (aten.max_pool2d_with_indices.default, F.max_pool2d, 2),
            (aten.max_pool3d_with_indices.default, F.max_pool3d, 3),
        )
    ),
    refusal(
        aten.max_pool2d.default,
        "large_dilated_window",
        "too large for slices",
        lambda x: F.max_pool2d(x, 9, 1, 0, 2),
        floats(1, 1, 20, 20),
    ),
    refusal(
        aten.max_pool2d.default,
        "dilation_dynamic",
        "known spatial sizes",
        lambda x: F.max_pool2d(x, 2, 1, 0, 2),
        _MAP,
        dynamic={0: {2: (4, 6, 8)}},
    ),
    refusal(
        aten.avg_pool2d.default,
        "int64",
        "floating-point",
        lambda x: F.avg_pool2d(x, 2),
        integers(1, 2, 6, 6),
    ),
    refusal(
        aten.fractional_max_pool2d.default,
        "random",
        "no converter",
        lambda x: F.fractional_max_pool2d(x, 2, output_size=3),
        _MAP,
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


# Of a maximum in two or three dimensions PyTorch's samples give the indices too.
_SAMPLED = [
    *(f"nn.functional.avg_pool{d}d" for d in (1, 2, 3)),
    "nn.functional.max_pool1d",
]


@pytest.mark.parametrize("name", _SAMPLED)
def test_computes_the_samples_of_pytorch(name: str) -> None:
    check_samples(name, torch.float32, most=10, refused=["indices of the maxima"])
