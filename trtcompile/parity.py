"""``layer_parity``: an engine's intermediate values against the simulation's."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from trtcompile.beside_simulation import (
    checked_device,
    compare_batches,
    computes_floats,
    graph_with_outputs,
    named_outputs,
    run_flat,
)
from trtcompile.capture import CapturedGraph
from trtcompile.compiler import build_prepared
from trtcompile.errors import SettingsError
from trtcompile.node_info import layer_name
from trtcompile.ptq.analysis.layers import QuantizedLayers, tensor_of
from trtcompile.ptq.analysis.noise import NoiseRatio
from trtcompile.ptq.quantize import Quantization
from trtcompile.runtime import TRTModule


def layer_parity(
    compiled: TRTModule,
    loader: Iterable[Any],
    *,
    tensors: Collection[str] | None = None,
    max_batches: int | None = 1,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Compares an engine's values with the simulation's, tensor by tensor.

    An engine shows nothing but its outputs, so the lowered graph is built once more with the tensors as further
    outputs. That changes what TensorRT fuses: a layer's result that is an output has to be written, and what follows
    can no longer be part of the same kernel. Quantized tensors, the default, have to be written anyway and are read
    through a dequantize node of their own, so marking them disturbs least; but kernels are still chosen anew. The
    values are those of the marked engine, not of ``compiled``.

    Errors accumulate: a value is computed from the engine's own inputs to it, not from the simulation's.
    ``output_parity`` compares the outputs of ``compiled`` itself.

    Args:
        compiled: a module that can run on this machine, with ``keep_lowered=True``.
        loader: yields batches as for ``DataLoaderCalibrator``.
        tensors: names of tensors to compare, such as those of layers (``report.rows``); None for every quantized
            tensor, as dequantized. The model's outputs are always compared.
        max_batches: how many batches of the loader to use; None for all.
        device: where the simulation runs. A GPU may compute FP32 products in TF32, which shows.

    Returns:
        Tensor name -> SQNR of the engine against the simulation in dB, from -200 to 200, in the order of the graph.
        ``analysis.with_parity`` takes it.

    Raises:
        EngineLoadError: engines cannot run on this machine.
        SettingsError: a name is that of no floating-point tensor; or an argument has the wrong type or value.
        CalibrationError: the data has no samples, or they do not fit.
        AttributeError: ``compiled`` has no lowered graph.
    """
    where = checked_device(compiled, max_batches, device)
    marked = _chosen(compiled.lowered, tensors)
    engine = with_outputs(compiled, list(_chosen(compiled.network_graph, tensors).values()))
    noises = {name: NoiseRatio() for name in marked}

    def add(pairs: list[tuple[Tensor, Tensor]], samples: int) -> None:
        for noise, (reference, value) in zip(noises.values(), pairs, strict=True):
            noise.add(reference, value)

    compare_batches(
        compiled,
        list(marked.values()),
        lambda inputs: run_flat(engine, inputs),
        add,
        loader,
        max_batches,
        where,
    )
    return {name: noise.db for name, noise in noises.items()}


def with_outputs(compiled: TRTModule, nodes: list[Node]) -> TRTModule:
    """The networks' graph of a module built again, with values of chosen nodes as its outputs.

    Args:
        compiled: a module that kept it.
        nodes: of its ``network_graph``.

    Returns:
        A module that takes all arguments by position and returns a tuple.
    """
    captured = CapturedGraph(
        graph_module=graph_with_outputs(compiled.network_graph, nodes),
        arguments=compiled.arguments,
        keywords=(),
        out_spec=pytree.tree_structure(tuple(range(len(nodes)))),
    )
    spec = dataclasses.replace(compiled.spec, keep_lowered=False)
    return build_prepared(captured, spec, Quantization())


def _chosen(lowered: GraphModule, names: Collection[str] | None) -> dict[str, Node]:
    """What to compare, by name, in the order of the graph."""
    chosen = named_outputs(lowered)
    if names is None:
        pairs = QuantizedLayers(lowered).pairs
        for node, quantizer in pairs.items():
            name = tensor_of(quantizer)
            if quantizer.args[0].op != "get_attr" and name not in chosen.values():  # type: ignore[union-attr]
                chosen[node] = name
    else:
        by_name = {layer_name(n): n for n in lowered.graph.nodes if computes_floats(n)}
        unknown = sorted(set(names) - set(by_name))
        if unknown:
            raise SettingsError(
                f"tensors has {', '.join(unknown)}, which the lowered graph does not compute in floating point. "
                "print(compiled.report) has the names."
            )
        chosen.update({by_name[name]: name for name in names})
    return {chosen[node]: node for node in sorted(chosen)}
