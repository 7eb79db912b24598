"""``torch.compile(model, backend="trt", options={...})``.

PyTorch finds ``trt_backend`` through the entry-point group ``torch_dynamo_backends``, so trtcompile need not be
imported first. Each graph that dynamo captures goes through the same stages as in ``compile()``; what cannot go
into TensorRT, and everything between graphs, runs in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch.fx import GraphModule

from trtcompile.backend.compiled_graph import CompiledGraph
from trtcompile.backend.dynamo_graph import DynamoGraph
from trtcompile.backend.origin import find_origin

__all__ = ["trt_backend"]


def trt_backend(
    graph_module: GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
    mode: str | None = None,
) -> Callable[..., Any]:
    """Prepares one graph that ``torch.compile`` captured; it is compiled when it is first called.

    Compiling at the first call lets errors reach the caller as they are: what a backend raises while dynamo captures
    arrives as dynamo's own exception, and ``torch._dynamo.config.suppress_errors`` would drop it. The call after a
    failed one tries again.

    Parameters and buffers become constants of the engine. A change of them raises ``StaleWeightsError`` at the next
    call, but for a change in place through ``parameter.data``, which PyTorch does not record: call
    ``torch._dynamo.reset()`` after one.

    Sizes that ``torch._dynamo.mark_dynamic`` gave a max have one engine for their range, tuned for the first call. For
    all others a graph is compiled once for each set of input shapes that it is called with.

    Args:
        graph_module: dynamo's graph; parameters and buffers are among its placeholders.
        example_inputs: a value for each placeholder.
        options: the fields of ``CompileSpec``.
        mode: must be None; the modes of ``torch.compile`` belong to its own backend.

    Returns:
        A function that takes what the graph takes. It raises ``SettingsError`` if an option is unknown or refused,
        ``CalibrationError`` if INT8 was asked for and the graph is only a part of what was compiled, and what
        ``compile()`` raises.
    """
    origin = find_origin(graph_module)
    return CompiledGraph(DynamoGraph.read(graph_module, example_inputs), origin, options, mode)
