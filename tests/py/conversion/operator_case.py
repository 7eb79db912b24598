"""Cases of operators: what a converter must compute, and what its ``supports`` must refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from checks import (
    SizeRange,
    assert_same,
    build_device,
    check_op,
    input_spec,
    partition_for_test,
    run_in_oracle,
    samples_of,
    session_of,
)
from torch._dynamo.source import ConstantSource
from torch._subclasses import FakeTensorMode
from torch.fx import Graph, GraphModule
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from trtcompile.conversion import convert
from trtcompile.engine import build_engine
from trtcompile.errors import UnsupportedGraphError
from trtcompile.partition import judge
from trtcompile.settings import CompileSpec


@dataclass(frozen=True)
class Case:
    """One argument form of one operator.

    Attributes:
        target: the operator whose converter the case is about.
        form: what is special about the arguments.
        function: what is captured and called with ``inputs``.
        inputs: on the CPU; the values that eager PyTorch and the network get.
        dynamic: for each input and dimension the min, opt, and max size.
        build: whether an engine is built too; sweeps over argument forms leave it out.
        tolerance: relative and absolute.
        options: fields of ``CompileSpec``.
    """

    target: Any
    form: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    dynamic: Mapping[int, Mapping[int, SizeRange]] = field(default_factory=dict)
    build: bool = True
    tolerance: float = 1e-5
    options: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{target_name(self.target)}-{self.form}"

    def check(self) -> None:
        check_op(
            self.function,
            *self.inputs,
            dynamic=self.dynamic,
            rtol=self.tolerance,
            atol=self.tolerance,
            build=self.build,
            converts=self.target,
            **self.all_options,
        )

    @property
    def all_options(self) -> dict[str, Any]:
        """The fields of ``CompileSpec`` to compile with."""
        return _options_for(self.target) | dict(self.options)


def case(
    target: Any, form: str, function: Callable[..., Any], *inputs: torch.Tensor, **fields: Any
) -> Case:
    """A ``Case``; ``fields`` are its other attributes."""
    return Case(target, form, function, inputs, **fields)


@dataclass(frozen=True)
class GraphCase:
    """An operator that ``torch.export`` replaces by another, but that other graphs bring: called in a graph as it is.

    Attributes:
        target: the operator.
        form: what is special about the arguments.
        arguments: those of the operator; tensors become inputs of the graph.
        build: whether an engine is built too.
        dynamic: for each tensor among the arguments and each dimension the min, opt, and max size.
    """

    target: Any
    form: str
    arguments: tuple[Any, ...]
    build: bool = True
    dynamic: Mapping[int, Mapping[int, SizeRange]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{target_name(self.target)}-{self.form}"

    def check(self) -> None:
        spec = CompileSpec(device=build_device(disable_tf32=True))
        graph_module = graph_of(self.target, *self.arguments, dynamic=self.dynamic)
        reasons = [reason for reason in judge(graph_module, spec).values() if reason is not None]
        assert not reasons
        network = convert(graph_module)
        tensors = [a for a in self.arguments if isinstance(a, torch.Tensor)]
        specs = [input_spec(x, self.dynamic.get(i, {})) for i, x in enumerate(tensors)]
        shapes = tuple((s.min_shape, s.opt_shape, s.max_shape) for s in specs)
        engine = build_engine("operator", network, [shapes], spec) if self.build else None
        session = session_of(engine)
        for inputs in samples_of(tensors, specs):
            given = iter(inputs)
            expected = self.target(
                *(next(given) if isinstance(a, torch.Tensor) else a for a in self.arguments)
            )
            assert_same(run_in_oracle(network, inputs), [expected], 1e-5, 1e-5, "the oracle")
            if session is not None:
                got = [tensor.cpu() for tensor in session.run([x.cuda() for x in inputs])]
                assert_same(got, [expected], 1e-4, 1e-4, "the engine")


def graph_of(
    target: Callable[..., Any],
    *arguments: Any,
    dynamic: Mapping[int, Mapping[int, SizeRange]] | None = None,
) -> GraphModule:
    """A graph that calls one operator: tensors of ``arguments`` are placeholders, the result is the output."""
    graph = Graph()
    known = _with_symbolic_sizes(arguments, dynamic) if dynamic else arguments
    values = []
    for argument in known:
        if isinstance(argument, torch.Tensor):
            node = graph.placeholder(f"x{len(values)}")
            node.meta["val"] = argument
            values.append(node)
        else:
            values.append(argument)
    call = graph.call_function(target, tuple(values))
    call.meta["val"] = target(*known)
    graph.output((call,))
    return GraphModule(torch.nn.Module(), graph)


def _with_symbolic_sizes(
    arguments: Sequence[Any], dynamic: Mapping[int, Mapping[int, SizeRange]]
) -> list[Any]:
    """The arguments with tensors that have no values, and symbols for the sizes that are not known."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)
    known, count = [], 0
    for argument in arguments:
        if not isinstance(argument, torch.Tensor):
            known.append(argument)
            continue
        ranges = dynamic.get(count, {})
        kinds = [
            DimDynamic.DYNAMIC if d in ranges else DimDynamic.STATIC for d in range(argument.dim())
        ]
        context = StatelessSymbolicContext(dynamic_sizes=kinds)
        source = ConstantSource(f"x{count}")
        known.append(mode.from_tensor(argument, symbolic_context=context, source=source))
        count += 1
    return known


