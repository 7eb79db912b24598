"""``within_budget``: the fewest layers to keep in higher precision so that a metric drops no further than allowed."""

from __future__ import annotations

import math
import numbers
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq.analysis.data import Simulated, loader_batches
from trtcompile.ptq.analysis.evaluate import Evaluation, Quality
from trtcompile.ptq.analysis.layers import quantized_layers
from trtcompile.ptq.analysis.scores import Metric, check_metric
from trtcompile.ptq.analysis.switched import SwitchedSimulation
from trtcompile.ptq.arguments import check_bool, check_dataloader, check_max_batches, device_of


@dataclass(frozen=True)
class BudgetTrial:
    """One choice of layers that was measured.

    Attributes:
        excluded: the layers that were not quantized.
        metric: the metric.
        drop: how much worse it was than without quantization.
    """

    excluded: frozenset[str]
    metric: float
    drop: float


@dataclass(frozen=True)
class BudgetSearch:
    """What ``within_budget`` found.

    Attributes:
        excluded: names of the layers to keep in higher precision, for ``int8_excluded_nodes``.
        metric_reference: the metric without quantization.
        metric: the metric with all layers quantized but these.
        drop: how much worse that is; at most the budget, but for rounding.
        budget: the drop that was allowed.
        trials: the choices that were tried, in order, beginning with all layers quantized.
    """

    excluded: frozenset[str]
    metric_reference: float
    metric: float
    drop: float
    budget: float
    trials: tuple[BudgetTrial, ...]

    def __str__(self) -> str:
        kept = ", ".join(sorted(self.excluded)) or "no layer"
        tried = f"{len(self.trials)} choice{'' if len(self.trials) == 1 else 's'} tried"
        return (
            f"{kept} kept out of INT8: metric {self.metric:.4g}, {self.metric_reference:.4g} without quantization "
            f"(drop {self.drop:.4g}, allowed {self.budget:.4g}; {tried})"
        )


def within_budget(
    compiled: Simulated,
    loader: Iterable[Any],
    metric: Metric,
    *,
    budget: float,
    higher_is_better: bool = True,
    max_batches: int | None = None,
    device: torch.device | str | None = None,
) -> BudgetSearch:
    """Finds the fewest layers to keep in higher precision so that the metric stays within the budget.

    The search runs on the simulation by switching Q/DQ off, so nothing is compiled. Layers are sorted by the metric
    with only that layer quantized, and by the noise in the outputs where the metric ties. The smallest number of most
    sensitive layers that suffices is found by bisection, and then each of them, the least sensitive first, is quantized
    again if the metric bears it. What is returned was measured on the data as it is. It is the smallest set wherever
    leaving out a more sensitive layer helps at least as much; finding it in general would take a trial of every set.

    Costs ``layers + 2`` runs of each batch, then one for each choice tried, in about ``log2(layers)`` passes over the
    loader and one more for each layer found.

    Args:
        compiled: a module compiled for INT8 with ``keep_lowered=True``, or what ``trtcompile.simulate`` returns.
        loader: yields the same batches in each pass, with labels; see ``analyze``.
        metric: a function, or ``"agreement"``; see ``analyze``.
        budget: how much worse than without quantization the metric may be, in its unit: 0.002 for 0.2 points of an
            accuracy from 0 to 1.
        higher_is_better: False for a metric of which less is better, such as a loss. With the wrong direction, what
            quantization does to it counts as an improvement, and nothing is left out.
        max_batches: how many batches of the loader to use; None for all.
        device: where to run; None for the current CUDA device if there is one, else the CPU.

    Raises:
        SettingsError: an argument has the wrong type or value, or the metric returns no number.
        CalibrationError: as for ``analyze``; or the metric is not within the budget even with no layer quantized,
            because it differs between runs.
    """
    check_search(loader, metric, budget, higher_is_better, max_batches)
    where = device_of(device)
    structure = quantized_layers(compiled.lowered)
    simulation = SwitchedSimulation(compiled.lowered, structure, where)

    def measure(choices: Sequence[Collection[str]]) -> tuple[float, list[Quality]]:
        evaluation = Evaluation(simulation, choices, metric)
        for batch in loader_batches(loader, compiled.arguments, where, max_batches):
            evaluation.add(batch)
        return evaluation.reference, evaluation.results

    names = structure.names
    reference, (whole, *alone) = measure([names, *((name,) for name in names)])
    sign = 1.0 if higher_is_better else -1.0
    harm = {
        name: (sign * (reference - quality.metric), quality.noise_share)
        for name, quality in zip(names, alone, strict=True)
    }
    ranked = sorted(names, key=lambda name: harm[name], reverse=True)
    search = _Search(measure, names, sign, budget)
    search.remember((), reference, whole)
    excluded = search.put_back(search.bisect(ranked), ranked)
    found = search.trials[excluded]
    return BudgetSearch(
        excluded=excluded,
        metric_reference=search.reference,
        metric=found.metric,
        drop=found.drop,
        budget=float(budget),
        trials=tuple(search.trials.values()),
    )


