"""Which code of the user a dynamo graph was captured from, and whether it is all of it."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

from torch._dynamo.source import GetItemSource, LocalSource
from torch.fx import GraphModule, Node

# The calls that lie between `torch.compile`'s wrapper and the forward of the module that was compiled.
_MODULE_CALL = ("_call_impl", "_wrapped_call_impl")


@dataclass(frozen=True)
class GraphOrigin:
    """Where a graph comes from.

    Attributes:
        graph_break: why the graph is only a part of what was compiled, as a clause; None if it is the whole.
        code: the function that was captured; None if unknown.
        is_method: whether the first argument of ``code`` is the module.
    """

    graph_break: str | None
    code: CodeType | None
    is_method: bool

    def argument_position(self, node: Node) -> int | None:
        """Which positional argument of the compiled function, from 0, a placeholder is; None if it is none."""
        source = getattr(node, "_dynamo_source", None)
        if self.code is None:
            return None
        names = self.code.co_varnames[: self.code.co_argcount]
        first = 1 if self.is_method else 0
        if isinstance(source, LocalSource) and source.local_name in names:
            return names.index(source.local_name) - first
        if (
            isinstance(source, GetItemSource)
            and isinstance(source.base, LocalSource)
            and source.base.local_name == _variadic(self.code)
            and isinstance(source.index, int)
        ):
            return len(names) - first + source.index
        return None


def source_chain(node: Node) -> Iterator[Any]:
    """Dynamo's note of where a placeholder's value comes from: itself, what that hangs on, and so on."""
    source = getattr(node, "_dynamo_source", None)
    while source is not None:
        yield source
        source = getattr(source, "base", None)


def find_origin(graph_module: GraphModule) -> GraphOrigin:
    """Finds out while dynamo is calling the backend, from dynamo's notes and from the stack."""
    frames = list(_callers())
    code = next(
        (f.f_locals.get("code") for f in frames if _is_in(f, "_compile", "convert_frame")), None
    )
    wrapper = next((f for f in frames if _is_in(f, "compile_wrapper", "eval_frame")), None)
    function = None if wrapper is None else wrapper.f_locals.get("fn")
    return GraphOrigin(
        graph_break=_noted_break(graph_module) or _outer_frame(frames),
        code=code,
        is_method=inspect.ismethod(function),
    )


def _noted_break(graph_module: GraphModule) -> str | None:
    """Why dynamo ended the graph early, or None."""
    reason: Any = getattr(graph_module, "compile_subgraph_reason", None)
    if reason is None or not reason.graph_break:
        return None
    return f"dynamo broke the model into several graphs{_at(reason.user_stack)}: {reason.reason}"


def _at(user_stack: Any) -> str:
    if not user_stack:
        return ""
    where = user_stack[-1]
    return f" at {where.filename}:{where.lineno} ({where.line})"


def _outer_frame(frames: list[FrameType]) -> str | None:
    """The code that runs in Python around the captured function, or None if that is what was compiled.

    After a break dynamo captures what is called from there, or the rest of a function, on its own. Such a graph has
    a frame between itself and the wrapper of ``torch.compile``.
    """
    callback = max(
        (i for i, f in enumerate(frames) if f.f_code.co_filename.endswith("convert_frame.py")),
        default=None,
    )
    if callback is None:
        return None
    for frame in frames[callback + 1 :]:
        name = frame.f_code.co_name
        if _is_in(frame, "compile_wrapper", "eval_frame"):
            return None
        if name not in _MODULE_CALL and "_dynamo" not in frame.f_code.co_filename:
            where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
            return f"dynamo captured only what {name} calls at {where}"
    return None


def _callers() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


def _is_in(frame: FrameType, function: str, module: str) -> bool:
    return frame.f_code.co_name == function and frame.f_code.co_filename.endswith(f"{module}.py")


def _variadic(code: CodeType) -> str | None:
    """The name of ``*args``."""
    if not code.co_flags & inspect.CO_VARARGS:
        return None
    return code.co_varnames[code.co_argcount + code.co_kwonlyargcount]
