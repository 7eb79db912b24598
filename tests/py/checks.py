"""What most tests are made of: check one operator, check one lowering pass, run engines through the oracle."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import network_oracle
import torch
from torch import nn
from torch.fx import GraphModule

from trtcompile import Device, Input, _tensorrt
from trtcompile.capture import CapturedGraph, capture
from trtcompile.compiler import prepare, split, undecomposed_operators
from trtcompile.conversion import NetworkDefinition, convert
from trtcompile.engine import Engine, build_engine
from trtcompile.inputs import Input as InputType
from trtcompile.inputs import parse_inputs
from trtcompile.partition.split import PartitionedGraph
from trtcompile.runtime.session import EngineSession
from trtcompile.settings import CompileSpec

#: Sizes of a dynamic dimension: min, opt, max.
SizeRange = tuple[int, int, int]


def build_device(**fields: Any) -> Device:
    """The device that this machine can build for: its own GPU, or a named one for TensorRT-RTX."""
    if _tensorrt.gpu_capability(0) is not None and not _tensorrt.load().builds_ahead_of_time:
        return Device(**fields)
    return Device(compute_capability="8.9", **fields)


def can_run_engines() -> bool:
    """Whether engines built on this machine can be executed here."""
    return _tensorrt.gpu_capability(0) is not None and not _tensorrt.load().builds_ahead_of_time


def builds_fp8() -> bool:
    """Whether the device that this machine builds for computes in FP8."""
    if build_device().compute_capabilities:
        return True
    here = _tensorrt.gpu_capability(0)
    return here is not None and tuple(map(int, here.split("."))) >= (8, 9)


class Function(nn.Module):
    """A function of so many tensors as a module.

    Its ``forward`` has named parameters, since ``torch.export`` wants dynamic shapes of ``*args`` in another form.
    """

    def __init__(self, function: Callable[..., Any], arity: int) -> None:
        super().__init__()
        self.function = function
        self.arity = arity

    def forward(self, a: Any, b: Any = None, c: Any = None, d: Any = None) -> Any:
        return self.function(*(a, b, c, d)[: self.arity])


def capture_for_test(model: nn.Module | Callable[..., Any], inputs: Sequence[Any]) -> CapturedGraph:
    """Captures a module or function in the way ``compile`` does."""
    module = model if isinstance(model, nn.Module) else Function(model, len(inputs))
    return capture(module.eval(), parse_inputs(list(inputs)), undecomposed=undecomposed_operators())


def session_of(engine: Engine | None) -> EngineSession | None:
    """A session of an engine, where a GPU can run it."""
    if engine is None or not can_run_engines():
        return None
    return EngineSession(engine, torch.device("cuda", 0), use_cuda_graphs=False)


def partition_for_test(
    model: nn.Module | Callable[..., Any], inputs: Sequence[Any], **options: Any
) -> tuple[CapturedGraph, PartitionedGraph, CompileSpec]:
    """Runs every stage before conversion."""
    # Otherwise TensorRT times every kernel that it knows; the numbers do not depend on its choice.
    if can_run_engines():
        options.setdefault("optimization_level", 0)
    spec = CompileSpec(device=build_device(disable_tf32=True), **options)
    captured = capture_for_test(model, inputs)
    _, quantization = prepare(captured, spec)
    partitioned, _ = split(captured, spec, quantization)
    return captured, partitioned, spec


def check_op(
    model: nn.Module | Callable[..., Any],
    *inputs: torch.Tensor,
    dynamic: Mapping[int, Mapping[int, SizeRange]] | None = None,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    build: bool = True,
    converts: object = None,
    **options: Any,
) -> NetworkDefinition:
    """Checks an operator, function, or module against eager PyTorch.

    Asserts that nothing fell back, that the network computes the right values according to the oracle, that the
    installed TensorRT builds it, and, where a GPU can run it, that the engine computes them too.

    Args:
        model: what to check; called with ``inputs``.
        inputs: example inputs on the CPU, signed and random unless there is a reason.
        dynamic: for each input and dimension the min, opt, and max size; then all three shapes are checked.
        rtol: relative tolerance.
        atol: absolute tolerance.
        build: whether to build an engine.
        converts: an operator that must be among those converted, so that a case tests what it says.
        options: fields of ``CompileSpec``.
    """
    module = model if isinstance(model, nn.Module) else Function(model, len(inputs))
    module.eval()
    specs = [input_spec(tensor, (dynamic or {}).get(i, {})) for i, tensor in enumerate(inputs)]
    _, partitioned, spec = partition_for_test(module, specs, **options)
    reasons = {
        str(node.target): reason
        for node, reason in partitioned.verdicts.items()
        if reason is not None
    }
    assert not reasons, f"fell back: {reasons}"
    assert len(partitioned.engines) == 1, f"{len(partitioned.engines)} engines"
    (engine_partition,) = partitioned.engines
    converted = [node.target for node in engine_partition.graph_module.graph.nodes]
    assert converts is None or converts in converted, f"{converts} is not among {converted}"
    network = convert(engine_partition.graph_module)
    engine = build_engine("engine_0", network, engine_partition.profiles, spec) if build else None
    session = session_of(engine)
    for sample in samples_of(inputs, specs):
        with torch.no_grad():
            expected = _as_tuple(module(*(t.clone() for t in sample)))
        used = _inputs_of(partitioned, sample)
        got = _returned(partitioned, run_in_oracle(network, used))
        assert_same(got, expected, rtol, atol, "the oracle")
        if session is not None:
            got = _returned(partitioned, session.run([t.cuda() for t in used]))
            assert_same(
                [t.cpu() for t in got], expected, max(rtol, 1e-4), max(atol, 1e-4), "the engine"
            )
    return network


def run_in_oracle(network: NetworkDefinition, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The outputs of a network definition, as the oracle reads it."""
    named = dict(zip(network.input_names, inputs, strict=True))
    outputs = network_oracle.run_network(network.definition, named)
    return [outputs[name] for name in network.output_names]


