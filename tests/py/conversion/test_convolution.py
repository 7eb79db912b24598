from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from operator_case import Case, Refusal, case, each, floats, integers, refusal
from operator_samples import check_samples
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

aten = torch.ops.aten
CONVOLUTION = aten.convolution.default

_MODULES = {
    (False, 1): nn.Conv1d,
    (False, 2): nn.Conv2d,
    (False, 3): nn.Conv3d,
    (True, 1): nn.ConvTranspose1d,
    (True, 2): nn.ConvTranspose2d,
    (True, 3): nn.ConvTranspose3d,
}
_INPUTS = {1: (2, 4, 9), 2: (2, 4, 7, 9), 3: (1, 4, 5, 6, 4)}


def _conv(
    dims: int, *, transposed: bool = False, out: int = 6, kernel: object = 3, **arguments: object
) -> nn.Module:
    """A convolution of 4 channels with weights that tell a swapped axis."""
    module = _MODULES[transposed, dims](4, out, kernel, **arguments)
    with torch.no_grad():
        for seed, parameter in enumerate(module.parameters(), start=7):
            parameter.copy_(floats(*parameter.shape, seed=seed) * 0.5)
    return module


_X, _W = floats(2, 4, 7, 9), floats(6, 4, 3, 3)


def _case(form: str, dims: int, x: torch.Tensor | None = None, **arguments: object) -> Case:
    fields = {
        k: arguments.pop(k) for k in ("dynamic", "build", "tolerance", "options") if k in arguments
    }
    fields.setdefault("tolerance", 1e-4)
    x = floats(*_INPUTS[dims]) if x is None else x
    return case(CONVOLUTION, form, _conv(dims, **arguments).to(x.dtype), x, **fields)


