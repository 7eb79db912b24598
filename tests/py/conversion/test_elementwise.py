from __future__ import annotations

import pytest
import torch
from checks import capture_for_test
from operator_case import Case, Refusal, booleans, case, each, floats, integers, positive, refusal
from operator_samples import check_samples, each_sample
from torch import nn

from trtcompile import CompileSpec
from trtcompile.conversion import convert
from trtcompile.lowering import lower

aten = torch.ops.aten

HALF = {"tolerance": 2e-3, "build": False}
A, B = floats(2, 3, 4), floats(2, 3, 4, seed=1)

SPECIAL = torch.tensor([-torch.inf, -2.5, -0.0, 0.0, 7.0, torch.inf, torch.nan])

_TENSOR = {
    aten.add.Tensor: torch.add,
    aten.sub.Tensor: torch.sub,
    aten.mul.Tensor: torch.mul,
    aten.div.Tensor: torch.div,
    aten.maximum.default: torch.maximum,
    aten.minimum.default: torch.minimum,
}
_LARGER = {
    aten.maximum.default: torch.maximum,
    aten.minimum.default: torch.minimum,
    aten.fmax.default: torch.fmax,
    aten.fmin.default: torch.fmin,
}
_SCALAR = {
    aten.add.Scalar: aten.add.Scalar,
    aten.sub.Scalar: aten.sub.Scalar,
    aten.rsub.Scalar: aten.rsub.Scalar,
    aten.mul.Scalar: aten.mul.Scalar,
    aten.div.Scalar: aten.div.Scalar,
}
_WITH_ALPHA = (aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar)


def _tensor_cases(target: object, f: object) -> list[Case]:
    def one(form: str, *inputs: torch.Tensor, **fields: object) -> Case:
        return case(target, form, f, *inputs, **fields)

    nonzero = integers(2, 3) * 2 + 1  # odd: DIV too
    return [
        one("same_shape", A, B),
        one("broadcasts_left", floats(4, seed=2), B),
        one("broadcasts_right", A, floats(3, 1, seed=2)),
        one("broadcasts_both", floats(2, 1, 4), floats(3, 1, seed=1)),
        one("no_dimension", floats(), floats(seed=1)),
        one("int64", integers(2, 3), nonzero),
        one("int32_and_int64", integers(2, 3, dtype=torch.int32), nonzero),
        one("int64_and_float", nonzero, floats(2, 3)),
        one("half", A.half(), B.half(), **HALF),
        one("bfloat16", A.bfloat16(), B.bfloat16(), tolerance=1e-2, build=False),
        one("dynamic", A, floats(3, 1), dynamic={0: {0: (1, 2, 5), 2: (1, 4, 7)}}),
    ]


def _scalar_cases(target: object, f: object) -> list[Case]:
    def one(form: str, scalar: float, x: torch.Tensor, **fields: object) -> Case:
        return case(target, form, lambda x: f(x, scalar), x, **fields)

    return [
        one("float", -2.5, A),
        one("int64_int", 3, integers(2, 3)),
        one("int64_float", 2.5, integers(2, 3)),
        one("half", 0.375, A.half(), **HALF),
    ]


def _powers_of_numbers(x: torch.Tensor) -> list[torch.Tensor]:
    return [torch.pow(base, x) for base in (2, 0.3, -2, 0, 1.5)]


