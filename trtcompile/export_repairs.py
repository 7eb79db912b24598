"""Repairs of shapes that PyTorch computes wrongly, or too narrowly, while ``torch.export`` traces."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import torch
import torch._decomp.decompositions as decompositions
import torch._meta_registrations as meta_registrations
import torch._prims as prims
from torch.fx.experimental.symbolic_shapes import guard_or_false


@contextlib.contextmanager
def export_repairs() -> Iterator[None]:
    """Applies the repairs; what another PyTorch lacks is left alone."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        # Recurrent layers set this list of their own weights anew; capture puts it back.
        warnings.filterwarnings("ignore", message=".*_flat_weights.*assigned during export")
        for module, name, repair in (
            (decompositions, "one_layer_lstm", _last_states_of_rank_2),
            (meta_registrations, "div_rtn", _division_without_guard),
            (prims, "_collapse_view_helper", _stride_without_minimum),
        ):
            original = getattr(module, name, None)
            if original is not None:
                stack.enter_context(mock.patch.object(module, name, repair(original)))
        yield


def _last_states_of_rank_2(original: Callable[..., Any]) -> Callable[..., Any]:
    """PyTorch 2.11 forgets to drop a dimension: h_n and c_n would become [layers, 1, batch, hidden]."""

    def one_layer_lstm(*args: Any, **kwargs: Any) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        result, states = original(*args, **kwargs)
        return result, tuple(state[0] if state.dim() == 3 else state for state in states)

    return one_layer_lstm


def _division_without_guard(original: Callable[..., Any]) -> Callable[..., Any]:
    """Pooling asks for the remainder, and so binds a dynamic size to be odd or even; ``//`` rounds down anyway."""

    def div_rtn(x: Any, y: Any) -> Any:
        return x // y

    return div_rtn


def _stride_without_minimum(original: Callable[..., Any]) -> Callable[..., Any]:
    """Of joined dimensions the innermost has the least stride; PyTorch takes ``Min(16*s, 32*s)``, which binds ``s``."""

    def collapse(a: torch.Tensor, start: int, end: int, must_be_valid: Any) -> tuple[Any, Any]:
        shape, strides = original(a, start, end, must_be_valid)
        if (
            strides is not None
            and start < end
            and isinstance(strides[start], torch.SymInt)
            and guard_or_false(a.shape[end] > 1)
        ):
            strides = (*strides[:start], a.stride()[end], *strides[start + 1 :])
        return shape, strides

    return collapse
