"""What reads memory reads it in the order that it had."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import capture_for_test, check_op, check_pass, operators
from torch import Tensor

from trtcompile import CompileSpec
from trtcompile.lowering import lower
from trtcompile.lowering.settle_memory import settle_memory

X = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))


def test_golden() -> None:
    def model(x: Tensor) -> Tensor:
        return x.relu().permute(0, 2, 1).as_strided((2, 3), (1, 2), 1)

    graph_module = check_pass(model, [X], settle_memory, rewrites=1)
    assert operators(graph_module) == [
        "aten.relu.default",
        "aten.clone.default",
        "aten.as_strided.default",
    ]


def test_the_order_of_a_transposed_result() -> None:
    def model(x: Tensor) -> Tensor:
        return x.permute(0, 2, 1).relu().as_strided((2, 3), (1, 2), 1)

    graph_module = check_pass(model, [X], settle_memory, rewrites=1)
    assert operators(graph_module) == [
        "aten.permute.default",
        "aten.relu.default",
        "aten.permute.default",
        "aten.clone.default",
        "aten.as_strided.default",
    ]


READS: dict[str, Callable[[Tensor], Tensor]] = {
    "copy of a permutation": lambda x: x.permute(0, 2, 1).contiguous().as_strided((5,), (2,), 1),
    "clone": lambda x: x.mT.clone().as_strided((5,), (2,), 1),
    "copy before another operator": lambda x: x.mT.contiguous().relu().as_strided((5,), (2,), 1),
    "view of a copy": lambda x: x.mT.contiguous().view(2, 4, 3).as_strided((5,), (2,), 1),
    "permutation": lambda x: x.mT.as_strided((5,), (2,), 1),
    "operator on a permutation": lambda x: x.mT.relu().as_strided((5,), (2,), 1),
    "part": lambda x: x[1].as_strided((4,), (2,)),
    "part of a result": lambda x: x.relu()[:, 1:].mT.as_strided((4,), (2,), 3),
    "twice": lambda x: x.as_strided((4, 3), (1, 4)).as_strided((5,), (2,)),
}


@pytest.mark.parametrize("name", READS)
def test_the_same_memory_is_read(name: str) -> None:
    read = READS[name]
    graph_module = capture_for_test(read, [X]).graph_module
    lower(graph_module, CompileSpec())
    # Whatever order the caller's own tensor is in.
    other = X.permute(2, 0, 1).contiguous().permute(1, 2, 0)
    for x in (X, other):
        assert torch.equal(graph_module(x)[0], read(X))
    check_op(lambda x: read(x) + 1, X, build=False)


def test_an_engine_in_front_does_not_change_what_pytorch_reads() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(x.mT.contiguous() * 2).as_strided((5,), (2,), 1)

    graph_module = capture_for_test(model, [X]).graph_module
    lower(graph_module, CompileSpec())
    clone = next(n for n in graph_module.graph.nodes if n.target is torch.ops.aten.clone.default)
    assert [str(user.target) for user in clone.users] == ["aten.as_strided.default"]


def test_memory_beside_the_tensor_is_left_alone() -> None:
    def model(x: Tensor) -> Tensor:
        return x.as_strided((2, 3), (1, 2), 0)

    part = X[:1, :1, :2]  # the model may read on behind its input
    graph_module = capture_for_test(model, [part]).graph_module
    assert settle_memory(graph_module, CompileSpec()) == 0
