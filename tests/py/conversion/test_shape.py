from __future__ import annotations

import torch
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
    case(aten.cat.default, "dims", lambda x: [torch.cat([x, x * 2, x], d) for d in (0, 1, -1)], X),
    case(aten.cat.default, "one", lambda x: torch.cat([x]) + 1, X),
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
    GraphCase(aten.clone.default, "static", (X,)),
    case(aten._to_copy.default, "float_to_int64", lambda x: x.long(), floats(3, 4) * 9),
    case(aten._to_copy.default, "float_to_int32", lambda x: x.int(), floats(3, 4) * 9),
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

_DYNAMIC = {0: {1: (2, 3, 4)}}
REFUSALS = [
    refusal(
        aten.squeeze.dim,
        "dynamic",
        "only known at run time",
        lambda x: aten.squeeze.dim(x, 1),
        X,
        dynamic=_DYNAMIC,
    ),
    refusal(
        aten.squeeze.dims,
        "dynamic",
        "only known at run time",
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
