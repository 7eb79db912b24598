from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import check_op
from operator_case import (
    Case,
    GraphCase,
    Refusal,
    booleans,
    case,
    each,
    floats,
    graph_of,
    integers,
    refusal,
)
from operator_samples import check_samples, each_sample

from trtcompile.partition import judge
from trtcompile.settings import CompileSpec

aten = torch.ops.aten

X = floats(2, 3, 4)
_BATCH = {0: {0: (1, 2, 5)}}

CASES = [
    case(aten.reshape.default, "flatten", lambda x: x.flatten(1), X),
    case(aten.reshape.default, "minus_one", lambda x: x.view(4, -1), X),
    case(aten.reshape.default, "to_no_dimension", lambda x: x.view([]), floats(1)),
    case(aten.reshape.default, "from_no_dimension", lambda x: x.view(1, 1), floats()),
    case(aten.reshape.default, "int64", lambda x: x.view(6), integers(2, 3)),
    case(aten.reshape.default, "bool", lambda x: x.view(6), booleans(2, 3)),
    case(aten.reshape.default, "half", lambda x: x.view(6), floats(2, 3).half()),
    case(aten.reshape.default, "dynamic_batch", lambda x: x.view(-1, 12), X, dynamic=_BATCH),
    case(aten.reshape.default, "dynamic_flatten", lambda x: x.flatten(1), X, dynamic=_BATCH),
    case(aten.reshape.default, "dynamic_flatten_all", torch.flatten, X, dynamic=_BATCH),
    case(
        aten.reshape.default,
        "dynamic_channel_shuffle",
        lambda x: x.view(x.shape[0], 2, 2, x.shape[2]).transpose(1, 2).flatten(1, 2),
        floats(2, 4, 3),
        dynamic={0: {0: (1, 2, 5)}},
    ),
    case(
        aten.reshape.default,
        "dynamic_repeated_heads",
        lambda x: (x[:, :, None] * 2).expand(-1, -1, 2, -1, -1).reshape(x.shape[0], 4, -1, 3) + 1,
        floats(2, 2, 4, 3),
        dynamic={0: {0: (1, 2, 3), 2: (2, 4, 6)}},
    ),
    case(
        aten.reshape.default,
        "views",
        lambda x: [x.unflatten(2, (2, -1)), x.flatten(), x.ravel(), x.view_as(x.flatten(1))],
        X,
        build=False,
    ),
    case(
        aten.reshape.default,
        "pixels",
        lambda x: [F.pixel_shuffle(x, 2), F.pixel_unshuffle(x, 2), F.channel_shuffle(x, 4)],
        floats(2, 8, 4, 6),
    ),
    case(
        aten.reshape.default,
        "pixels_dynamic",
        lambda x: F.pixel_shuffle(x, 2),
        floats(2, 8, 3, 4),
        dynamic={0: {0: (1, 2, 3), 2: (2, 3, 6)}},
    ),
    case(
        aten.transpose.int,
        "others",
        lambda x: [x.mT, x.swapaxes(0, 1), x[0].t(), x.adjoint()],
        X,
        build=False,
    ),
    case(aten.permute.default, "movedim", lambda x: x.movedim((0, 1), (2, 0)), X, build=False),
    GraphCase(aten.view.default, "static", (X, [4, 6])),
    GraphCase(aten.view.default, "minus_one", (X, [-1, 2])),
    GraphCase(aten.view.default, "no_dimension", (floats(1), [])),
    case(aten.permute.default, "reverse", lambda x: x.permute(2, 1, 0), X),
    case(aten.permute.default, "negative", lambda x: x.permute(-1, 0, -2), X),
    case(aten.permute.default, "no_dimension", lambda x: x.permute([]) + 1, floats()),
    case(aten.permute.default, "bool", lambda x: x.permute(1, 0), booleans(2, 3)),
    case(aten.permute.default, "dynamic", lambda x: x.permute(2, 0, 1), X, dynamic=_BATCH),
    case(aten.transpose.int, "first", lambda x: x.transpose(0, 1), X),
    case(aten.transpose.int, "negative", lambda x: x.transpose(-1, 0), X),
    case(aten.transpose.int, "same", lambda x: x.transpose(1, 1), X),
    case(aten.transpose.int, "no_dimension", lambda x: x.transpose(0, -1) + 1, floats()),
    case(aten.transpose.int, "dynamic", lambda x: x.transpose(0, 2), X, dynamic=_BATCH),
    case(aten.unsqueeze.default, "dims", lambda x: [x.unsqueeze(d) for d in (0, 1, 3, -1, -4)], X),
    case(aten.unsqueeze.default, "no_dimension", lambda x: x.unsqueeze(0), floats()),
    case(aten.unsqueeze.default, "int64", lambda x: x.unsqueeze(1), integers(3)),
    case(aten.unsqueeze.default, "dynamic", lambda x: x.unsqueeze(1), X, dynamic=_BATCH),
    case(
        aten.squeeze.dim, "dims", lambda x: [x.squeeze(d) for d in (1, -1, 0)], floats(2, 1, 3, 1)
    ),
    case(aten.squeeze.dim, "no_dimension", lambda x: x.squeeze(0) + 1, floats()),
    case(aten.squeeze.dim, "dynamic", lambda x: x.squeeze(1), floats(2, 1, 3), dynamic=_BATCH),
    case(aten.squeeze.dims, "some", lambda x: x.squeeze((1, -1, 2)), floats(2, 1, 3, 1)),
    case(aten.squeeze.dims, "all", torch.squeeze, floats(1, 2, 1)),
    case(aten.squeeze.dims, "to_no_dimension", torch.squeeze, floats(1, 1)),
    case(aten.squeeze.dims, "dynamic", torch.squeeze, floats(3, 1, 3), dynamic={0: {0: (3, 3, 5)}}),
    case(
        aten.squeeze.dim,
        "never_one",
        lambda x: x.squeeze(0),
        floats(4, 3),
        dynamic={0: {0: (3, 4, 5)}},
    ),
    case(aten.squeeze.dims, "int64", lambda x: x.squeeze(), integers(2, 1), build=False),
    case(aten.cat.default, "dims", lambda x: [torch.cat([x, x * 2, x], d) for d in (0, 1, -1)], X),
    case(
        aten.cat.default,
        "two_inputs",
        lambda a, b: torch.cat([a, b], 1),
        floats(2, 3),
        floats(2, 1),
    ),
    case(
        aten.cat.default, "int64_and_float", lambda a, b: torch.cat([a, b]), integers(2), floats(3)
    ),
    case(
        aten.cat.default,
        "half_and_float",
        lambda a, b: torch.cat([a, b]),
        floats(2).half(),
        floats(3),
    ),
    case(aten.cat.default, "bool", lambda a: torch.cat([a, a]), booleans(5)),
    case(
        aten.cat.default, "bool_and_int64", lambda a, b: torch.cat([a, b]), booleans(5), integers(2)
    ),
    case(aten.cat.default, "empty_vector", lambda a, b: torch.cat([a, b], 1), X, floats(0)),
    case(
        aten.cat.default,
        "empty_of_same_rank",
        lambda a, b: torch.cat([a, b], 1),
        X,
        floats(2, 0, 4),
    ),
    case(
        aten.cat.default,
        "only_empty_vectors",
        lambda a, b: torch.cat([a, b]),
        floats(0),
        floats(0),
        build=False,
    ),
    case(
        aten.cat.default, "constant", lambda a: torch.cat([a, torch.tensor([1.0, -2.0])]), floats(3)
    ),
    case(aten.cat.default, "dynamic", lambda x: torch.cat([x, x], 0), X, dynamic=_BATCH),
    case(
        aten.cat.default,
        "dynamic_dim",
        lambda a, b: torch.cat([a, b], 0),
        floats(2, 3),
        floats(3, 3),
        dynamic={0: {0: (1, 2, 5)}, 1: {0: (2, 3, 4)}},
    ),
    case(
        aten.cat.default,
        "stacks",
        lambda x: [
            *(torch.stack([x, -x], d) for d in (0, 1, -1)),
            torch.hstack([x, x]),
            torch.vstack([x, x]),
            torch.dstack([x, x]),
            torch.column_stack([x, x]),
        ],
        X,
        build=False,
    ),
    case(aten.cat.default, "int32", lambda x: torch.cat([x, x]), integers(3, dtype=torch.int32)),
    case(aten.cat.default, "stack_dynamic", lambda x: torch.stack([x, x], 1), X, dynamic=_BATCH),
    case(
        aten.cat.default,
        "bool_dynamic",
        lambda a, b: torch.cat([a > 0, b > 0], 1),
        floats(2, 3),
        floats(2, 1),
        dynamic={0: {1: (2, 3, 5)}},
    ),
    case(aten.expand.default, "first", lambda x: x.expand(4, 3), floats(1, 3)),
    case(aten.expand.default, "new_dimensions", lambda x: x.expand(5, 2, -1, 4), floats(3, 1)),
    case(aten.expand.default, "no_dimension", lambda x: x.expand(2, 3), floats()),
    case(aten.expand.default, "bool", lambda x: x.expand(2, 3), booleans(3)),
    case(aten.expand.default, "int64", lambda x: x.expand(2, 3), integers(2, 1)),
    case(
        aten.expand.default,
        "dynamic_batch",
        lambda x: x.expand(-1, 3),
        floats(2, 1),
        dynamic=_BATCH,
    ),
    case(
        aten.expand.default,
        "to_the_size_of_another",
        lambda x, token: torch.cat([token.expand(x.shape[0], -1), x], 1),
        floats(2, 3),
        floats(1, 3),
        dynamic=_BATCH,
    ),
    case(
        aten.expand.default,
        "broadcasts",
        lambda a, b: [
            *torch.broadcast_tensors(a[:, :1], b),
            b.expand_as(a),
            b.broadcast_to(5, 2, 3),
        ],
        floats(2, 3),
        floats(3),
        build=False,
    ),
    case(
        aten.expand.default,
        "meshgrid",
        lambda a, b: [*torch.meshgrid(a, b, indexing="ij"), *torch.meshgrid(a, b, indexing="xy")],
        floats(3),
        floats(2),
        build=False,
    ),
    case(
        aten.expand.default,
        "meshgrid_dynamic",
        lambda a, b: torch.meshgrid(a, b, indexing="ij"),
        floats(3),
        floats(2),
        dynamic={0: {0: (2, 3, 5)}, 1: {0: (2, 2, 4)}},
    ),
    case(
        aten.expand.default,
        "repeat_interleave",
        lambda x: [x.repeat_interleave(2, d) for d in (0, -1)] + [x.repeat_interleave(3)],
        X,
    ),
    case(
        aten.expand.default,
        "repeat_interleave_dynamic",
        lambda x: x.repeat_interleave(2, 0),
        X,
        dynamic=_BATCH,
    ),
    GraphCase(aten.clone.default, "static", (X,)),
    case(aten._to_copy.default, "float_to_int64", lambda x: x.long(), floats(3, 4) * 9),
    case(aten._to_copy.default, "float_to_int32", lambda x: x.int(), floats(3, 4) * 9),
    *(
        case(
            aten._to_copy.default,
            f"{name}_too_large_for_{wanted}".replace("torch.", ""),
            lambda x, wanted=wanted: torch.where(x.abs() < 9e4, x.to(wanted), 7),
            torch.tensor([-torch.inf, -1e38, -2.7, 0.0, 3.6, 1e38, torch.inf], dtype=dtype),
            build=dtype == torch.float32,
        )
        for name, dtype in (("float", torch.float32), ("bfloat16", torch.bfloat16))
        for wanted in (torch.int32, torch.int64)
    ),
    case(aten._to_copy.default, "float_to_half", lambda x: x.half(), floats(3, 4)),
    case(aten._to_copy.default, "float_to_bfloat16", lambda x: x.bfloat16(), floats(3, 4)),
    case(aten._to_copy.default, "half_to_float", lambda x: x.float(), floats(3, 4).half()),
    case(
        aten._to_copy.default,
        "float_to_bool",
        lambda x: x.bool(),
        torch.tensor([0.0, -0.0, 0.3, -0.7, 5.0, 1e-30, torch.nan, torch.inf]),
    ),
    case(
        aten._to_copy.default,
        "int64_to_bool",
        lambda x: x.bool(),
        torch.tensor([0, 1, -1, 256, 2**40]),
    ),
    case(aten._to_copy.default, "int64_to_int32", lambda x: x.int(), integers(3, 4)),
    case(aten._to_copy.default, "int64_to_float", lambda x: x.float(), integers(3, 4)),
    case(aten._to_copy.default, "bool_to_float", lambda x: x.float(), booleans(3, 4)),
    case(aten._to_copy.default, "bool_to_int64", lambda x: x.long(), booleans(3, 4)),
    case(
        aten._to_copy.default,
        "uint8_to_float",
        lambda x: x.float() / 255,
        integers(3, 4).abs().to(torch.uint8) * 20,
    ),
    case(
        aten._to_copy.default,
        "uint8_to_int64",
        lambda x: x.long(),
        integers(3, 4).abs().to(torch.uint8) * 20,
    ),
    case(
        aten._to_copy.default,
        "uint8_to_bool",
        lambda x: x.bool(),
        integers(3, 4).abs().to(torch.uint8),
    ),
    case(
        aten._to_copy.default,
        "float_to_uint8",
        lambda x: x.to(torch.uint8),
        floats(3, 4).abs() * 60,
    ),
    case(
        aten._to_copy.default, "int64_to_uint8", lambda x: x.to(torch.uint8), integers(3, 4).abs()
    ),
    case(aten._to_copy.default, "no_dimension", lambda x: x.long(), floats() * 9),
    case(aten._to_copy.default, "dynamic", lambda x: x.half(), X, dynamic=_BATCH),
]

