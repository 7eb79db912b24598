"""How good outputs are: a metric of the user's, or how near they come to those without quantization."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from torch import Tensor
from torch.utils import _pytree as pytree

from trtcompile.errors import CalibrationError, SettingsError

#: ``metric(outputs, batch)``: a number for the outputs of one batch of the loader, given as the loader gave it.
MetricFunction = Callable[[Any, Any], float]
Metric = MetricFunction | Literal["sqnr", "agreement"]


class Score:
    """A metric over several batches: the mean of its values, weighted by their samples.

    Args:
        metric: ``"agreement"``, or a function.
        out_spec: the structure of the model's outputs.
    """

    def __init__(self, metric: MetricFunction | Literal["agreement"], out_spec: Any) -> None:
        self._metric = metric
        self._out_spec = out_spec
        self._sum = 0.0
        self._samples = 0

    def add(
        self, outputs: Sequence[Any], references: Sequence[Any], batch: Any, samples: int
    ) -> None:
        """Counts the flat outputs for one batch; ``references`` are those without quantization.

        Raises:
            SettingsError: the metric gives no number.
            CalibrationError: it gives NaN or infinity, or there is nothing that could agree.
        """
        if self._metric == "agreement":
            value: Any = _agreement(outputs, references)
        else:
            value = self._metric(pytree.tree_unflatten(list(outputs), self._out_spec), batch)
        self._sum += as_number(value) * samples
        self._samples += samples

    @property
    def value(self) -> float:
        """The mean."""
        return self._sum / self._samples


def as_number(value: Any) -> float:
    """What a metric returned, as a finite number.

    Raises:
        SettingsError: it is no number.
        CalibrationError: it is NaN or infinite.
    """
    if isinstance(value, (Tensor, np.ndarray)) and math.prod(value.shape) == 1:
        value = value.item()
    if not isinstance(value, numbers.Real):
        raise SettingsError(
            f"metric returned a {type(value).__name__}. Let metric(outputs, batch) return a number."
        )
    number = float(value)
    if not math.isfinite(number):
        raise CalibrationError(
            f"the metric is {number}. Check the labels of the data and the model's outputs."
        )
    return number


def check_metric(metric: Any) -> None:
    """Checks that something can be a metric.

    Raises:
        SettingsError: it cannot.
    """
    if metric not in ("sqnr", "agreement") and not callable(metric):
        raise SettingsError(
            f"metric is {metric!r}. Give a function metric(outputs, batch), 'sqnr', or 'agreement'."
        )


def _agreement(outputs: Sequence[Any], references: Sequence[Any]) -> float:
    """The share of classes, along dimension 1 of the first output, that are predicted as without quantization."""
    first, reference = outputs[0], references[0]
    if not isinstance(first, Tensor) or first.dim() < 2 or not first.is_floating_point():
        raise CalibrationError(
            "metric is 'agreement', but the model's first output is no tensor [samples, classes, ...] of floating "
            "point. Give a function metric(outputs, batch), or 'sqnr'."
        )
    return float((first.argmax(dim=1) == reference.argmax(dim=1)).double().mean())
