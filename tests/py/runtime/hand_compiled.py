"""Compiled modules whose plans are random bytes, with the graphs that the engines stand for.

They go through the stages of a compilation but for NVIDIA's builder, so they take milliseconds.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from trtcompile.capture import capture
from trtcompile.engine import Binding, Engine, Provenance
from trtcompile.inputs import Input, flat_inputs, parse_inputs
from trtcompile.lowering import lower
from trtcompile.partition import judge, make_report, partition
from trtcompile.profiles import resolve_profiles
from trtcompile.ptq.placement import Decision, Placement
from trtcompile.runtime import TRTModule
from trtcompile.runtime.engine_module import EngineModule
from trtcompile.settings import CompileSpec, Device

IMAGE = Input((1, 3, 8, 8))
DYNAMIC = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8), name="x")
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
    profiles = resolve_profiles(flat_inputs(captured.arguments), spec.optimization_profiles)
    partitioned = partition(graph_module, verdicts, profiles, spec.min_block_size)
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
            profiles=part.profiles,
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
        keywords=0,
        in_spec=captured.in_spec,
        out_spec=captured.out_spec,
        spec=spec,
        report=make_report(graph_module, partitioned, _some_placement(graph_module)),
        lowered=None,
        calibration_table=None,
        graph_hash="a graph",
    )
    return module, {part.name: part.graph_module for part in partitioned.engines}


def _some_placement(graph_module: GraphModule) -> Placement:
    """A value that is read in INT8, and an operator that is left out."""
    first, second, *_ = graph_module.graph.nodes
    placement = Placement(skipped={second: Decision("a rule", "its weights change")})
    placement.quantize(first, second, Decision("another rule", "its input"))
    return placement


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


class ConvNet(nn.Module):
    """Three blocks of a convolution and an activation, with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential()
        for index, channels in enumerate((3, 6, 5)):
            self.blocks.append(nn.Conv2d(channels, (6, 5, 4)[index], 3, padding=1))
            self.blocks.append(nn.ReLU())
        randomize(self)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class ManyKinds(nn.Module):
    """Nested inputs; outputs that are no tensors; constants of several dtypes in the PyTorch remainder."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        randomize(self)
        self.register_buffer("offset", torch.tensor([[1.5], [-2.25]], dtype=torch.bfloat16))
        self.register_buffer("order", torch.tensor([3, 0, 2]))
        self.register_buffer("mask", torch.tensor([True, False, True, False]))
        self.register_buffer("factor", torch.tensor(0.1, dtype=torch.float64))
        self.register_buffer("empty", torch.zeros(0, 4, 8, 8))

    def forward(self, x: dict[str, Any], shift: Tensor) -> Any:
        y = torch.relu(self.conv(x["images"][0]) + x["images"][1])
        picked = torch.cumsum(y, 1).index_select(1, self.order)
        masked = torch.cumsum(torch.where(self.mask[:, None, None], y, -y), 2)
        scaled = picked.double() * self.factor
        shifted = torch.cumsum(shift, 0) + torch.cumsum(self.offset, 1)
        return {
            "scaled": [scaled, None, 3.5],
            "largest": torch.max(masked, dim=1),
            "shifted": OrderedDict(b=(shifted,), a=x["images"][1]),
            "sizes": (y.shape[0], True, "text"),
            "joined": torch.cat([torch.cumsum(y, 0), self.empty]),
        }


MANY_KINDS_INPUTS = [
    {"images": (Input((2, 3, 8, 8)), Input((2, 1, 8, 8), name="bias"))},
    Input((2, 1), dtype=torch.bfloat16),
]
# Whatever TensorRT comes to take, the operators that read the constants stay in PyTorch.
MANY_KINDS_OPTIONS = {
    "torch_executed_ops": {"aten.index_select", "aten.where", "aten.mul", "aten.add", "aten.cat"}
}


def randomize(module: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) / 4


def random_arguments(module: TRTModule) -> tuple[Any, ...]:
    """Signed random tensors of the largest shapes."""
    generator = torch.Generator().manual_seed(1)

    def tensor(spec: Input) -> Tensor:
        return torch.randn(spec.max_shape, generator=generator).to(spec.dtype)

    return tuple(pytree.tree_map(tensor, argument) for argument in module.arguments)
