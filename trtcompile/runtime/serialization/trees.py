"""Nested containers <-> JSON.

PyTorch's own ``treespec_loads`` is not used: it imports whatever module a text names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_list,
    as_text,
    dump,
    parse,
    shown,
)

_SEQUENCES: dict[str, Callable[[list[Any]], Any]] = {
    "tuple": tuple,
    "list": list,
    # What torch.max(x, dim=1) and the like return.
    **{f"torch.return_types.{kind.__name__}": kind for kind in torch.return_types.all_return_types},
}
_MAPPINGS: dict[str, Callable[[list[tuple[Any, Any]]], Any]] = {
    "dict": dict,
    "ordered_dict": OrderedDict,
}
_TAGS: dict[Any, str] = {
    **{kind: tag for tag, kind in _SEQUENCES.items()},
    **{kind: tag for tag, kind in _MAPPINGS.items()},
    # The forms that torch.fx gives to arguments of nodes.
    immutable_list: "list",
    immutable_dict: "dict",
    torch.Size: "tuple",
}
_KEY_TYPES = (str, int, float, bool, type(None))
_LEAF = "*"
_DATACLASS = "dataclass"


class UnsavableError(Exception):
    """A value has no form in a file; ``save`` says where it is."""


def tree_to_json(tree: Any, leaf_to_json: Callable[[Any], Any]) -> Any:
    """A tree of tuples, lists, and dictionaries as JSON: a container is ``{tag: items}``.

    Args:
        tree: the tree.
        leaf_to_json: called with each leaf; must return no ``{tag: ...}`` with a container's tag.

    Raises:
        UnsavableError: a dictionary's key is not a string, number, or None.
    """
    tag = _TAGS.get(type(tree))
    if tag is None:
        return leaf_to_json(tree)
    if tag in _SEQUENCES:
        return {tag: [tree_to_json(item, leaf_to_json) for item in tree]}
    return {
        tag: [[_checked_key(key), tree_to_json(item, leaf_to_json)] for key, item in tree.items()]
    }


def _checked_key(key: Any) -> Any:
    if type(key) not in _KEY_TYPES or (isinstance(key, float) and not math.isfinite(key)):
        raise UnsavableError(f"a dictionary with the key {shown(key)}")
    return key


def tree_from_json(value: Any, leaf_from_json: Callable[[Any], Any]) -> Any:
    """The inverse of ``tree_to_json``.

    Raises:
        MalformedError: the value is not what ``tree_to_json`` writes.
    """
    tag, content = _tagged(value)
    if tag in _SEQUENCES:
        return _SEQUENCES[tag]([tree_from_json(item, leaf_from_json) for item in as_list(content)])
    if tag in _MAPPINGS:
        pairs = [_key_and_item(pair) for pair in as_list(content)]
        return _MAPPINGS[tag]([(key, tree_from_json(item, leaf_from_json)) for key, item in pairs])
    return leaf_from_json(value)


def _tagged(value: Any) -> tuple[str, Any]:
    if isinstance(value, dict) and len(value) == 1:
        ((tag, content),) = value.items()
        return tag, content
    return "", None


def _key_and_item(pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) not in _KEY_TYPES:
        raise MalformedError(f"{shown(pair)} stands where a key and its value should")
    return pair[0], pair[1]


def treespec_to_json(spec: pytree.TreeSpec) -> Any:
    """The structure of a pytree as JSON.

    Raises:
        UnsavableError: it has containers other than tuples, lists, dictionaries, PyTorch's return types, and registered
            dataclasses.
    """
    if spec.is_leaf():
        return _LEAF
    children = [treespec_to_json(child) for child in spec.children()]
    tag = _TAGS.get(spec.type)
    if tag in _SEQUENCES:
        return {tag: children}
    if tag in _MAPPINGS:
        return {tag: [[_checked_key(k), c] for k, c in zip(spec.context, children, strict=True)]}
    kind: Any = spec.type
    if is_dataclass(kind):
        return {_DATACLASS: [_type_name(kind), _checked_context(spec), children]}
    if isinstance(spec.context, type):  # of a named tuple: which
        kind = spec.context
    raise UnsavableError(f"a container of the type {_type_name(kind)}")


def treespec_from_json(value: Any) -> pytree.TreeSpec:
    """The inverse of ``treespec_to_json``. Dataclasses are those that are registered here; none is imported.

    Raises:
        MalformedError: the value is not what ``treespec_to_json`` writes, or a dataclass is not registered here.
    """
    if value == _LEAF:
        return pytree.treespec_leaf()
    tag, content = _tagged(value)
    if tag == _DATACLASS:
        name, context, children = _three(content)
        read = [treespec_from_json(child) for child in as_list(children)]
        return pytree.TreeSpec(_registered_dataclass(as_text(name)), context, read)
    if tag in _SEQUENCES:
        read = [treespec_from_json(child) for child in as_list(content)]
        like = _SEQUENCES[tag]([0] * len(read))
    elif tag in _MAPPINGS:
        pairs = [_key_and_item(pair) for pair in as_list(content)]
        read = [treespec_from_json(child) for _, child in pairs]
        like = _MAPPINGS[tag]([(key, 0) for key, _ in pairs])
    else:
        raise MalformedError(f"{shown(value)} is not a container that a file may have")
    flat = pytree.tree_structure(like)
    return pytree.TreeSpec(flat.type, flat.context, read)


def _type_name(kind: Any) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _checked_context(spec: pytree.TreeSpec) -> Any:
    """What PyTorch keeps of a dataclass beside its values: the names of its fields."""
    try:
        same = parse(dump(spec.context)) == spec.context
    except (TypeError, ValueError):
        same = False
    if not same:
        raise UnsavableError(f"a {_type_name(spec.type)} of {shown(spec.context)}")
    return spec.context


def _registered_dataclass(name: str) -> type:
    kinds = [k for k in pytree.SUPPORTED_NODES if _type_name(k) == name and is_dataclass(k)]
    if len(kinds) != 1:
        found = "more than one is" if kinds else "no such dataclass is"
        raise MalformedError(
            f"it returns a {name}, and {found} registered with PyTorch here",
            "Import the module that defines and registers it before loading.",
        )
    return kinds[0]


def _three(value: Any) -> list[Any]:
    items = as_list(value)
    if len(items) != 3:
        raise MalformedError(f"{shown(value)} stands where a dataclass should")
    return items
