"""``Placement``: what the rules decided, and which rule decided it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.fx import Node


@dataclass(frozen=True)
class WeightedOperator:
    """An operator that will multiply in INT8.

    Attributes:
        node: the operator.
        weight: the ``get_attr`` node of its weight.
        weight_axis: the output-channel axis, which gets a scale for each channel.
    """

    node: Node
    weight: Node
    weight_axis: int


@dataclass(frozen=True)
class Decision:
    """What one rule says of one operator.

    Attributes:
        rule: the rule's name.
        why: what it says, as a sentence or a phrase with the names in it.
    """

    rule: str
    why: str


@dataclass
class Placement:
    """What to quantize, and what not.

    Attributes:
        weighted: operators that multiply in INT8.
        readers: for each quantized value, the nodes that read it through Q/DQ, each with the decision that says so.
        groups: quantized values that share a scale.
        skipped: for each operator that was left out of INT8, the decision that says so.
    """

    weighted: list[WeightedOperator] = field(default_factory=list)
    readers: dict[Node, dict[Node, Decision]] = field(default_factory=dict)
    groups: list[tuple[Node, ...]] = field(default_factory=list)
    skipped: dict[Node, Decision] = field(default_factory=dict)

    def quantize(self, value: Node, reader: Node, decision: Decision) -> None:
        """Puts Q/DQ between a value and one of its readers; the first decision on the two stands."""
        self.readers.setdefault(value, {}).setdefault(reader, decision)
