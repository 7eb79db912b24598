from __future__ import annotations

import math

import pytest
import torch
from metrics import geometric_mean, median_of_medians, spread, sqnr_db, top1, worst_sqnr_db


def test_sqnr_of_known_signal_and_noise():
    # Deviations from the mean: +-3 and +-4 in the two columns, so a signal of 2 * (9 + 16) = 50.
    reference = torch.tensor([[10.0, 0.0], [4.0, 8.0]])
    actual = reference + torch.tensor([[1.0, 0.0], [0.0, -2.0]])  # noise 5
    assert sqnr_db(reference, actual) == pytest.approx(10 * math.log10(50 / 5))


def test_sqnr_ignores_a_constant_part_of_the_reference_but_not_of_the_error():
    generator = torch.Generator().manual_seed(0)
    reference = torch.randn(64, 10, generator=generator)
    noise = 0.1 * torch.randn(64, 10, generator=generator)
    plain = sqnr_db(reference, reference + noise)
    assert sqnr_db(reference + 100, reference + 100 + noise) == pytest.approx(plain, abs=1e-3)
    assert sqnr_db(reference, reference + 1) < 1


def test_sqnr_of_unrelated_outputs_is_below_every_bound():
    generator = torch.Generator().manual_seed(0)
    reference, other = torch.randn(2, 64, 10, generator=generator)
    assert sqnr_db(reference, other) < 0
    assert sqnr_db(reference, torch.zeros_like(reference)) < 0.5


def test_sqnr_of_the_worst_sample():
    # A signal of 25 in each sample, noise of 1 in the first and 4 in the second.
    reference = torch.tensor([[10.0, 0.0], [4.0, 8.0]])
    actual = reference + torch.tensor([[1.0, 0.0], [0.0, -2.0]])
    assert worst_sqnr_db(reference, actual) == pytest.approx(10 * math.log10(25 / 4))
    assert worst_sqnr_db(reference, reference) == 200
    assert worst_sqnr_db(reference, reference * math.nan) == -200


def test_sqnr_limits():
    reference = torch.tensor([[1.0], [2.0]])
    assert sqnr_db(reference, reference.clone()) == 200
    assert sqnr_db(reference, torch.tensor([[1.0], [math.nan]])) == -200
    assert sqnr_db(reference, torch.tensor([[1.0], [math.inf]])) == -200


@pytest.mark.parametrize("shape", [(1, 10), (4, 10)])
def test_sqnr_refuses_a_reference_that_does_not_vary(shape):
    with pytest.raises(ValueError, match="at least two samples"):
        sqnr_db(torch.ones(shape), torch.ones(shape))


def test_sqnr_refuses_different_shapes():
    with pytest.raises(ValueError, match=r"\[2, 3\] and \[2, 1\]"):
        sqnr_db(torch.rand(2, 3), torch.rand(2, 1))


def test_top1_counts_equal_predictions():
    reference = torch.eye(10)
    actual = torch.eye(10)
    actual[3] = torch.eye(10)[4]
    result = top1(reference, actual)
    assert (result.agreement, result.classes, result.largest_share) == (0.9, 10, 0.1)
    assert result.counts


@pytest.mark.parametrize(
    "classes", [torch.arange(9), torch.cat([torch.zeros(6), torch.arange(12)])]
)
def test_top1_does_not_count_with_few_or_dominating_classes(classes):
    logits = torch.nn.functional.one_hot(classes.long(), 12)
    assert not top1(logits, logits).counts


def test_medians_of_builds_then_of_rounds():
    # The middle build decides, however many rounds the others have.
    assert median_of_medians([[1.0, 9.0, 1.0], [2.0, 2.0], [5.0] * 9]) == 2.0


def test_geometric_mean_and_spread():
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)
    values = spread([float(value) for value in range(101)])
    assert values == {"count": 101, "median": 50, "p5": 5, "p95": 95, "min": 0, "max": 100}
