"""The search for the fewest layers to leave out: against brute force, and on a model with one bad layer."""

from __future__ import annotations

import itertools
from collections.abc import Collection
from typing import Any

import numpy as np
import pytest
import torch
from simulated import simulated
from small_models import Outlier
from torch import Tensor

from trtcompile.compiler import Simulation
from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq import within_budget
from trtcompile.ptq.analysis.budget import _Search
from trtcompile.ptq.analysis.evaluate import Quality


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def outlier() -> Simulation:
    return simulated(Outlier(), [(4, 8)], [vectors(32)])


def error(outputs: Tensor, batch: Tensor) -> Tensor:
    """Mean squared error against the model, relative to its variance: 0 is best."""
    with torch.no_grad():
        expected = Outlier()(batch)
    return (outputs - expected).square().mean() / expected.var()


class TestOneBadLayer:
    @pytest.mark.parametrize("direction", [1, -1], ids=["less is better", "more is better"])
    def test_it_is_the_one_left_out(self, outlier: Simulation, direction: int) -> None:
        search = within_budget(
            outlier,
            [vectors(16, seed=1)],
            lambda outputs, batch: direction * error(outputs, batch),
            budget=0.01,
            higher_is_better=direction < 0,
        )
        assert search.excluded == {"linear_1"}
        assert 0 < search.drop <= 0.01 < search.trials[0].drop
        assert search.metric_reference == pytest.approx(0, abs=1e-6)
        assert search.metric == pytest.approx(direction * search.drop, abs=1e-6)
        assert "linear_1 kept out of INT8" in str(search)

    def test_what_is_said_is_what_was_measured(self, outlier: Simulation) -> None:
        """The metric of the simulation that is placed without the layer."""
        data = vectors(16, seed=1)
        search = within_budget(outlier, [data], error, budget=0.01, higher_is_better=False)
        without = simulated(Outlier(), [(4, 8)], [vectors(32)], int8_excluded_nodes=search.excluded)
        outputs = torch.cat([without.lowered(part) for part in data.split(4)])
        assert float(error(outputs, data)) == pytest.approx(search.metric, rel=1e-4)

    def test_enough_budget_leaves_out_nothing(self, outlier: Simulation) -> None:
        search = within_budget(outlier, [vectors(8)], error, budget=100, higher_is_better=False)
        assert search.excluded == frozenset() and len(search.trials) == 1
        assert "no layer kept out" in str(search) and "; 1 choice tried)" in str(search)

    def test_no_budget_leaves_out_everything_that_costs_anything(self, outlier: Simulation) -> None:
        search = within_budget(outlier, [vectors(8)], error, budget=0, higher_is_better=False)
        assert search.excluded == {"linear", "linear_1", "linear_2"}
        assert search.drop == 0

    @pytest.mark.parametrize("kind", [np.float32, np.float64, int])
    def test_numbers_of_any_kind(self, outlier: Simulation, kind: type) -> None:
        def metric(outputs: Tensor, batch: Tensor) -> Any:
            return np.asarray(float(error(outputs, batch)))  # an array without dimensions

        search = within_budget(
            outlier, [vectors(8)], metric, budget=kind(100), higher_is_better=False
        )
        assert search.budget == 100.0 and type(search.budget) is float
        assert 0 < search.drop == search.metric - search.metric_reference

    def test_agreement_needs_no_labels(self, outlier: Simulation) -> None:
        search = within_budget(outlier, [vectors(64, seed=2)], "agreement", budget=0.05)
        assert search.trials[0].drop > 0.05 >= search.drop
        assert search.excluded == {"linear_1"}


def synthetic(
    harm: dict[str, float], budget: float, joint: dict[frozenset[str], float] | None = None
) -> tuple[frozenset[str], _Search]:
    """Searches where the drop is the sum of the harm of each quantized layer, and of pairs quantized together."""

    def measure(choices: Any) -> tuple[float, list[Quality]]:
        return 1.0, [Quality(1.0 - drop(on), 0.0, 0.0) for on in choices]

    def drop(on: Collection[str]) -> float:
        pairs = (cost for pair, cost in (joint or {}).items() if pair <= set(on))
        return sum(harm[name] for name in on) + sum(pairs)

    names = list(harm)
    ranked = sorted(names, key=lambda name: harm[name], reverse=True)
    search = _Search(measure, names, 1.0, budget)
    _, (whole,) = measure([names])
    search.remember((), 1.0, whole)
    return search.put_back(search.bisect(ranked), ranked), search


@pytest.mark.parametrize("budget", [0.0, 0.01, 0.05, 0.1, 0.2, 0.5, 0.9, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_no_smaller_set_would_do(seed: int, budget: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    harm = {f"layer_{i}": float(torch.rand((), generator=generator) ** 3) for i in range(7)}
    excluded, search = synthetic(harm, budget)
    sizes = [
        size
        for size in range(8)
        for chosen in itertools.combinations(harm, size)
        if sum(value for name, value in harm.items() if name not in chosen) <= budget
    ]
    assert len(excluded) == min(sizes)
    assert search.trials[excluded].drop <= budget
    assert len(search.trials) <= 1 + 3 + len(excluded) + 1


def test_a_layer_that_was_left_out_for_nothing_is_put_back() -> None:
    """Alone ``b`` is the worst but one, but ``a`` and ``c`` cost most when quantized together."""
    harm = {"a": 0.01, "b": 0.04, "c": 0.005, "d": 0.001}
    excluded, _ = synthetic(harm, 0.05, {frozenset("ac"): 0.5})
    assert excluded == {"a"}


def test_rounding_is_not_over_budget() -> None:
    """Two samples of a thousand: 0.9 - 0.898 is 0.0020000000000000018 in floating point."""
    assert 0.9 - 0.898 > 0.002
    search = _Search(None, ["a"], 1.0, 0.002)
    search.remember((), 0.9, Quality(0.898, 0.0, 0.0))
    assert search.suffices(())
    search.remember((), 0.9, Quality(0.897999, 0.0, 0.0))
    assert not search.suffices(())


class TestRefusals:
    @pytest.mark.parametrize("budget", [-0.1, float("nan"), float("inf"), "0.2", True, None])
    def test_budgets(self, outlier: Simulation, budget: Any) -> None:
        with pytest.raises(SettingsError, match="budget is"):
            within_budget(outlier, [vectors(4)], "agreement", budget=budget)

    def test_a_loader_that_runs_once(self, outlier: Simulation) -> None:
        with pytest.raises(SettingsError, match=r"^loader is a list_iterator"):
            within_budget(outlier, iter([vectors(4)]), "agreement", budget=0.1)

    def test_a_ratio_has_no_value_to_stay_near(self, outlier: Simulation) -> None:
        with pytest.raises(SettingsError, match="metric is 'sqnr'"):
            within_budget(outlier, [vectors(4)], "sqnr", budget=0.1)

    def test_a_metric_that_differs_between_runs(self, outlier: Simulation) -> None:
        values = itertools.count()
        with pytest.raises(CalibrationError, match="differs between runs"):
            within_budget(outlier, [vectors(4)], lambda *_: -next(values), budget=0)