CASES = [
    *(c for target, f in _TENSOR.items() for c in _tensor_cases(target, f)),
    *(c for target, f in _SCALAR.items() for c in _scalar_cases(target, f)),
    # A Python scalar in a model becomes the Tensor overload.
    case(aten.add.Tensor, "python_scalar", lambda x: x + 1.5, A),
    case(aten.add.Tensor, "python_int", lambda x: x + 1, integers(2, 3)),
    case(aten.sub.Tensor, "python_scalar", lambda x: x - 1.5, A),
    case(aten.mul.Tensor, "python_scalar", lambda x: x * -0.5, A),
    case(aten.div.Tensor, "python_scalar", lambda x: x / 4, A),
    case(aten.div.Tensor, "int64_by_scalar", lambda x: x / 4, integers(2, 3)),
    case(aten.div.Tensor, "by_zero", lambda x: x / torch.tensor(0.0), torch.tensor([1.0, -1.0])),
    case(aten.add.Tensor, "constant", lambda x: x + torch.tensor([1.0, -2.0, 3.0, 0.5]), A),
    case(
        aten.add.Tensor,
        "both_dynamic",
        torch.add,
        A,
        B,
        dynamic={0: {0: (1, 2, 5)}, 1: {0: (1, 2, 5)}},
    ),
    case(aten.add.Tensor, "half_and_float", torch.add, A.half(), B),
    case(
        aten.add.Scalar, "dynamic", lambda x: aten.add.Scalar(x, 2), A, dynamic={0: {1: (1, 3, 4)}}
    ),
    case(aten.add.Tensor, "itself", lambda x: x + x, A),
    case(aten.add.Tensor, "alpha", lambda a, b: torch.add(a, b, alpha=-0.5), A, B),
    case(aten.add.Tensor, "alpha_true", lambda a, b: torch.add(a, b, alpha=True), A > 0, B > 0),
    case(
        aten.add.Tensor,
        "alpha_false",
        lambda a, b: torch.add(a, b, alpha=False),
        (A > 0)[0],
        B > 0,
    ),
    case(aten.add.Tensor, "bool_constant", lambda a: a + torch.tensor([True, False] * 2), A > 0),
    case(aten.add.Tensor, "alpha_scalar", lambda a: torch.add(a, 3.0, alpha=-0.5), A),
    case(
        aten.add.Tensor,
        "alpha_int64",
        lambda a, b: torch.add(a, b, alpha=3),
        integers(4),
        integers(4),
    ),
    case(
        aten.add.Tensor,
        "alpha_mixed",
        lambda a, b: torch.add(a, b, alpha=0.5),
        floats(3),
        integers(3),
    ),
    case(aten.sub.Tensor, "alpha", lambda a, b: torch.sub(a, b, alpha=2.5), A, B),
    case(aten.sub.Tensor, "alpha_broadcast", lambda a, b: torch.sub(a, b, alpha=2), A, floats(4)),
    *(case(t, "alpha", lambda x, t=t: t(x, 1.5, -0.75), A) for t in _WITH_ALPHA),
    *(case(t, "alpha_int64", lambda x, t=t: t(x, 4, 3), integers(2, 3)) for t in _WITH_ALPHA),
    case(aten.rsub.Scalar, "python", lambda x: 1.0 - x, A),
    case(aten.add.Tensor, "bool", torch.add, booleans(2, 9), booleans(9, seed=1)),
    case(aten.mul.Tensor, "bool", torch.mul, booleans(2, 9), booleans(9, seed=1)),
    case(aten.maximum.default, "bool", torch.maximum, booleans(2, 9), booleans(9, seed=1)),
    case(aten.minimum.default, "bool", torch.minimum, booleans(2, 9), booleans(9, seed=1)),
    case(aten.div.Tensor, "bool", torch.div, booleans(9), torch.ones(9, dtype=torch.bool)),
    case(aten.mul.Tensor, "bool_and_float", torch.mul, booleans(2, 3), floats(2, 3)),
    case(aten.mul.Tensor, "bool_and_int64", torch.mul, booleans(2, 3), integers(2, 3)),
    case(aten.add.Tensor, "bool_and_scalar", lambda x: x + 2, booleans(2, 3)),
    case(aten.mul.Tensor, "bool_and_python_bool", lambda x: x * True, booleans(2, 3)),
    case(
        aten.mul.Tensor, "half_by_large_scalar", lambda x: x * 1e5, A.half() * 1e-3, tolerance=2e-3
    ),
    case(
        aten.div.Tensor, "half_by_large_scalar", lambda x: x / 1e5, A.half() * 1e3, tolerance=2e-3
    ),
    case(aten.mul.Tensor, "half_by_infinity", lambda x: x * torch.inf, A.half()),
    case(
        aten.pow.Tensor_Scalar,
        "whole_exponents_of_signed",
        lambda x: [torch.pow(x, e) for e in (0, 1, 2, 3, 4, 5, 7, 8, -1, -2, -3, 2.0, 3.0, 9)],
        A * 2,
        tolerance=1e-4,
    ),
    case(
        aten.pow.Tensor_Scalar,
        "fractional_exponents",
        lambda x: [torch.pow(x, e) for e in (0.5, -0.5, 1.7, -2.3, 0.25, 12.5)],
        positive(2, 3),
    ),
    case(aten.pow.Tensor_Scalar, "zeros", lambda x: x**2.5, torch.tensor([0.0, 1.0])),
    case(
        aten.pow.Tensor_Scalar,
        "int64",
        lambda x: [x**e for e in (1, 2, 3, 6)],
        integers(2, 3),
    ),
    case(aten.pow.Tensor_Scalar, "int64_exponent_half", lambda x: x**0.5, integers(2, 3).abs()),
    case(aten.pow.Tensor_Scalar, "half", lambda x: x**3, A.half(), **HALF),
    case(aten.pow.Tensor_Scalar, "dynamic", lambda x: x**3, A, dynamic={0: {0: (1, 2, 4)}}),
    case(aten.pow.Tensor_Tensor, "positive", torch.pow, positive(2, 3), floats(2, 3)),
    case(aten.pow.Tensor_Tensor, "broadcasts", torch.pow, positive(2, 3, 1), floats(4)),
    case(aten.pow.Tensor_Tensor, "int64_exponent", torch.pow, positive(2, 3), integers(2, 3)),
]
CASES += [
    *(case(t, "nan", f, SPECIAL[:, None], SPECIAL) for t, f in _LARGER.items()),
    *(
        case(t, "half_nan", f, SPECIAL[:, None].half(), SPECIAL.half(), build=False)
        for t, f in _LARGER.items()
    ),
    *(
        case(t, "dynamic_rows", f, floats(2, 1), floats(4), dynamic={0: {0: (1, 2, 5)}})
        for t, f in _LARGER.items()
    ),
    *(
        case(t, "bool_and_int64", f, booleans(3, 1), integers(4), build=False)
        for t, f in _LARGER.items()
    ),
    case(aten.clamp.Tensor, "both", torch.clamp, A, B - 0.5, B + 0.5),
    case(aten.clamp.Tensor, "crossed", torch.clamp, A, B + 0.5, B - 0.5, build=False),
    case(aten.clamp.Tensor, "min", lambda x, y: torch.clamp(x, min=y), A, floats(3, 1)),
    case(aten.clamp.Tensor, "max", lambda x, y: torch.clamp(x, max=y), A, floats()),
    case(aten.clamp.Tensor, "nan", torch.clamp, SPECIAL[:, None], SPECIAL, SPECIAL, build=False),
    case(aten.clamp.Tensor, "int64", torch.clamp, integers(9), integers(1), integers(1) + 2),
    case(aten.clamp.Tensor, "mixed", torch.clamp, integers(9), floats(1), floats(1) + 2),
    case(
        aten.clamp.Tensor,
        "dynamic",
        torch.clamp,
        A,
        B,
        B + 1,
        dynamic={i: {0: (1, 2, 4)} for i in range(3)},
    ),
    *(
        case(
            aten.pow.Scalar, form, _powers_of_numbers, x, tolerance=2e-3 if form == "half" else 1e-5
        )
        for form, x in (("float", floats(2, 3)), ("half", floats(2, 3).half()))
    ),
    case(aten.pow.Scalar, "whole_exponents", lambda x: torch.pow(-2.0, x), integers(2, 3).float()),
    case(aten.pow.Scalar, "int64_exponent", lambda x: torch.pow(2.5, x), integers(2, 3)),
    case(
        aten.add.Tensor,
        "alpha_bool",
        lambda a, b: torch.add(a, b, alpha=True),
        booleans(9),
        booleans(9, seed=1),
    ),
    case(aten.sub.Tensor, "rsub", lambda a, b: torch.rsub(a, b, alpha=2), A, B),
    case(
        aten.sub.Tensor,
        "rsub_int64",
        lambda a, b: torch.rsub(a, b, alpha=2),
        integers(9),
        integers(9, seed=1),
    ),
]