CASES = [
    *(_case(f"{d}d", d) for d in (1, 2, 3)),
    *(_case(f"{d}d_no_bias", d, bias=False) for d in (1, 2, 3)),
    *(_case(f"{d}d_stride_padding_dilation", d, stride=2, padding=3, dilation=2) for d in (1, 2)),
    *(_case(f"{d}d_groups", d, groups=2) for d in (1, 2, 3)),
    *(_case(f"{d}d_depthwise", d, groups=4, out=8, padding=1) for d in (1, 2, 3)),
    _case("3d_stride_padding", 3, stride=(1, 2, 1), padding=(0, 1, 2), build=False),
    _case("2d_pointwise", 2, kernel=1),
    _case("2d_kernel_1x3", 2, kernel=(1, 3), padding=(0, 1)),
    _case("2d_kernel_5x2", 2, kernel=(5, 2), stride=(1, 3), padding=(2, 0), dilation=(1, 2)),
    _case("3d_kernel_1x2x3", 3, kernel=(1, 2, 3)),
    _case("2d_padding_wider_than_kernel", 2, kernel=2, padding=3),
    _case("2d_padding_same", 2, kernel=(3, 5), padding="same"),
    _case("1d_padding_same_dilation", 1, kernel=3, padding="same", dilation=2),
    _case("2d_padding_valid", 2, padding="valid", build=False),
    _case("2d_no_batch", 2, floats(4, 7, 9)),
    _case("2d_half", 2, floats(2, 4, 7, 9).half(), tolerance=1e-2, build=False),
    _case(
        "2d_fp16_network",
        2,
        tolerance=2e-2,
        options={"enabled_precisions": {torch.float16, torch.float32}},
    ),
    _case("1d_dynamic", 1, dynamic={0: {0: (1, 2, 4), 2: (5, 9, 12)}}),
    _case("2d_dynamic", 2, dynamic={0: {0: (1, 2, 4), 2: (5, 7, 12), 3: (5, 9, 9)}}, stride=2),
    *(_case(f"transposed_{d}d", d, transposed=True) for d in (1, 2, 3)),
    *(
        _case(f"transposed_{d}d_stride_padding", d, transposed=True, stride=2, padding=1)
        for d in (1, 2, 3)
    ),
    *(
        _case(
            f"transposed_{d}d_output_padding",
            d,
            transposed=True,
            stride=2,
            padding=1,
            output_padding=1,
        )
        for d in (1, 2, 3)
    ),
    *(
        _case(
            f"transposed_{d}d_output_padding_beyond_padding" + "_no_bias" * (not bias),
            d,
            transposed=True,
            stride=3,
            output_padding=2,
            bias=bias,
        )
        for d, bias in ((1, True), (2, True), (2, False))
    ),
    _case(
        "transposed_2d_output_padding_one_side",
        2,
        transposed=True,
        stride=(2, 3),
        padding=(1, 0),
        output_padding=(0, 1),
    ),
    _case("transposed_2d_groups", 2, transposed=True, groups=2, stride=2),
    _case("transposed_2d_depthwise", 2, transposed=True, groups=4, out=8, stride=2, padding=1),
    _case("transposed_2d_dilation", 2, transposed=True, dilation=2, kernel=(2, 3)),
    _case("transposed_2d_no_bias", 2, transposed=True, bias=False),
    _case(
        "transposed_2d_dynamic",
        2,
        transposed=True,
        stride=2,
        output_padding=1,
        dynamic={0: {0: (1, 2, 4), 2: (3, 7, 8)}},
    ),
    *(
        case(
            CONVOLUTION,
            f"bias_is_an_input_output_padding_{extra}",
            lambda x, b, extra=extra: F.conv_transpose2d(x, _W[:4, :3], b, 3, 0, extra),
            _X,
            floats(3),
            tolerance=1e-4,
        )
        for extra in (0, 2)
    ),
    case(
        CONVOLUTION,
        "bias_is_an_input",
        lambda x, b: F.conv2d(x, _W, b),
        _X,
        floats(6),
        tolerance=1e-4,
    ),
    _case("1d_no_batch", 1, floats(4, 9), build=False),
    _case("3d_no_batch", 3, floats(4, 5, 6, 4), build=False),
    _case("transposed_2d_no_batch", 2, floats(4, 7, 9), transposed=True, build=False),
    _case("1d_padding_same_even_kernel", 1, kernel=4, padding="same"),
    _case("2d_padding_same_even_kernel", 2, kernel=(4, 2), padding="same", build=False),
    *(
        _case(f"{d}d_padding_{mode}", d, padding=1, padding_mode=mode, build=d == 2)
        for d in (1, 2, 3)
        for mode in ("circular", "reflect", "replicate")
    ),
    _case("1d_dynamic_length", 1, padding=1, dynamic={0: {2: (2, 9, 12)}}),
    _case("3d_dynamic", 3, padding=1, dynamic={0: {0: (1, 2, 3), 2: (2, 5, 7)}}),
    *(
        case(CONVOLUTION, f"weight_is_an_input_{form}", function, x, w, **fields)
        for form, function, x, w, fields in (
            ("1d", F.conv1d, floats(2, 4, 9), floats(6, 4, 3), {"build": False, "tolerance": 1e-4}),
            ("2d", F.conv2d, _X, _W, {"tolerance": 1e-4}),
            (
                "3d",
                F.conv3d,
                floats(1, 2, 4, 5, 6),
                floats(3, 2, 2, 3, 2),
                {"build": False, "tolerance": 1e-4},
            ),
            (
                "computed",
                lambda x, w: F.conv2d(x, w.tanh() * 2, padding=1),
                _X,
                _W,
                {"tolerance": 1e-4},
            ),
            (
                "depthwise",
                lambda x, w: F.conv2d(x, w[:4, :1], stride=2, groups=4),
                _X,
                _W,
                {"tolerance": 1e-4},
            ),
            (
                "transposed",
                lambda x, w: F.conv_transpose2d(x, w[:4], stride=2),
                _X,
                _W,
                {"tolerance": 1e-4},
            ),
            (
                "dynamic",
                F.conv2d,
                _X,
                _W,
                {"dynamic": {0: {0: (1, 2, 4), 2: (5, 7, 9)}}, "tolerance": 1e-4},
            ),
            (
                "fp16_network",
                F.conv2d,
                _X,
                _W,
                {
                    "build": False,
                    "tolerance": 2e-2,
                    "options": {"enabled_precisions": {torch.float16, torch.float32}},
                },
            ),
        )
    ),
    case(
        CONVOLUTION,
        "weight_and_bias_are_inputs",
        F.conv2d,
        _X,
        _W,
        floats(6),
        tolerance=1e-4,
        build=False,
    ),
    case(CONVOLUTION, "weight_norm", weight_norm(_conv(2)), _X, tolerance=1e-4),
]

_INTEGER_W = integers(6, 4, 3, 3)
REFUSALS = [
    refusal(
        CONVOLUTION,
        "weight_of_unknown_size",
        "the size of the weight",
        F.conv2d,
        _X,
        _W,
        dynamic={1: {0: (2, 6, 8)}},
    ),
    refusal(
        CONVOLUTION,
        "int64",
        "floating-point tensors",
        lambda x: F.conv2d(x, _INTEGER_W),
        integers(2, 4, 7, 9),
    ),
]


# Of "same" padding around an even kernel PyTorch warns that it copies the input.
_SAME = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")


@_SAME
@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


_SAMPLED = [f"nn.functional.{kind}{d}d" for kind in ("conv", "conv_transpose") for d in (1, 2, 3)]


@_SAME
@pytest.mark.parametrize("name", _SAMPLED)
def test_computes_the_samples_of_pytorch(name: str) -> None:
    check_samples(name, torch.float32, most=8, constants=True)
