from __future__ import annotations

from functools import partial

import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample
from torch import nn

aten = torch.ops.aten

HALF = {"tolerance": 2e-3}

_SMOOTH = [
    (aten.relu.default, torch.relu),
    (aten.sigmoid.default, torch.sigmoid),
    (aten.tanh.default, torch.tanh),
]

_ALONG_DIM = [
    (aten._softmax.default, lambda dim, x: aten._softmax.default(x, dim, False)),
    (aten.softmax.int, lambda dim, x: x.softmax(dim)),
    (aten._log_softmax.default, lambda dim, x: x.log_softmax(dim)),
]

_SAMPLED = (
    *(
        "celu",
        "elu",
        "gelu",
        "glu",
        "hardshrink",
        "hardsigmoid",
        "hardswish",
        "hardtanh",
        "leaky_relu",
    ),
    *(
        "logsigmoid",
        "mish",
        "prelu",
        "relu",
        "relu6",
        "selu",
        "silu",
        "softplus",
        "softshrink",
    ),
    *("softsign", "tanhshrink", "threshold"),
)


def _prelu(slopes: int) -> nn.PReLU:
    module = nn.PReLU(slopes)
    with torch.no_grad():
        module.weight.copy_(floats(slopes, seed=5))
    return module


CASES = [
    *(case(target, "signed", f, floats(2, 3, 4)) for target, f in _SMOOTH),
    *(case(target, "scalar", f, floats()) for target, f in _SMOOTH),
    *(
        case(target, "dynamic", f, floats(2, 3), dynamic={0: {0: (1, 2, 5), 1: (1, 3, 4)}})
        for target, f in _SMOOTH
    ),
    *(case(target, "half", f, floats(2, 3).half(), **HALF) for target, f in _SMOOTH),
    *(case(target, "int64", f, integers(2, 3)) for target, f in _SMOOTH),
    case(aten.relu.default, "zeros", torch.relu, torch.tensor([0.0, -0.0, -1e-30, 1e-30])),
    case(aten.relu.default, "int32", torch.relu, integers(7, dtype=torch.int32)),
    case(aten.sigmoid.default, "saturated", torch.sigmoid, torch.tensor([-200.0, 200.0, 0.0])),
    case(aten.sigmoid.default, "bool", torch.sigmoid, floats(2, 3) > 0),
    case(aten.tanh.default, "saturated", torch.tanh, torch.tensor([-90.0, 90.0, 0.0])),
    case(aten.hardtanh.default, "defaults", F.hardtanh, floats(4, 5) * 2),
    case(aten.hardtanh.default, "relu6", F.relu6, floats(4, 5) * 9),
    case(aten.hardtanh.default, "bounds", lambda x: F.hardtanh(x, -0.25, 3.0), floats(4, 5) * 2),
    case(aten.hardtanh.default, "int64", lambda x: F.hardtanh(x, -3, 4), integers(4, 5)),
    case(aten.hardtanh.default, "half", F.relu6, floats(4, 5).half() * 9, **HALF),
    case(aten.leaky_relu.default, "default", F.leaky_relu, floats(4, 5)),
    case(aten.leaky_relu.default, "slope", lambda x: F.leaky_relu(x, 0.3), floats(4, 5)),
    case(aten.leaky_relu.default, "slope_0", lambda x: F.leaky_relu(x, 0.0), floats(4, 5)),
    case(aten.leaky_relu.default, "slope_negative", lambda x: F.leaky_relu(x, -2.0), floats(4, 5)),
    case(aten.leaky_relu.default, "slope_above_1", lambda x: F.leaky_relu(x, 1.5), floats(4, 5)),
    case(aten.leaky_relu.default, "half", F.leaky_relu, floats(4, 5).half(), **HALF),
    case(aten.clamp.default, "both", lambda x: x.clamp(-0.5, 0.75), floats(4, 5)),
    case(aten.clamp.default, "min", lambda x: x.clamp(min=0.1), floats(4, 5)),
    case(aten.clamp.default, "max", lambda x: x.clamp(max=-0.1), floats(4, 5)),
    case(aten.clamp.default, "crossed", lambda x: x.clamp(1.0, -1.0), floats(4, 5)),
    case(
        aten.clamp.default,
        "min_of_infinity",
        lambda x: x.clamp(min=0),
        torch.tensor([torch.inf, -torch.inf, -2.0]),
    ),
    case(
        aten.clamp.default,
        "infinite_bound",
        lambda x: x.clamp(-torch.inf, 0.5),
        torch.tensor([torch.inf, -torch.inf, -2.0]),
    ),
    case(aten.clamp.default, "int64", lambda x: x.clamp(-2, 3), integers(4, 5)),
    case(aten.clamp.default, "int64_crossed", lambda x: x.clamp(3, -2), integers(4, 5)),
    case(aten.clamp.default, "int64_min_only", lambda x: x.clamp(min=-2), integers(4, 5)),
    case(aten.clamp.default, "int64_float_bound", lambda x: x.clamp(-2.5, 3.5), integers(4, 5)),
    case(aten.clamp.default, "half", lambda x: x.clamp(-0.5, 0.75), floats(4, 5).half(), **HALF),
    case(aten.clamp.default, "half_min", lambda x: x.clamp(min=-0.5), floats(4, 5).half(), **HALF),
    case(aten.clamp.default, "bfloat16", lambda x: x.clamp(-0.5, 0.75), floats(4, 5).bfloat16()),
    case(
        aten.clamp.default,
        "dynamic",
        lambda x: x.clamp(min=-1),
        floats(2, 3),
        dynamic={0: {0: (1, 2, 5)}},
    ),
    case(aten.hardsigmoid.default, "signed", F.hardsigmoid, floats(4, 5) * 4),
    case(aten.hardsigmoid.default, "half", F.hardsigmoid, floats(4, 5).half() * 4, **HALF),
    case(aten.hardswish.default, "signed", F.hardswish, floats(4, 5) * 4),
    case(aten.hardswish.default, "half", F.hardswish, floats(4, 5).half() * 4, tolerance=5e-3),
    case(aten.mul.Tensor, "silu", F.silu, floats(4, 5) * 4),
    case(aten.gelu.default, "none", F.gelu, floats(4, 5) * 3),
    case(aten.gelu.default, "tanh", lambda x: F.gelu(x, approximate="tanh"), floats(4, 5) * 3),
    case(aten.elu.default, "alpha_1", F.elu, floats(4, 5) * 3),
    case(aten.elu.default, "alpha", lambda x: F.elu(x, 0.3), floats(4, 5) * 3),
    case(aten.elu.default, "alpha_negative", lambda x: F.elu(x, -2.0), floats(4, 5) * 3),
    case(aten.elu.default, "selu", F.selu, floats(4, 5) * 3),
    case(aten.softplus.default, "signed", F.softplus, floats(4, 5) * 9),
    case(aten.softplus.default, "beta", lambda x: F.softplus(x, beta=2.5), floats(4, 5) * 9),
    case(
        aten.softplus.default, "beta_negative", lambda x: F.softplus(x, beta=-0.5), floats(4, 5) * 9
    ),
    case(
        aten.softplus.default,
        "large",
        F.softplus,
        torch.tensor([-1e4, -90.0, 0.0, 90.0, 1e4, torch.inf, -torch.inf]),
    ),
    case(aten.prelu.default, "one_slope", _prelu(1), floats(2, 3, 4)),
    case(aten.prelu.default, "slope_of_each_channel", _prelu(3), floats(2, 3, 4)),
    case(aten.prelu.default, "two_dimensions", _prelu(3), floats(2, 3)),
    case(aten.prelu.default, "vector", _prelu(1), floats(5)),
    case(
        aten.prelu.default,
        "dynamic",
        _prelu(3),
        floats(2, 3, 4, 5),
        dynamic={0: {0: (1, 2, 4), 3: (2, 5, 6)}},
    ),
    *(
        case(target, f"dim_{dim}", partial(f, dim), floats(2, 3, 4), build=dim == 0)
        for target, f in _ALONG_DIM
        for dim in (0, 1, 2, -1, -3)
    ),
    *(case(target, "one_dimension", partial(f, 0), floats(5)) for target, f in _ALONG_DIM),
    *(case(target, "no_dimension", partial(f, -1), floats()) for target, f in _ALONG_DIM),
    *(
        case(target, "large_values", partial(f, 1), floats(2, 5) * 300, build=False)
        for target, f in _ALONG_DIM
    ),
    *(
        case(target, "half", partial(f, 1), floats(2, 5).half(), build=False, **HALF)
        for target, f in _ALONG_DIM
    ),
    *(
        case(
            target,
            "dynamic",
            partial(f, 1),
            floats(2, 3),
            dynamic={0: {0: (1, 2, 4), 1: (2, 3, 6)}},
        )
        for target, f in _ALONG_DIM
    ),
    case(
        aten.softmax.int,
        "half_to_float",
        lambda x: x.softmax(1, dtype=torch.float32),
        floats(2, 5).half(),
        tolerance=1e-3,
    ),
    case(aten.softmax.int, "int64", lambda x: x.softmax(1, dtype=torch.float32), integers(2, 5)),
]