def check_pass(
    model: nn.Module | Callable[..., Any],
    inputs: Sequence[torch.Tensor],
    lowering_pass: Callable[[GraphModule, CompileSpec], int],
    *,
    rewrites: int,
    before: Sequence[Callable[[GraphModule, CompileSpec], int]] = (),
) -> GraphModule:
    """Runs one lowering pass and checks the number of rewrites and that the values stayed the same.

    Returns:
        The graph after the pass, for golden assertions.
    """
    from trtcompile.lowering import run_pass

    captured = capture_for_test(model, list(inputs))
    spec = CompileSpec()
    for earlier in before:
        run_pass(earlier, captured.graph_module, spec)
    with torch.no_grad():
        expected = captured.graph_module(*inputs)
        assert run_pass(lowering_pass, captured.graph_module, spec) == rewrites
        actual = captured.graph_module(*inputs)
    for a, e in zip(actual, expected, strict=True):
        torch.testing.assert_close(a, e, rtol=1e-5, atol=1e-5)
    return captured.graph_module


def operators(graph_module: GraphModule) -> list[str]:
    """The operators of a graph in order, for golden comparisons."""
    return [str(node.target) for node in graph_module.graph.nodes if node.op == "call_function"]


def randomize(model: nn.Module, seed: int) -> nn.Module:
    """Sets every parameter and buffer to non-degenerate values, so that no branch is zero and no norm an identity."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> None:
        tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)

    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                uniform(tensor, 0.5, 1.5)
            elif tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (2.0 / fan_in) ** 0.5)
            elif name.endswith("weight"):  # of a norm: around 1, never 0
                uniform(tensor, 0.5, 1.0)
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model.eval()


class OracleSession:
    """Stands in for ``EngineSession`` where no GPU is: runs the network definition through the oracle."""

    def __init__(self, network: NetworkDefinition) -> None:
        self._network = network

    def run(self, inputs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        return tuple(run_in_oracle(self._network, inputs))


def install_oracle(monkeypatch: Any) -> None:
    """Makes ``compile`` give modules whose engines are run by the oracle on the CPU; engines are still built."""
    networks: dict[int, NetworkDefinition] = {}

    def build_and_remember(name: str, network: NetworkDefinition, *args: Any) -> Engine:
        engine = build_engine(name, network, *args)
        networks[id(engine)] = network
        monkeypatch.setattr(
            _Kept, "engines", (*_Kept.engines, engine)
        )  # keeps the id from being used again
        return engine

    def convert_a_copy(graph_module: GraphModule) -> NetworkDefinition:
        # A plan has weights of its own; a network definition refers to those of the graph.
        for buffer, value in list(graph_module.named_buffers(recurse=False)):
            setattr(graph_module, buffer, value.clone())
        return convert(graph_module)

    monkeypatch.setattr("trtcompile.compiler.convert", convert_a_copy)
    monkeypatch.setattr("trtcompile.compiler.build_engine", build_and_remember)
    monkeypatch.setattr("trtcompile.runtime.engine_module.why_not_runnable", lambda *_: None)
    monkeypatch.setattr(
        "trtcompile.runtime.engine_module.EngineModule.session",
        lambda self: OracleSession(networks[id(self.engine)]),
    )
    monkeypatch.setattr(Device, "torch_device", property(lambda _: torch.device("cpu")))


class _Kept:
    engines: tuple[Engine, ...] = ()


def input_spec(tensor: torch.Tensor, ranges: Mapping[int, SizeRange]) -> InputType:
    if not ranges:
        return Input.from_any(tensor)
    shapes = [
        [ranges[d][which] if d in ranges else size for d, size in enumerate(tensor.shape)]
        for which in range(3)
    ]
    return Input(min_shape=shapes[0], opt_shape=shapes[1], max_shape=shapes[2], dtype=tensor.dtype)


def samples_of(
    inputs: Sequence[torch.Tensor], specs: Sequence[InputType]
) -> list[list[torch.Tensor]]:
    """The inputs to check with: as given, or of the min, opt, and max shapes."""
    if not any(spec.is_dynamic for spec in specs):
        return [list(inputs)]
    generator = torch.Generator().manual_seed(1)
    samples = []
    for which in ("min_shape", "opt_shape", "max_shape"):
        sample = []
        for tensor, spec in zip(inputs, specs, strict=True):
            shape = getattr(spec, which)
            if tuple(tensor.shape) == shape:
                sample.append(tensor)
            elif tensor.is_floating_point():
                sample.append(torch.randn(shape, generator=generator).to(tensor.dtype))
            else:
                sample.append(torch.randint(-5, 6, shape, generator=generator).to(tensor.dtype))
        samples.append(sample)
    return samples


def _inputs_of(partitioned: PartitionedGraph, sample: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """The inputs that the engine takes: the executor's arguments in the order in which it passes them on."""
    placeholders = [n for n in partitioned.executor.graph.nodes if n.op == "placeholder"]
    (call,) = [n for n in partitioned.executor.graph.nodes if n.op == "call_module"]
    return [sample[placeholders.index(argument)] for argument in call.args]


