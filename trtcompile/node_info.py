"""What a graph node is called and where it came from, for layer names, reports, and errors."""

from __future__ import annotations

import re
from typing import Any

from torch.fx import Node

#: Key of ``node.meta`` with the stable tensor name that calibration tables and layers use.
TENSOR_NAME = "tensor_name"

_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>\S+)\n\s*(?P<code>.*)'
)
_LIBRARY = ("/torch/", "<eval_with_key>")


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


def module_path(node: Node) -> str:
    """The path of the ``nn.Module`` that the node was traced from, such as ``features.0``; empty if unknown."""
    stack = node.meta.get("nn_module_stack") or {}
    entries = list(stack.values())
    return str(entries[-1][0]) if entries else ""


def source_line(node: Node) -> str:
    """``file:line  code`` of the user's innermost frame, PyTorch's own frames left out where possible."""
    frames = list(_FRAME.finditer(node.meta.get("stack_trace") or ""))
    own = [f for f in frames if not any(part in f["file"] for part in _LIBRARY)]
    if not frames:
        return "(no source line recorded)"
    frame = (own or frames)[-1]
    return f"{frame['file']}:{frame['line']}  {frame['code'].strip()}"


def copy_origin(source: Node, node: Node, value: Any) -> None:
    """Lets a new node inherit where ``source`` came from, and sets its value's metadata."""
    node.meta = {
        key: source.meta[key] for key in ("stack_trace", "nn_module_stack") if key in source.meta
    }
    node.meta["val"] = value