CASES += [
    case(aten.rrelu.default, "eval", F.rrelu, floats(4, 5)),
    case(aten.rrelu.default, "bounds", lambda x: F.rrelu(x, 0.1, 0.9), floats(4, 5)),
    case(aten.softplus.default, "threshold", lambda x: F.softplus(x, 1, 2), floats(4, 5) * 4),
    case(aten.softplus.default, "threshold_beta", lambda x: F.softplus(x, -2, 1), floats(4, 5) * 4),
    case(aten.softplus.default, "half", F.softplus, floats(4, 5).half() * 4, **HALF),
    case(aten.expm1.default, "celu", F.celu, floats(4, 5) * 3),
    case(aten.expm1.default, "celu_alpha", lambda x: F.celu(x, 0.3), floats(4, 5) * 3, build=False),
    case(aten.log1p.default, "logsigmoid", F.logsigmoid, floats(4, 5) * 9),
    case(aten.hardtanh.default, "int32", F.relu6, integers(4, 5, dtype=torch.int32)),
    *(
        case(target, name, f, floats(4, 6) * 3, dynamic={0: {0: (1, 4, 5)}}, build=False)
        for target, name, f in (
            (aten.softplus.default, "mish", F.mish),
            (aten.sigmoid.default, "glu", F.glu),
            (aten.where.self, "hardshrink", F.hardshrink),
            (aten.where.self, "hardshrink_0", lambda x: F.hardshrink(x, 0.0)),
            (aten.sign.default, "softshrink", F.softshrink),
            (aten.tanh.default, "tanhshrink", F.tanhshrink),
            (aten.where.self, "threshold", lambda x: F.threshold(x, 0.1, 20)),
            (aten.div.Tensor, "softsign", F.softsign),
            (aten.softmax.int, "softmin", lambda x: F.softmin(x, 1)),
        )
    ),
]


REFUSALS = [
    refusal(
        aten._log_softmax.default,
        "empty",
        "a dimension of size 0 has no maximum",
        lambda x: torch.log_softmax(x, dim=1),
        torch.zeros(2, 0),
    ),
    refusal(
        aten.elu.default,
        "input_scale",
        "does not scale its input",
        lambda x: aten.elu(x, 1.5, 1.0, 0.5),
        floats(4, 5),
    ),
    refusal(
        aten.rrelu.default,
        "training",
        "random slopes",
        lambda x: F.rrelu(x, training=True),
        floats(4, 5),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@each_sample(
    [
        *((f"nn.functional.{name}", (torch.float32,)) for name in _SAMPLED),
        *((name, (torch.float32,), "float64") for name in ("softmax", "nn.functional.softmin")),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: tuple[str, ...]) -> None:
    check_samples(name, dtype, most=3, refused=refused)
