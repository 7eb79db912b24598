"""Graphs come back as they were, and a graph can only call operators that compute."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.fx import Graph, GraphModule

from trtcompile.runtime.serialization.graph_json import graph_from_json, graph_to_json
from trtcompile.runtime.serialization.json_values import MalformedError, dump, parse
from trtcompile.runtime.serialization.operators import (
    OPERATOR_NAMESPACES,
    function_name,
    function_named,
)
from trtcompile.runtime.serialization.trees import UnsavableError

aten = torch.ops.aten


def read(nodes: Any, namespaces: Any = OPERATOR_NAMESPACES, **parts: Any) -> GraphModule:
    parts = {"constants": {}, "engines": {}, **parts}
    return graph_from_json(parse(dump(nodes)), namespaces=namespaces, **parts)


def through_json(graph: Graph, **parts: Any) -> GraphModule:
    return read(graph_to_json(graph), **parts)


def graph_of(*calls: tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]) -> Graph:
    """A graph that calls functions on its one input, and returns what each returns."""
    graph = Graph()
    x = graph.placeholder("x")
    results = [graph.call_function(target, (x, *args), kwargs) for target, args, kwargs in calls]
    graph.output(tuple(results))
    return graph


def test_arguments_of_every_kind_come_back() -> None:
    graph = graph_of(
        (aten.clamp.default, (-math.inf, math.inf), {}),
        (aten.nan_to_num.default, (0.1, 1e300, -5), {}),
        (aten.fill.Scalar, (math.nan,), {}),
        (aten.sum.dim_IntList, ([0, 1], True), {"dtype": torch.float64}),
        (aten.div.Tensor_mode, (3.0,), {"rounding_mode": "floor"}),
        (aten.mul.Scalar, (complex(1, -2),), {}),
        (aten._to_copy.default, (), {"dtype": torch.bfloat16, "device": torch.device("cpu")}),
        (aten.empty_like.default, (), {"layout": torch.strided, "pin_memory": False}),
        (aten.clone.default, (), {"memory_format": torch.channels_last}),
        (aten.view.default, ([-1],), {}),
        (aten.gelu.default, (), {"approximate": "tanh"}),
        (aten.split_with_sizes.default, ([1, 1],), {}),
        (aten.index.Tensor, ([None, None],), {}),
    )
    loaded = through_json(graph)
    assert loaded.graph.python_code("self").src == graph.python_code("self").src
    for old, new in zip(graph.nodes, loaded.graph.nodes, strict=True):
        assert (old.op, old.name, old.target) == (new.op, new.name, new.target)
        assert repr((old.args, old.kwargs)) == repr((new.args, new.kwargs))


def test_infinity_nan_and_large_numbers_are_computed_with() -> None:
    graph = graph_of(
        (aten.clamp.default, (-math.inf, 0.30000000000000004), {}),
        (aten.fill.Scalar, (math.nan,), {}),
        (aten.add.Scalar, (2**62,), {}),
    )
    x = torch.randn(4, dtype=torch.float64)
    clamped, filled, added = through_json(graph)(x)
    assert torch.equal(clamped, x.clamp(max=0.30000000000000004))
    assert filled.isnan().all()
    assert torch.equal(added, x + 2**62)


@pytest.mark.parametrize(
    "text", ['"', "'''", "\\", "\n", "{x}", "%s", "\0", "é∂", "'); print('injected'); ('"]
)
def test_strings_stay_strings(text: str) -> None:
    """The generated source quotes them."""
    graph = Graph()
    x = graph.placeholder("x")
    graph.output((x, text))
    assert through_json(graph)(3) == (3, text)


def test_constants_and_engines_are_put_in() -> None:
    class Twice(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x * 2,)

    root = nn.Module()
    root.register_buffer("constant", torch.randn(3))
    root.add_module("engine_0", Twice())
    graph = Graph()
    x = graph.placeholder("x")
    call = graph.call_module("engine_0", (x,))
    picked = graph.call_function(operator.getitem, (call, 0))
    total = graph.call_function(aten.add.Tensor, (picked, graph.get_attr("constant")))
    graph.output((total, None, 3))
    constant = torch.randn(3)
    loaded = through_json(graph, constants={"constant": constant}, engines={"engine_0": Twice()})
    x = torch.randn(3)
    assert torch.equal(loaded(x)[0], x * 2 + constant)
    assert loaded(x)[1:] == (None, 3)
    assert loaded.code == GraphModule(root, graph).code


def test_size_arithmetic_comes_back() -> None:
    graph = Graph()
    x = graph.placeholder("x")
    size = graph.call_function(aten.sym_size.int, (x, 0))
    half = graph.call_function(operator.floordiv, (size, 2))
    largest = graph.call_function(torch.sym_max, (half, 3))
    graph.output((graph.call_function(aten.view.default, (x, [largest, -1])), half))
    loaded = through_json(graph)
    assert loaded(torch.randn(8, 3))[0].shape == (4, 6)
    assert loaded(torch.randn(3, 2))[0].shape == (3, 2)


def test_every_name_of_a_function_finds_it() -> None:
    from trtcompile.runtime.serialization.operators import _PYTHON_FUNCTIONS

    for function in (*_PYTHON_FUNCTIONS.values(), aten.relu.default, aten.max.dim):
        assert function_named(str(function_name(function))) is function


def node(op: str = "call_function", **parts: Any) -> dict[str, Any]:
    return {
        "op": op,
        "name": "n",
        "target": "torch.ops.aten.relu.default",
        "args": {"tuple": [{"node": "x"}]},
        "kwargs": {"dict": []},
        **parts,
    }


INPUT = node("placeholder", name="x", target="x", args={"tuple": []})
OUTPUT = node("output", name="output", target="output", args={"tuple": [{"tuple": []}]})


def test_the_hand_written_nodes_are_valid() -> None:
    assert read([INPUT, node(), OUTPUT])(torch.randn(2)) == ()


HOSTILE_TARGETS = [
    "os.system",
    "builtins.eval",
    "builtins.getattr",
    "builtins.__import__",
    "operator.attrgetter",
    "operator.methodcaller",
    "operator.call",
    "operator.setitem",
    "operator.iadd",
    "subprocess.Popen",
    "torch.load",
    "torch.hub.load",
    "torch._C._dispatch_dump",
    "torch.ops.load_library",
    "torch.ops.aten",
    "torch.ops.aten.relu",
    "torch.ops.aten.__class__",
    "torch.ops.aten.relu.__call__",
    "torch.ops.aten.__class__.__init__",
    "torch.ops.aten.relu._op",
    "torch.ops.aten.relu.nothing",
    "torch.ops.aten.nothing.default",
    "torch.ops.aten.relu.default.__call__",
    "torch.ops.aten.relu.default()",
    "torch.ops.x.__class__.__base__",
    "torch.ops.__class__.mro.default",
    "torch.ops.load_library.__call__.default",
    "torch.ops.image.write_file.default",
    "torch.ops.inductor._alloc_from_pool.default",
    "torch.ops.c10d.broadcast_.default",
    # These are operators of a permitted namespace, and do more than compute.
    "torch.ops.aten.save.default",
    "torch.ops.aten.from_file.default",
    "torch.ops.aten._print.default",
    "torch.ops.aten.add_.Tensor",
    "torch.ops.aten.add.out",
    "torch.ops.aten.set_.source_Storage",
    "",
    " ",
    "aten.relu.default",
    "__import__('os').system('true')",
]


@pytest.mark.parametrize("target", HOSTILE_TARGETS)
def test_a_call_of_anything_else_is_refused(target: str) -> None:
    with pytest.raises(MalformedError, match="it calls"):
        read([INPUT, node(target=target), OUTPUT])


def test_what_a_refused_operator_would_do(tmp_path: Path) -> None:
    """Why a graph may not call all of ``torch.ops.aten``: this one creates files."""
    aten.from_file.default(str(tmp_path / "created"), True, 4)
    assert [path.name for path in tmp_path.iterdir()] == ["created"]
    for refused in (aten.from_file.default, aten.save.default, aten.add_.Tensor):
        assert function_name(refused) is None


INJECTION = "x: __import__('os').system('true')"


@pytest.mark.parametrize(
    "nodes",
    [
        pytest.param([{**INPUT, "target": INJECTION}, OUTPUT], id="code as a parameter"),
        pytest.param([{**INPUT, "target": "*x"}, OUTPUT], id="a starred parameter"),
        pytest.param([{**INPUT, "target": "self"}, OUTPUT], id="self"),
        pytest.param([{**INPUT, "name": INJECTION}, OUTPUT], id="code as a name"),
        pytest.param([{**INPUT, "name": "class"}, OUTPUT], id="a keyword as a name"),
        pytest.param([INPUT, {**INPUT, "name": "y"}, OUTPUT], id="a parameter twice"),
        pytest.param([{**INPUT, "args": {"tuple": [3]}}, OUTPUT], id="a default"),
        pytest.param([INPUT, node(), node(), OUTPUT], id="a name twice"),
        pytest.param(
            [INPUT, node(kwargs={"dict": [[INJECTION, 1]]}), OUTPUT], id="code as a keyword"
        ),
        pytest.param([INPUT, node(kwargs={"dict": [[3, 1]]}), OUTPUT], id="a number as a keyword"),
        pytest.param([INPUT, node(kwargs={"list": []}), OUTPUT], id="a list of keywords"),
        pytest.param([INPUT, node(args=[{"node": "x"}]), OUTPUT], id="arguments in no tuple"),
        pytest.param([INPUT, node(args={"tuple": [{"node": "y"}]}), OUTPUT], id="an unknown node"),
        pytest.param([node(), INPUT, OUTPUT], id="a node before its input"),
        pytest.param([INPUT, node(args={"tuple": [{"node": "n"}]}), OUTPUT], id="a cycle"),
        pytest.param([INPUT, node(args={"tuple": [{"code": "1"}]}), OUTPUT], id="unknown argument"),
        pytest.param([INPUT, node(args={"tuple": [{"dtype": "x"}]}), OUTPUT], id="unknown dtype"),
        pytest.param([INPUT, node(args={"tuple": [{"float": "1"}]}), OUTPUT], id="finite float"),
        pytest.param([INPUT, node("call_method", target="__reduce__"), OUTPUT], id="a method"),
        pytest.param([INPUT, node("call_module", target="forward"), OUTPUT], id="unknown engine"),
        pytest.param([INPUT, node("get_attr", target="__class__"), OUTPUT], id="unknown constant"),
        pytest.param([INPUT, node("eval"), OUTPUT], id="an unknown kind"),
        pytest.param([INPUT, node("output", name="output")], id="an output of no tuple"),
        pytest.param([INPUT, {**OUTPUT, "name": "out"}], id="an output by another name"),
        pytest.param([INPUT, OUTPUT, node()], id="a node after the output"),
        pytest.param([INPUT], id="no output"),
        pytest.param([], id="no nodes"),
        pytest.param([{"op": "output"}], id="missing fields"),
        pytest.param([{**INPUT, "type": "int"}, OUTPUT], id="a further field"),
        pytest.param("nodes", id="no list"),
    ],
)
def test_a_malformed_graph_is_refused(nodes: Any) -> None:
    with pytest.raises(MalformedError):
        read(nodes)


@pytest.mark.parametrize("name", ["a.b", "x = 1", "class", "self", ""])
def test_constants_and_engines_with_such_names_are_refused(name: str) -> None:
    with pytest.raises(MalformedError):
        read([INPUT, OUTPUT], constants={name: torch.zeros(1)})
    with pytest.raises(MalformedError):
        read([INPUT, OUTPUT], engines={name: nn.Identity()})


@torch.library.custom_op("trtcompile_test::halve", mutates_args=())
def halve(x: torch.Tensor) -> torch.Tensor:
    return x / 2


def test_a_custom_operator_needs_its_namespace_named() -> None:
    graph = graph_of((torch.ops.trtcompile_test.halve.default, (), {}))
    with pytest.raises(MalformedError, match="trtcompile_test is not among") as caught:
        through_json(graph)
    assert caught.value.advice == (
        "If you know that file, pass operator_namespaces={'trtcompile_test'} to load."
    )
    loaded = through_json(graph, namespaces=OPERATOR_NAMESPACES | {"trtcompile_test"})
    assert torch.equal(loaded(torch.tensor([3.0]))[0], torch.tensor([1.5]))


@pytest.mark.parametrize(
    "target",
    [print, torch.relu, math.sqrt, aten.relu, aten.add_.Tensor],
    ids=["builtin", "torch function", "math", "packet", "mutable"],
)
def test_a_graph_that_calls_something_else_is_not_saved(target: Any) -> None:
    with pytest.raises(UnsavableError, match="a call of"):
        graph_to_json(graph_of((target, (), {})))


@pytest.mark.parametrize(
    "argument",
    [object(), torch.qint8, torch.sparse_coo, slice(1), b"bytes", complex(math.inf, 0)],
    ids=["object", "qint8", "sparse", "slice", "bytes", "infinite complex"],
)
def test_an_argument_of_another_kind_is_not_saved(argument: Any) -> None:
    graph = graph_of((aten.relu.default, (), {}))
    (call,) = graph.find_nodes(op="call_function", target=aten.relu.default)
    call.args = (*call.args, argument)
    with pytest.raises(UnsavableError, match="an argument"):
        graph_to_json(graph)
