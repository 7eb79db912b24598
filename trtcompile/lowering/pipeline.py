"""The pipeline and its runner."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Sequence

from torch.fx import GraphModule

from trtcompile.errors import LoweringError, RegistrationError
from trtcompile.lowering.batch_norm import BATCH_NORM
from trtcompile.lowering.cast_bytes import cast_bytes
from trtcompile.lowering.constants import drop_unused_constants
from trtcompile.lowering.decompose_batch_norm import decompose_batch_norm
from trtcompile.lowering.fold_batch_norm import fold_batch_norm
from trtcompile.lowering.fold_constants import fold_constants
from trtcompile.lowering.name_tensors import name_tensors
from trtcompile.lowering.nest_concatenations import nest_concatenations
from trtcompile.lowering.remove_no_ops import remove_no_ops
from trtcompile.lowering.reshape_views import reshape_views
from trtcompile.lowering.retarget import retarget
from trtcompile.lowering.settle_memory import settle_memory
from trtcompile.lowering.split_fake_quantize import split_fake_quantize
from trtcompile.settings import CompileSpec

_log = logging.getLogger(__name__)

LoweringPass = Callable[[GraphModule, CompileSpec], int]

#: In this order: no-ops hide patterns, so they go early; names come last, when the graph is settled.
PIPELINE: tuple[LoweringPass, ...] = (
    retarget,  # lowering computes with constants, which are on the CPU
    settle_memory,  # the other passes change strides
    reshape_views,  # copies that views need are no-ops
    remove_no_ops,
    nest_concatenations,  # copies hide which ones begin alike
    split_fake_quantize,  # before weights that are fake quantized would be folded to floats
    cast_bytes,  # no copies between casts and moves any more
    fold_constants,  # weights computed from weights become constants that batch norm can be folded into
    fold_batch_norm,
    decompose_batch_norm,  # those that are left
    name_tensors,
)


#: Passes of users; they run on settled graphs, before tensors get their names.
_USER_PASSES: list[LoweringPass] = []


def lowering_pass(function: LoweringPass) -> LoweringPass:
    """Adds a pass ``(graph_module, spec) -> rewrites`` to every compilation that follows.

    It runs after the package's own rewrites and before quantization. It changes the graph in place and returns the
    number of rewrites; the runner recompiles, removes dead nodes, and checks the graph.

    Raises:
        RegistrationError: it is not callable with two arguments, or is there already.
    """
    if not callable(function):
        raise RegistrationError(
            f"{function!r} is no function. Decorate a function (graph_module, spec) -> int."
        )
    try:
        inspect.signature(function).bind(None, None)
    except TypeError as error:
        raise RegistrationError(
            f"the lowering pass {function.__name__} cannot be called with (graph_module, spec): {error}."
        ) from None
    if function in _USER_PASSES:
        raise RegistrationError(f"the lowering pass {function.__name__} is there already.")
    _USER_PASSES.append(function)
    return function


def passes() -> tuple[LoweringPass, ...]:
    """All passes, in order."""
    *rewrites, naming = PIPELINE
    return (*rewrites, *_USER_PASSES, naming)


#: Operators that capture must not decompose, because a pass looks for them.
KEPT_WHOLE = (BATCH_NORM,)


def lower(
    graph_module: GraphModule, spec: CompileSpec, chosen: Sequence[LoweringPass] | None = None
) -> None:
    """Runs the passes in place: all, or those ``chosen``.

    Raises:
        LoweringError: a pass failed or left an invalid graph.
    """
    for one in passes() if chosen is None else chosen:
        run_pass(one, graph_module, spec)


def run_pass(function: LoweringPass, graph_module: GraphModule, spec: CompileSpec) -> int:
    """Runs one pass, removes what it left dead, and checks the graph.

    Returns:
        The number of rewrites.

    Raises:
        LoweringError: the pass failed or left an invalid graph.
    """
    try:
        rewrites = function(graph_module, spec)
        graph_module.graph.eliminate_dead_code()
        graph_module.graph.lint()
        graph_module.recompile()
    except Exception as error:
        raise LoweringError(
            f"the lowering pass {function.__name__} failed: {error}. This is a defect of the pass; please report "
            "it with the model."
        ) from error
    drop_unused_constants(graph_module)
    _log.debug("%s: %d rewrites", function.__name__, rewrites)
    return rewrites