_DYNAMIC = {0: {1: (1, 3, 4)}}
REFUSALS = [
    refusal(
        aten.squeeze.dim,
        "dynamic",
        "1 for some sizes",
        lambda x: aten.squeeze.dim(x, 1),
        X,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.squeeze.dims,
        "dynamic",
        "1 for some sizes",
        lambda x: aten.squeeze.dims(x, [0, 1]),
        X,
        dynamic=_DYNAMIC,
    ),
    refusal(aten._to_copy.default, "int8", "quantized values only", lambda x: x.to(torch.int8), X),
    refusal(
        aten._to_copy.default,
        "uint8_between",
        "inputs and outputs only",
        lambda x: x.to(torch.uint8).float(),
        X.abs(),
    ),
    refusal(aten._to_copy.default, "float64", "float64", lambda x: x.double(), X),
    refusal(
        aten.cat.default,
        "uint8",
        "uint8",
        lambda x: torch.cat([x, x]),
        integers(3).abs().to(torch.uint8),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case | GraphCase) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def test_refuses_to_move_a_tensor_to_another_device() -> None:
    graph_module = graph_of(lambda x: x, X)
    (call,) = (n for n in graph_module.graph.nodes if n.op == "call_function")
    call.target, call.kwargs = aten._to_copy.default, {"device": torch.device("meta")}
    call.meta["val"] = X.to("meta")
    assert "moves the tensor to meta" in str(judge(graph_module, CompileSpec())[call])


_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool)


def _values(dtype: torch.dtype) -> torch.Tensor:
    return integers(3, 4).to(dtype) if dtype == torch.bool else (floats(3, 4) * 9).to(dtype)


@pytest.mark.parametrize("wanted", _DTYPES, ids=str)
def test_casts_every_type(wanted: torch.dtype) -> None:
    def casts(*given: Any) -> list[torch.Tensor]:
        return [x.to(wanted) for x in given if x.dtype != wanted]

    for sources in (_DTYPES[:3], _DTYPES[3:]):
        check_op(casts, *map(_values, sources), build=False)


@pytest.mark.parametrize("other", _DTYPES, ids=str)
def test_casts_bytes_at_inputs_and_outputs(other: torch.dtype) -> None:
    numbers = integers(3, 4).abs()
    check_op(lambda x: x.to(other), numbers.to(torch.uint8), build=False)
    check_op(lambda x: x.to(torch.uint8), numbers.to(other), build=False)


@each_sample(
    [
        (name, (torch.float32, torch.bool))
        for name in ("cat", "expand", "movedim", "reshape", "squeeze", "stack", "unflatten")
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, refused=refused)
