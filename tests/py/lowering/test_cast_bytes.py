"""Bytes are cast before they are moved."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import capture_for_test, check_op, check_pass, operators
from torch import Tensor

from trtcompile import CompileSpec
from trtcompile.lowering import lower
from trtcompile.lowering.cast_bytes import cast_bytes
from trtcompile.lowering.remove_no_ops import remove_no_ops


def image(*shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


def test_golden() -> None:
    def model(x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)[:, :, 1:].float() / 255

    graph_module = check_pass(
        model, [image(2, 5, 6, 3)], cast_bytes, rewrites=2, before=[remove_no_ops]
    )
    assert operators(graph_module) == [
        "aten._to_copy.default",
        "aten.permute.default",
        "aten.slice.Tensor",
        "aten.div.Tensor",
    ]
    cast, permute, *_ = (n for n in graph_module.graph.nodes if n.op == "call_function")
    assert cast.args[0].op == "placeholder" and cast.meta["val"].dtype == torch.float32
    assert permute.meta["val"].shape == (2, 3, 5, 6)
    assert permute.meta["val"].dtype == torch.float32


MOVES: dict[str, Callable[[Tensor], Tensor]] = {
    "permute": lambda x: x.permute(2, 0, 1),
    "transpose": lambda x: x.transpose(0, 2),
    "reshape": lambda x: x.reshape(2, -1),
    "flatten of a permutation": lambda x: x.permute(2, 0, 1).flatten(1),
    "slice": lambda x: x[1:, ::2],
    "select": lambda x: x[..., 1],
    "unsqueeze": lambda x: x[None],
    "squeeze": lambda x: x[:1].squeeze(0),
    "flip": lambda x: x.flip(2),
    "expand": lambda x: x[:1].expand(4, -1, -1),
    "repeat": lambda x: x.repeat(1, 2, 1),
    "roll": lambda x: x.roll(1, 0),
    "unfold": lambda x: x.unfold(1, 2, 1),
    "index_select": lambda x: x.index_select(2, torch.tensor([2, 0])),
    "pixels": lambda x: torch.pixel_unshuffle(x[..., :2], 2),
    "copies": lambda x: x.clone().permute(2, 0, 1).contiguous(),
}


@pytest.mark.parametrize("name", MOVES)
def test_moved_bytes_go_into_one_engine(name: str) -> None:
    move = MOVES[name]
    check_op(lambda x: move(x).float() - 127, image(4, 6, 3), build=name == "permute")


def test_sizes_that_are_not_known() -> None:
    check_op(
        lambda x: x.permute(0, 3, 1, 2).half() * 2,
        image(2, 5, 6, 3),
        dynamic={0: {0: (1, 2, 3), 1: (4, 5, 7)}},
        build=False,
    )


def test_several_casts_of_one_image() -> None:
    def model(x: Tensor) -> tuple[Tensor, Tensor]:
        moved = x.permute(2, 0, 1)
        return moved.float() + 1, moved.long() + 1

    graph_module = check_pass(
        model, [image(4, 6, 3)], cast_bytes, rewrites=1, before=[remove_no_ops]
    )
    assert operators(graph_module).count("aten.permute.default") == 2
    check_op(model, image(4, 6, 3), build=False)


LEFT_ALONE: dict[str, Callable[[Tensor], object]] = {
    "read as bytes too": lambda x: [(p := x.permute(2, 0, 1)).float(), p + 1],
    "other values": lambda x: torch.constant_pad_nd(x, (1, 1), 3).float(),
    "no bytes": lambda x: (x.float() * 2).permute(2, 0, 1).half(),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_no_cast_of_moved_bytes_stays(name: str) -> None:
    model = LEFT_ALONE[name]
    graph_module = capture_for_test(model, [image(4, 6, 3)]).graph_module
    remove_no_ops(graph_module, CompileSpec())
    before = operators(graph_module)
    assert cast_bytes(graph_module, CompileSpec()) == 0 and operators(graph_module) == before


def test_bytes_that_are_a_result_stay_bytes() -> None:
    graph_module = capture_for_test(lambda x: x.permute(2, 0, 1), [image(4, 6, 3)]).graph_module
    lower(graph_module, CompileSpec())
    assert operators(graph_module) == ["aten.permute.default"]
