"""Nested containers <-> JSON.

PyTorch's own ``treespec_loads`` is not used: it imports whatever module a text names.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from torch.fx.immutable_collections import immutable_dict, immutable_list
from torch.utils import _pytree as pytree

from trtcompile.runtime.serialization.json_values import MalformedError, as_list, shown

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
    for key in tree:
        if type(key) not in _KEY_TYPES or (isinstance(key, float) and not math.isfinite(key)):
            raise UnsavableError(f"a dictionary with the key {shown(key)}")
    return {tag: [[key, tree_to_json(item, leaf_to_json)] for key, item in tree.items()]}


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
        UnsavableError: it has containers other than tuples, lists, dictionaries, and PyTorch's return types.
    """
    leaf = object()

    def leaf_to_json(value: Any) -> str:
        if value is not leaf:
            kind = type(value)
            raise UnsavableError(f"a container of the type {kind.__module__}.{kind.__qualname__}")
        return _LEAF

    return tree_to_json(pytree.tree_unflatten([leaf] * spec.num_leaves, spec), leaf_to_json)


def treespec_from_json(value: Any) -> pytree.TreeSpec:
    """The inverse of ``treespec_to_json``.

    Raises:
        MalformedError: the value is not what ``treespec_to_json`` writes.
    """

    def leaf_from_json(leaf: Any) -> int:
        if leaf != _LEAF:
            raise MalformedError(f"{shown(leaf)} is not a container that a file may have")
        return 0

    return pytree.tree_structure(tree_from_json(value, leaf_from_json))