_SHIFT, _SCALE, _NUMBER = floats(6, 1, 1), floats(6, 1, 1, seed=1), floats(1, 1, 1)


def _by_channel(x: torch.Tensor) -> torch.Tensor:
    factors = (f.reshape(6, *[1] * (x.dim() - 2)).to(x.dtype) for f in (_SHIFT, _SCALE))
    return torch.addcmul(next(factors), x, next(factors))


CASES += [
    case(aten.addcmul.default, form, f, *inputs, **fields)
    for form, f, inputs, fields in (
        ("same_shape", torch.addcmul, (A, B, A - B), {}),
        ("broadcasts", torch.addcmul, (floats(4), floats(2, 3, 1), floats(3, 1)), {}),
        ("value", lambda *x: torch.addcmul(*x, value=-0.5), (A, B, floats(4)), {}),
        ("int64", lambda *x: torch.addcmul(*x, value=3), (integers(4),) * 3, {}),
        ("mixed", torch.addcmul, (integers(4), floats(4), floats(4)), {}),
        ("half", torch.addcmul, (A.half(), B.half(), B.half()), HALF),
        ("by_channel", _by_channel, (floats(2, 6, 4, 5),), {"dynamic": {0: {0: (1, 2, 4)}}}),
        ("by_channel_half", _by_channel, (floats(2, 6, 4, 5).half(),), HALF),
        ("by_channel_of_volumes", _by_channel, (floats(2, 6, 2, 4, 3),), {}),
        ("by_channel_of_rows", _by_channel, (floats(3, 6),), {}),
        (
            "by_channel_of_sequences",
            _by_channel,
            (floats(2, 6, 4),),
            {"dynamic": {0: {2: (1, 4, 9)}}},
        ),
        (
            "by_row",
            lambda x: torch.addcmul(_SHIFT[:, 0, 0], x, _SCALE[:, 0, 0]),
            (floats(2, 3, 4, 6),),
            {},
        ),
        (
            "by_channel_and_value",
            lambda x: torch.addcmul(_SHIFT, x, _SCALE, value=2),
            (floats(2, 6, 4, 5),),
            {},
        ),
        (
            "one_number",
            lambda x: torch.addcmul(_SHIFT, x, _NUMBER),
            (floats(2, 6, 4, 5),),
            {},
        ),
        ("channels_appear", lambda x: torch.addcmul(_SHIFT, x, _SCALE), (floats(2, 1, 4, 5),), {}),
    )
]

