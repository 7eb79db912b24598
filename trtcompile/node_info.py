"""What a graph node is called and where it came from, for layer names, reports, and errors."""

from __future__ import annotations

import contextlib
import linecache
import os
import re
import sys
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.fx import Node, traceback
from torch.overrides import TorchFunctionMode

#: Key of ``node.meta`` with the stable tensor name that calibration tables and layers use.
TENSOR_NAME = "tensor_name"
#: Key of ``node.meta`` of a layer that a norm was folded into, with the norm's ``nn_module_stack``: the layer now
#: computes what the norm did.
FOLDED_NORM = "folded_norm"

#: PyTorch's operators for integers, and this package's for FP8 and INT4.
_QDQ_NAMESPACES = frozenset(("quantized_decomposed", "trtcompile"))

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>.*)'
)
_TORCH = str(Path(torch.__file__).parent) + os.sep
_OWN = str(Path(__file__).parent) + os.sep
_GENERATED = (_TORCH, "<string>", "<eval_with_key>")
_CALLED_FROM = "trtcompile_called_from"

#: Properties of a tensor that are computed by operators; the others, and these methods, only tell what is known.
_COMPUTED = frozenset(("T", "H", "mT", "mH", "data", "grad", "imag", "real"))
_QUESTIONS = frozenset(
    ("dim", "numel", "size", "stride", "storage_offset", "untyped_storage", "_is_view")
) | frozenset(("is_conj", "is_inference", "is_neg"))


def layer_name(node: Node) -> str:
    """The name of the layers that a node becomes: its tensor name where it has one."""
    return str(node.meta.get(TENSOR_NAME, node.name))


def operator_name(node: Node) -> str:
    """``aten.relu.default`` and the like."""
    target = node.target
    if isinstance(target, str):
        return target
    text = str(target)
    return text if not text.startswith("<") else getattr(target, "__name__", text)


def is_one_of(node: Node, operators: Collection[str]) -> bool:
    """Whether operators, named as ``aten.relu.default`` or as ``aten.relu`` for every overload, include a node's."""
    name = operator_name(node)
    return name in operators or name.rpartition(".")[0] in operators


def is_qdq(node: Node) -> bool:
    """Whether a node quantizes or dequantizes, as PT2E and the quantize stage write it."""
    return getattr(node.target, "namespace", "") in _QDQ_NAMESPACES


def is_dequantize(node: Node) -> bool:
    """Whether a node dequantizes."""
    return is_qdq(node) and operator_name(node).partition(".")[2].startswith("dequantize")


def is_quantize(node: Node) -> bool:
    """Whether a node quantizes."""
    return is_qdq(node) and not is_dequantize(node)


def dequantized_from(value: object) -> torch.dtype | None:
    """The dtype that a value was dequantized from; None if it does not come straight from a dequantize node."""
    if not isinstance(value, Node) or not is_dequantize(value):
        return None
    (quantized, *_) = value.all_input_nodes
    dtype: torch.dtype = quantized.meta["val"].dtype
    return dtype


def module_path(node: Node) -> str:
    """The path of the ``nn.Module`` that the node was traced from, such as ``features.0``; empty if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return _as_path(entries[-1][0]) if entries else ""


def enclosing_modules(node: Node) -> list[str]:
    """The paths of all modules that the node was traced in, the outermost first; the model itself has none."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = (_as_path(path) for path, *_ in map(tuple, stack.values()))
    return [path for path in paths if path]


def _as_path(name: str) -> str:
    """``blocks.0`` for what dynamo calls ``L['self'].blocks.0``, as ``torch.export`` does."""
    return re.sub(r"^L\['self'\]\.?|^[LG]\['(\w+)'\]", r"\1", name)


class NotingSourceLines(TorchFunctionMode):
    """While a model is traced, notes in each node which line of the user's code called the operator.

    ``torch.export`` itself keeps only the frames of functions called ``forward``, and so not those of its helpers.
    It takes over the notes under ``torch.fx.traceback.preserve_node_meta``.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if (
            torch.compiler.is_dynamo_compiling()
        ):  # inside of torch.cond, where frames cannot be read
            return func(*args, **(kwargs or {}))
        if _is_question(func):
            return func(*args, **(kwargs or {}))
        frame: Any = sys._getframe(1)
        while frame is not None and frame.f_code.co_filename.startswith(_GENERATED):
            frame = frame.f_back
        if frame is None or frame.f_code.co_filename.startswith(_OWN):  # no code of the user
            return func(*args, **(kwargs or {}))
        with _noted(_CALLED_FROM, (frame.f_code.co_filename, frame.f_lineno)):
            return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def _noted(key: str, value: object) -> Iterator[None]:
    """What ``torch.fx.traceback.annotate`` does, which fails where another thread captures a graph meanwhile."""
    meta = traceback.current_meta
    before = meta.get("custom")
    meta["custom"] = {**(before or {}), key: value}
    try:
        yield
    finally:
        if before is None:
            meta.pop("custom", None)
        else:
            meta["custom"] = before


def _is_question(function: Any) -> bool:
    """Whether a function makes no node; tracing calls it more often than all operators together."""
    name = getattr(function, "__name__", "")
    if name == "__get__":
        return getattr(function.__self__, "__name__", "") not in _COMPUTED
    return name in _QUESTIONS


def source_line(node: Node) -> str:
    """``file:line  code`` of the user's innermost frame, PyTorch's own frames left out where possible."""
    noted = (node.meta.get("custom") or {}).get(_CALLED_FROM)
    if noted is not None:
        file, line = noted
        return f"{file}:{line}  {linecache.getline(file, line).strip()}"
    trace = _FRAME.finditer(node.meta.get("stack_trace") or "")
    frames = [frame for frame in trace if not frame["file"].startswith("<eval_with_key>")]
    if not frames:
        return "(no source line recorded)"
    own = [f for f in frames if not f["file"].startswith(_TORCH)]
    frame = (own or frames)[-1]
    return f"{frame['file']}:{frame['line']}  {frame['code'].strip()}"


def copy_origin(source: Node, node: Node, value: Any) -> None:
    """Lets a new node inherit where ``source`` came from, and sets its value's metadata."""
    kept = ("stack_trace", "nn_module_stack", "custom")
    node.meta = {key: source.meta[key] for key in kept if key in source.meta}
    node.meta["val"] = value
