"""``Dim``: named dimensions of inputs, alone, in capture, and at ``forward``."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import Dim, Input, InputMismatchError, SettingsError, UnsupportedGraphError
from trtcompile.capture import CapturedGraph, capture
from trtcompile.inputs import flat_inputs, parse_inputs, parse_keyword_inputs

BATCH = Dim("batch", min=1, opt=8, max=32)


class TestDim:
    @pytest.mark.parametrize(
        ("name", "sizes", "said"),
        [
            ("batch", (2, 1, 3), "'batch' has min 2, opt 1, max 3. It needs min <= opt"),
            ("batch", (1, 4, 3), "It needs min <= opt <= max"),
            ("batch", (-1, 4, 5), "min -1.*whole numbers of at least 0"),
            ("batch", (1, 2.0, 3), "opt 2.0.*whole numbers"),
            ("batch", (1, 2, None), "max None"),
            ("batch", (True, 2, 3), "min True"),
            ("a batch", (1, 2, 3), "the name 'a batch'"),
            ("", (1, 2, 3), "the name ''"),
            (3, (1, 2, 3), "the name 3"),
        ],
    )
    def test_refused(self, name: Any, sizes: Any, said: str) -> None:
        low, opt, high = sizes
        with pytest.raises(SettingsError, match=said):
            Dim(name, min=low, opt=opt, max=high)

    def test_frozen_and_hashable(self) -> None:
        assert Dim("batch", min=1, opt=8, max=32) == BATCH
        assert hash(Dim("batch", min=1, opt=8, max=32)) == hash(BATCH)
        with pytest.raises(dataclasses.FrozenInstanceError):
            BATCH.opt = 3  # type: ignore[misc]

    @pytest.mark.parametrize("sizes", [(1, 1, 8), (1, 8, 8), (3, 3, 3), (0, 1, 2)])
    def test_edges(self, sizes: tuple[int, int, int]) -> None:
        low, opt, high = sizes
        spec = Input((Dim("n", min=low, opt=opt, max=high), 4))
        assert (spec.min_shape, spec.opt_shape, spec.max_shape) == ((low, 4), (opt, 4), (high, 4))


class TestInput:
    def test_shapes_and_names(self) -> None:
        spec = Input((BATCH, 3, Dim("side", min=4, opt=4, max=8)), dtype=torch.half, name="x")
        assert spec.min_shape == (1, 3, 4)
        assert spec.opt_shape == (8, 3, 4)
        assert spec.max_shape == (32, 3, 8)
        assert spec.dims == {0: "batch", 2: "side"}
        assert spec.dynamic_dims == (0, 2)
        assert spec.with_name("y").dims == spec.dims
        assert spec.describe() == (
            "min [1, 3, 4] opt [8, 3, 4] max [32, 3, 8] float16 where dimension 0 is 'batch', 2 is 'side'"
        )
        assert Input((1, 3)).dims == {}

    def test_names_are_part_of_it(self) -> None:
        plain = Input(min_shape=(1, 3), opt_shape=(8, 3), max_shape=(32, 3))
        named = Input(min_shape=(1, 3), opt_shape=(8, 3), max_shape=(32, 3), dims={0: "batch"})
        assert named == Input((BATCH, 3)) and hash(named) == hash(Input((BATCH, 3)))
        assert named != plain

    def test_a_dim_of_torch_export(self) -> None:
        spec = Input((torch.export.Dim("batch", min=2, max=32), 3))
        assert spec == Input((Dim("batch", min=2, opt=32, max=32), 3))

    @pytest.mark.parametrize(
        ("size", "said"),
        [
            (torch.export.Dim("batch", min=2), r"'batch' has no max.*upper bound"),
            (2 * torch.export.Dim("batch", max=4), r"2\*batch.*no range of its own"),
            (torch.export.Dim.AUTO, "no range of its own"),
        ],
    )
    def test_other_dims_of_torch_export(self, size: Any, said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            Input((size, 3))

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (
                {"shape": (BATCH, Dim("batch", min=1, opt=8, max=16))},
                r"'batch' has min 1 opt 8 max 32 in one place and min 1 opt 8 max 16 in another",
            ),
            (
                {"min_shape": (BATCH,), "opt_shape": (8,), "max_shape": (9,)},
                "dimensions with a name in shape alone",
            ),
            ({"shape": (BATCH, 3), "dims": {0: "length"}}, "0 of an Input is 'batch'.*'length'"),
            ({"shape": (4, 3), "dims": {2: "length"}}, "has 2 dimensions"),
            ({"shape": (4, 3), "dims": {-1: "length"}}, "dictionary from index to name"),
            ({"shape": (4, 3), "dims": ["length"]}, "dictionary from index to name"),
            ({"shape": (4, 3), "dims": {0: "the length"}}, "the name 'the length'"),
            ({"shape": (4, 3), "dims": {0: "side", 1: "side"}}, "'side' has min 4 opt 4 max 4"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            Input(**arguments)

    def test_bare_shapes(self) -> None:
        assert parse_inputs([(BATCH, 3), [BATCH, 2]]) == (Input((BATCH, 3)), Input((BATCH, 2)))
        parsed = parse_keyword_inputs({"x": (BATCH, 3)})
        assert parsed == {"x": Input((BATCH, 3), name="x")}
        with pytest.raises(SettingsError, match="not a list of inputs"):
            parse_inputs((BATCH, 3))


class Function(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def captured(function: Callable[..., Any], *inputs: Any) -> CapturedGraph:
    return capture(Function(function), parse_inputs(list(inputs)))


def first_sizes(graph: CapturedGraph) -> list[str]:
    nodes = graph.graph_module.graph.nodes
    return [str(n.meta["val"].shape[0]) for n in nodes if n.op == "placeholder"]


RANGED = Input(min_shape=(1, 3), opt_shape=(8, 3), max_shape=(32, 3))


class TestCapture:
    def test_sizes_of_one_name_are_one(self) -> None:
        """Even where the model would take different ones."""
        graph = captured(lambda x, y: (x.relu(), y.relu()), (BATCH, 3), (BATCH, 3))
        first, second = first_sizes(graph)
        assert first == second
        graph = captured(lambda x, y: (x.relu(), y.relu()), RANGED, RANGED)
        first, second = first_sizes(graph)
        assert first != second

    def test_one_name_in_one_input(self) -> None:
        side = Dim("side", min=2, opt=4, max=8)
        graph = captured(lambda x: x + x.transpose(0, 1), (side, side)).graph_module
        x = torch.randn(5, 5)
        assert torch.equal(graph(x)[0], x + x.T)

    def test_a_size_that_must_be_as_large_gets_the_name(self) -> None:
        graph = captured(lambda x, y: x + y, RANGED, (BATCH, 3))
        assert [spec.dims for spec in flat_inputs(graph.arguments)] == [{0: "batch"}, {0: "batch"}]

    def test_a_name_holds_where_the_model_needs_another_equality(self) -> None:
        """x and y have one name; z has to be as large as y."""
        graph = captured(lambda x, y, z: (x.relu(), y + z), (BATCH, 2), (BATCH, 3), RANGED)
        assert len(set(first_sizes(graph))) == 1
        assert all(spec.dims == {0: "batch"} for spec in flat_inputs(graph.arguments))

    def test_two_names_for_what_must_be_equal(self) -> None:
        other = Dim("rows", min=1, opt=8, max=32)
        with pytest.raises(UnsupportedGraphError, match="'batch' and 'rows' to be equally large"):
            captured(lambda x, y: x + y, (BATCH, 3), (other, 3))

    @pytest.mark.parametrize("name", ["N", "S", "size_0", "lambda"])
    def test_any_identifier(self, name: str) -> None:
        dim = Dim(name, min=1, opt=1, max=8)
        graph = captured(lambda x, y: x.sum() + y, (7,), (dim, 3)).graph_module
        assert graph(torch.randn(7), torch.randn(6, 3))[0].shape == (6, 3)

    def test_a_label_of_its_own_is_no_name(self) -> None:
        taken = Dim("size_0", min=1, opt=8, max=32)
        graph = captured(lambda x, y: (x.relu(), y.relu()), RANGED, (taken, 3))
        first, second = first_sizes(graph)
        assert first != second


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.linear(x).relu(), y.tanh()


def compiled(inputs: Any, **options: Any) -> trtcompile.TRTModule:
    options = {"device": build_device(), "min_block_size": 1, **options}
    return trtcompile.compile(Pair().eval(), inputs, **options)


class TestForward:
    @pytest.fixture(autouse=True)
    def oracle(self, monkeypatch: pytest.MonkeyPatch) -> None:
        install_oracle(monkeypatch)

    def test_the_sizes_have_to_be_equal(self) -> None:
        module = compiled([Input((BATCH, 3), name="query"), (BATCH, 5)])
        for batch in (1, 8, 32):
            x, y = torch.randn(batch, 3), torch.randn(batch, 5)
            torch.testing.assert_close(module(x, y)[1], y.tanh())
        with pytest.raises(
            InputMismatchError,
            match=r"'batch' is 4 in input 0 \(query\) and 5 in input 1 \(y\)\. Pass",
        ):
            module(torch.randn(4, 3), torch.randn(5, 5))
        with pytest.raises(InputMismatchError, match=r"max \[32, 3\]"):
            module(torch.randn(33, 3), torch.randn(33, 5))

    def test_without_names_they_may_differ(self) -> None:
        other = Input(min_shape=(1, 5), opt_shape=(8, 5), max_shape=(32, 5))
        y = torch.randn(5, 5)
        torch.testing.assert_close(compiled([RANGED, other])(torch.randn(4, 3), y)[1], y.tanh())

    def test_two_ranges_of_one_name_are_refused_before_any_work(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trtcompile.compiler.capture", None)
        other = Dim("batch", min=1, opt=4, max=32)
        with pytest.raises(SettingsError, match="'batch' has min 1 opt 8 max 32 in one place"):
            compiled([(BATCH, 3), (other, 5)])

    def test_keyword_inputs(self) -> None:
        module = trtcompile.compile(
            Pair().eval(),
            kwarg_inputs={"y": (BATCH, 5), "x": (BATCH, 3)},
            device=build_device(),
            min_block_size=1,
        )
        with pytest.raises(InputMismatchError, match=r"4 in input 0 \(x\) and 5 in input 1 \(y\)"):
            module(y=torch.randn(5, 5), x=torch.randn(4, 3))
