"""Compiled modules whose plans are random bytes, with the graphs that the engines stand for.

They go through the stages of a compilation but for NVIDIA's builder, so they take milliseconds.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from trtcompile.capture import capture
from trtcompile.engine import Binding, Engine, Provenance
from trtcompile.inputs import flat_inputs, parse_inputs
from trtcompile.lowering import lower
from trtcompile.partition import judge, make_report, partition
from trtcompile.runtime import TRTModule
from trtcompile.runtime.engine_module import EngineModule
from trtcompile.settings import CompileSpec, Device

BUILT_BY = Provenance("TensorRT-RTX", "1.7.1", ("8.9",), None)


def hand_compile(
    model: nn.Module, inputs: Any, *, plan_size: int = 1000, **options: Any
) -> tuple[TRTModule, dict[str, GraphModule]]:
    """A module, and for each of its engines the graph that it computes."""
    options = {"device": Device(compute_capability="8.9"), "min_block_size": 1, **options}
    spec = CompileSpec(**options)
    captured = capture(model.eval(), parse_inputs(inputs))
    graph_module = captured.graph_module
    lower(graph_module, spec)
    verdicts = judge(graph_module, spec)
    partitioned = partition(
        graph_module, verdicts, flat_inputs(captured.arguments), spec.min_block_size
    )
    generator = torch.Generator().manual_seed(0)
    for part in partitioned.engines:
        plan = bytes(
            torch.randint(256, (plan_size,), generator=generator, dtype=torch.uint8).numpy()
        )
        graphs = part.graph_module.meta
        engine = Engine(
            name=part.name,
            plan=plan,
            inputs=tuple(_binding(node) for node in graphs["inputs"]),
            outputs=tuple(_binding(node) for node in graphs["outputs"]),
            shape_ranges=part.shape_ranges,
            provenance=BUILT_BY,
        )
        setattr(
            partitioned.executor,
            part.name,
            EngineModule(engine, spec.device.gpu_id, use_cuda_graphs=spec.use_cuda_graphs),
        )
    module = TRTModule(
        executor=partitioned.executor,
        arguments=captured.arguments,
        argument_names=("x",),
        in_spec=captured.in_spec,
        out_spec=captured.out_spec,
        spec=spec,
        report=make_report(graph_module, partitioned, {"conv": "its weights change"}),
        lowered=None,
        calibration_table=None,
        graph_hash="a graph",
    )
    return module, {part.name: part.graph_module for part in partitioned.engines}


def _binding(node: torch.fx.Node) -> Binding:
    value = node.meta["val"]
    shape = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return Binding(node.name, value.dtype, shape)


def simulate(module: TRTModule, stand_ins: dict[str, nn.Module], *arguments: Any) -> Any:
    """Runs a module with PyTorch graphs in its engines' places; the module itself stays as it is."""
    executor = GraphModule(module.executor, module.executor.graph)
    for name, stand_in in stand_ins.items():
        assert isinstance(getattr(executor, name), EngineModule)
        setattr(executor, name, stand_in)
    tensors, in_spec = pytree.tree_flatten((arguments, {}))
    assert in_spec == module.in_spec
    with torch.no_grad():
        outputs = executor(*tensors)
    return pytree.tree_unflatten(list(outputs), module.out_spec)