def check_search(
    loader: object, metric: Metric, budget: object, higher_is_better: object, max_batches: object
) -> None:
    """Checks the arguments of a search, before any work is done.

    Raises:
        SettingsError: one has the wrong type or value.
    """
    check_metric(metric)
    if metric == "sqnr":
        raise SettingsError(
            "metric is 'sqnr', of which there is no value without quantization to stay near. Give a function "
            "metric(outputs, batch), or 'agreement'."
        )
    check_dataloader(loader, "loader")
    check_bool("higher_is_better", higher_is_better)
    check_max_batches(max_batches)
    is_number = isinstance(budget, numbers.Real) and not isinstance(budget, bool)
    if not is_number or not 0 <= budget < math.inf:  # type: ignore[operator]
        raise SettingsError(
            f"budget is {budget!r}. Give the drop of the metric that is allowed, as a number of at least 0."
        )


class _Search:
    """Trials by the layers they exclude, each measured once."""

    def __init__(self, measure: Any, names: Sequence[str], sign: float, budget: float) -> None:
        self._measure = measure
        self._names = names
        self._sign = sign
        self._budget = budget
        self.reference = 0.0
        self.trials: dict[frozenset[str], BudgetTrial] = {}

    def remember(self, excluded: Iterable[str], reference: float, quality: Quality) -> None:
        self.reference = reference
        drop = self._sign * (reference - quality.metric)
        trial = BudgetTrial(frozenset(excluded), quality.metric, drop)
        self.trials[trial.excluded] = trial

    @property
    def _rounding(self) -> float:
        """What a difference of two means may be off by: 0.9 - 0.898 is more than 0.002."""
        return 1e-12 * max(abs(self.reference), self._budget)

    def suffices(self, excluded: Iterable[str]) -> bool:
        """Whether the metric is within the budget with these layers left out."""
        key = frozenset(excluded)
        if key not in self.trials:
            quantized = [name for name in self._names if name not in key]
            reference, (quality,) = self._measure([quantized])
            self.remember(key, reference, quality)
        return self.trials[key].drop <= self._budget + self._rounding

    def bisect(self, ranked: Sequence[str]) -> frozenset[str]:
        """The smallest number of the first layers that suffices, as far as more of them never hurt."""
        if self.suffices(()):
            return frozenset()
        too_few, enough = 0, len(ranked)
        while enough - too_few > 1:
            middle = (too_few + enough) // 2
            if self.suffices(ranked[:middle]):
                enough = middle
            else:
                too_few = middle
        if not self.suffices(ranked[:enough]):
            raise CalibrationError(
                f"the metric is not within {self._budget:g} of itself with no layer quantized, so it differs between "
                "runs. Let the metric and the order of the data be the same in each pass over the loader."
            )
        return frozenset(ranked[:enough])

    def put_back(self, excluded: frozenset[str], ranked: Sequence[str]) -> frozenset[str]:
        """Quantizes again what can be, the least sensitive first."""
        for name in reversed(ranked):
            if name in excluded and self.suffices(excluded - {name}):
                excluded = excluded - {name}
        return excluded
