"""Groups of nodes that belong together."""

from __future__ import annotations

from collections.abc import Iterable

from torch.fx import Node


def connected(members: Iterable[Node], pairs: Iterable[tuple[Node, Node]]) -> list[list[Node]]:
    """Groups of nodes that pairs connect, directly or through others, which need not be members.

    Args:
        members: what is grouped; those that nothing connects are groups of one.
        pairs: nodes that belong together.

    Returns:
        The groups by their first members, each with its members in order.
    """
    parent: dict[Node, Node] = {}

    def root(node: Node) -> Node:
        while parent.setdefault(node, node) is not node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    for one, other in pairs:
        parent[root(one)] = root(other)
    groups: dict[Node, list[Node]] = {}
    for node in members:
        groups.setdefault(root(node), []).append(node)
    return list(groups.values())