def _returned(partitioned: PartitionedGraph, outputs: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """What the model returns: the engine's outputs in the order in which the executor picks them."""
    output = next(iter(reversed(partitioned.executor.graph.nodes)))
    return [outputs[picked.args[1]] for picked in output.args[0]]


def _as_tuple(value: Any) -> tuple[torch.Tensor, ...]:
    return tuple(t for t in torch.utils._pytree.tree_leaves(value) if isinstance(t, torch.Tensor))


def assert_same(
    actual: Sequence[torch.Tensor],
    expected: Sequence[torch.Tensor],
    rtol: float,
    atol: float,
    who: str,
) -> None:
    assert len(actual) == len(expected), f"{who} gives {len(actual)} outputs, not {len(expected)}"
    for index, (a, e) in enumerate(zip(actual, expected, strict=True)):
        assert a.dtype == e.dtype, f"{who}: output {index} is {a.dtype}, not {e.dtype}"
        assert a.shape == e.shape, (
            f"{who}: output {index} has shape {tuple(a.shape)}, not {tuple(e.shape)}"
        )
        where = f"{who}, output {index}"
        torch.testing.assert_close(
            a, e, rtol=rtol, atol=atol, equal_nan=True, msg=lambda m, where=where: f"{where}: {m}"
        )


__all__ = [
    "Function",
    "OracleSession",
    "assert_same",
    "build_device",
    "builds_fp8",
    "can_run_engines",
    "capture_for_test",
    "check_op",
    "check_pass",
    "input_spec",
    "install_oracle",
    "operators",
    "partition_for_test",
    "randomize",
    "run_in_oracle",
    "samples_of",
]
