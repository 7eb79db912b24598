"""The simulation of a compiled graph: its own operators in PyTorch, with the arithmetic of TensorRT's kernels."""

from __future__ import annotations

import torch
from torch.fx import GraphModule, Node
from torch.fx.graph import _PyTreeCodeGen, _PyTreeInfo
from torch.utils import _pytree as pytree

from trtcompile.node_info import (
    TENSOR_NAME,
    dequantized_from,
    is_dequantize,
    is_quantize,
    layer_name,
)
from trtcompile.partition.precision_of import precision_of
from trtcompile.precision.casts import (
    add_cast,
    add_dequantize,
    floating_dtype,
    set_floating_dtype,
)
from trtcompile.products import PRODUCTS
from trtcompile.ptq.graph_copy import copied_graph
from trtcompile.scale_shift import scaled_value, written_value
from trtcompile.settings import QUANTIZED_PRECISIONS

aten = torch.ops.aten

#: What TensorRT computes in the kernel of the convolution or matrix product in front of it.
_ACTIVATIONS = frozenset({aten.clamp.default, aten.hardtanh.default, aten.relu.default})
_SUM = aten.add.Tensor


def simulation_of(graph_module: GraphModule, out_spec: pytree.TreeSpec) -> GraphModule:
    """A copy of a prepared graph that runs in PyTorch as its engines do; weights are shared.

    Args:
        graph_module: lowered, quantized, with types assigned: what networks are made of.
        out_spec: pytree of the model's output.

    Returns:
        A module that takes the model's tensors flat and returns the model's output structure.
    """
    simulation, _ = copied_graph(graph_module)
    widen_int8_kernels(simulation)
    names = [node.name for node in simulation.graph.nodes if node.op == "placeholder"]
    flat = pytree.tree_structure((tuple(names), {}))
    simulation.graph.set_codegen(_PyTreeCodeGen(_PyTreeInfo(names, flat, out_spec)))
    simulation.recompile()
    return simulation


def widen_int8_kernels(graph_module: GraphModule) -> int:
    """Lets what kernels compute from INT8 (or FP8) be FP32 up to where they write, in place.

    In a strongly typed network such a product has FP16 operands and an FP16 result. But the kernel that TensorRT makes
    of it multiplies integers (or FP8), and scales the sums, adds the bias, a residual, and applies an activation in
    FP32. Only what it writes is rounded: to FP16, or at once to INT8 if nothing but a quantize node reads it. PyTorch
    would round to FP16 after each operator. The same holds for batch norms between dequantize and quantize.

    Given::

        a: f16 = dequantize(q)
        y: f16 = convolution(a, w, b)
        r: f16 = relu(y)
        p: i8 = quantize(r)

    Result::

        a: f32 = dequantize(q)
        c: f32 = to(b, f32)
        y: f32 = convolution(a, w, c)
        r: f32 = relu(y)
        p: i8 = quantize(r)

    Returns:
        How many kernels compute in FP32 now.
    """
    kernels = [kernel for node in graph_module.graph.nodes if (kernel := _kernel_of(node))]
    if not kernels:
        return 0
    widened: dict[Node, Node] = {}
    for kernel in kernels:
        for node in kernel:
            for source in node.all_input_nodes:
                if source not in kernel and floating_dtype(source) == torch.float16:
                    if source not in widened:
                        widened[source] = _in_fp32(graph_module, source)
                    node.replace_input_with(source, widened[source])
            set_floating_dtype(node, torch.float32)
        _write(graph_module, kernel[-1])
    graph_module.graph.eliminate_dead_code()
    graph_module.graph.lint()
    graph_module.recompile()
    return len(kernels)


def _kernel_of(node: Node) -> list[Node]:
    """The FP16 operators of the kernel that begins with a node, if it computes from INT8 or FP8; else none."""
    if node.op != "call_function" or floating_dtype(node) != torch.float16:
        return []
    if node.target in PRODUCTS:
        is_quantized = precision_of(node) in QUANTIZED_PRECISIONS.values()
        return _kernel_of_product(node) if is_quantized else []
    scaled = scaled_value(node)
    if scaled is None or dequantized_from(scaled) != torch.int8:
        return []
    kernel = list(dict.fromkeys([node, written_value(node)]))
    # Where it has to write FP16, it reads FP16, too.
    return kernel if all(map(is_quantize, kernel[-1].users)) else []


def _kernel_of_product(product: Node) -> list[Node]:
    """The product and what is fused into its kernel: a sum, activations; each is read by nothing but the next."""
    kernel = [product]
    summed = False
    while len(kernel[-1].users) == 1:
        (user,) = kernel[-1].users
        is_sum = user.target is _SUM and not summed
        if not (is_sum or user.target in _ACTIVATIONS) or floating_dtype(user) != torch.float16:
            break
        summed = summed or is_sum
        kernel.append(user)
    return kernel


def _in_fp32(graph_module: GraphModule, source: Node) -> Node:
    """The same value for FP32 readers."""
    add = add_dequantize if is_dequantize(source) else add_cast
    return add(graph_module, source, torch.float32)


def _write(graph_module: GraphModule, result: Node) -> None:
    """Rounds what a kernel writes to FP16, unless all readers quantize it."""
    readers = list(result.users)
    if all(map(is_quantize, readers)):
        return
    written = add_cast(graph_module, result, torch.float16)
    written.meta[TENSOR_NAME] = layer_name(result)  # in the network, this is that tensor
    for reader in readers:
        reader.replace_input_with(result, written)
