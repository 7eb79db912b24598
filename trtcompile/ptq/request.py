"""``CalibrationRequest``: what the compiler asks of a calibrator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from trtcompile.errors import CalibrationError


@dataclass(frozen=True, eq=False)
class Reader:
    """An operator that reads a tensor through Q/DQ.

    Attributes:
        node: the operator.
        weight: the ``get_attr`` node of a weight that is INT8 as well; None if it has none.
        weight_axis: the weight's output-channel axis, which gets a scale for each channel.
    """

    node: torch.fx.Node
    weight: torch.fx.Node | None = None
    weight_axis: int = 0


@dataclass(frozen=True, eq=False)
class CalibrationRequest:
    """A graph, and the tensors in it that need a scale.

    Attributes:
        graph: the lowered FP32 graph; flat placeholders, one for each ``Input`` leaf; a flat tuple
            as output; weights on the CPU. A calibrator must not change it.
        groups: names of tensors that share one scale; most groups have one name. The scale comes
            from the values of all ``measured`` members together, and every name gets it.
        nodes: tensor name -> the node whose value is observed. Two names may have one node.
        fingerprints: tensor name -> hash of everything that computes the tensor.
        graph_hash: identifies the whole graph.
        arguments: the parsed inputs, as ``trtcompile.inputs.parse_inputs`` returns them.
        device: where to calibrate unless the calibrator names a device.
        readers: tensor name -> the operators that read it quantized; where a name has none, what
            quantization does to the tensor itself is all that is known.
        carried: names of tensors whose values are those of other members of their groups. What is
            read quantized only to be moved, through a max pool, for example, nothing computes
            with, and what a pool drops needs no range. What is concatenated counts behind that.

    Raises:
        CalibrationError: a group is empty, a name is in two groups, or a name lacks its node or
            fingerprint.
    """

    graph: torch.fx.GraphModule
    groups: tuple[tuple[str, ...], ...]
    nodes: Mapping[str, torch.fx.Node]
    fingerprints: Mapping[str, str]
    graph_hash: str
    arguments: tuple[Any, ...]
    device: torch.device
    readers: Mapping[str, Sequence[Reader]] = field(default_factory=dict)
    carried: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        names = self.names
        if not all(self.groups) or len(set(names)) != len(names):
            raise CalibrationError(
                f"The calibration request has the groups {self.groups}: one is empty, or a tensor "
                "is in two. Name each tensor once."
            )
        missing = [n for n in names if n not in self.nodes or n not in self.fingerprints]
        if missing:
            raise CalibrationError(
                f"The calibration request has no node or no fingerprint for {missing}. Give both."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor that needs a scale, in the order of the groups."""
        return tuple(name for group in self.groups for name in group)

    @property
    def measured(self) -> tuple[tuple[str, ...], ...]:
        """Of each group, the tensors whose values decide its scale: those that are not ``carried``.

        The scale is the same on both sides of a max pool, and rounding and clipping never swap two
        values, so quantizing in front of the pool gives what quantizing behind it gives.
        """
        return tuple(
            tuple(name for name in group if name not in self.carried) or group
            for group in self.groups
        )
