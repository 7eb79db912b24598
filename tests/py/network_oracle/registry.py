"""The table from layer type to the function that evaluates it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from network_oracle.layer_view import LayerView

Result = torch.Tensor | Sequence[torch.Tensor]
Evaluate = Callable[[LayerView], Result]


@dataclass(frozen=True)
class Handler:
    """How one layer type is evaluated.

    Attributes:
        class_name: the TensorRT class that holds the layer's attributes.
        evaluate: computes the outputs from a LayerView.
        rounds_to: input whose dtype a floating-point output is rounded to; None where the
            function returns its final dtypes itself.
        same_type: inputs that must have one common dtype, as strong typing demands; None for
            all of them.
    """

    class_name: str
    evaluate: Evaluate
    rounds_to: int | None
    same_type: tuple[int, ...] | None


HANDLERS: dict[str, Handler] = {}


def handles(
    kind: str,
    class_name: str,
    *,
    rounds_to: int | None = 0,
    same_type: tuple[int, ...] | None = (),
) -> Callable[[Evaluate], Evaluate]:
    """Register the decorated function for ``trt.LayerType`` ``kind``."""

    def register(evaluate: Evaluate) -> Evaluate:
        HANDLERS[kind] = Handler(class_name, evaluate, rounds_to, same_type)
        return evaluate

    return register