REFUSALS = [
    refusal(aten.pow.Scalar, "int64", "no powers of integers", lambda x: 2**x, integers(3).abs()),
    refusal(
        aten.pow.Tensor_Tensor,
        "int64",
        "powers of integers",
        torch.pow,
        integers(3),
        integers(3).abs(),
    ),
    refusal(aten.pow.Tensor_Scalar, "int64", "powers of integers", lambda x: x**20, integers(3)),
    refusal(
        aten.pow.Tensor_Scalar, "int64_to_0", "powers of integers", lambda x: x**0, integers(3)
    ),
    refusal(aten.add.Tensor, "uint8", "uint8", lambda x: x + x, integers(3).abs().to(torch.uint8)),
    refusal(aten.mul.Tensor, "int8", "int8", lambda x: x * x, integers(3, dtype=torch.int8)),
    refusal(aten.add.Tensor, "float64", "float64", lambda x: x + x, floats(3).double()),
    refusal(aten.mul.Tensor, "int16", "int16", lambda x: x * x, integers(3, dtype=torch.int16)),
    refusal(
        aten.mul.Tensor, "complex64", "complex64", lambda x: x * x, floats(3).to(torch.complex64)
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize(
    ("norm", "shape"),
    [(nn.BatchNorm2d(6), (2, 6, 4, 5)), (nn.BatchNorm3d(6), (2, 6, 2, 4, 3))],
    ids=["2d", "3d"],
)
def test_a_batch_norm_is_one_layer(
    norm: nn.Module, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    """Only of that layer TensorRT makes one kernel that reads and writes INT8."""
    model = norm.to(dtype).eval()
    graph_module = capture_for_test(model, [floats(*shape).to(dtype)]).graph_module
    lower(graph_module, CompileSpec())
    network = convert(graph_module).definition
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    assert [layer.type.name for layer in layers] == ["SCALE"]


_NUMBERS = (torch.float32, torch.int64)


@each_sample(
    [
        *((name, _NUMBERS) for name in ("add", "sub", "mul", "rsub", "clamp", "true_divide")),
        *((name, (*_NUMBERS, torch.bool)) for name in ("maximum", "minimum", "fmax", "fmin")),
        *(
            (name, (torch.float32,))
            for name in ("addcdiv", "addcmul", "lerp", "logaddexp", "xlogy")
        ),
        ("pow", (torch.float32,)),
        ("__rpow__", (torch.float32,)),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=2, refused=refused)