@dataclass(frozen=True)
class Refusal:
    """Arguments that an operator's converter does not take.

    Attributes:
        target: the operator that must stay in PyTorch.
        form: what is special about the arguments.
        reason: a part of the reason's sentence.
        function: what is captured.
        inputs: example inputs.
        dynamic: as for ``Case``.
    """

    target: Any
    form: str
    reason: str
    function: Callable[..., Any]
    inputs: tuple[torch.Tensor, ...]
    dynamic: Mapping[int, Mapping[int, SizeRange]] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{target_name(self.target)}-{self.form}"

    def check(self) -> None:
        specs = [input_spec(x, self.dynamic.get(i, {})) for i, x in enumerate(self.inputs)]
        try:
            _, partitioned, _ = partition_for_test(
                self.function, specs, **_options_for(self.target)
            )
        except UnsupportedGraphError as error:  # quantization that TensorRT lacks is refused whole
            if self.reason not in str(error):
                raise
            return
        verdicts = {n: r for n, r in partitioned.verdicts.items() if n.target is self.target}
        assert verdicts, f"no {self.target} among {[n.target for n in partitioned.verdicts]}"
        refused = [node for node, reason in verdicts.items() if self.reason in (reason or "")]
        assert refused, f"the verdicts are {list(verdicts.values())}"
        assert all(node not in partitioned.engine_of for node in refused)


def _options_for(target: Any) -> dict[str, Any]:
    """A model that comes quantized is compiled with what it is quantized to only."""
    if getattr(target, "namespace", None) not in ("quantized_decomposed", "trtcompile"):
        return {}
    dtype = torch.float8_e4m3fn if "fp8" in str(target) else torch.int8
    return {"enabled_precisions": {torch.float, dtype}}


def refusal(
    target: Any,
    form: str,
    reason: str,
    function: Callable[..., Any],
    *inputs: torch.Tensor,
    dynamic: Mapping[int, Mapping[int, SizeRange]] | None = None,
) -> Refusal:
    return Refusal(target, form, reason, function, inputs, dynamic or {})


def each(cases: Sequence[Case | GraphCase | Refusal]) -> Any:
    """Parametrizes a test by ``case``."""
    return pytest.mark.parametrize("case", cases, ids=[str(case) for case in cases])


def target_name(target: Any) -> str:
    return str(target) if isinstance(target, torch._ops.OpOverload) else target.__name__


def floats(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Normally distributed, of either sign."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def positive(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> torch.Tensor:
    """Between 0.1 and 3.1."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(shape, generator=generator) * 3 + 0.1).to(dtype)


def integers(*shape: int, dtype: torch.dtype = torch.int64, seed: int = 0) -> torch.Tensor:
    """From -9 to 9."""
    return torch.randint(-9, 10, shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def booleans(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) > 0.5
