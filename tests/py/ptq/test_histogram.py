"""AbsHistogram against an independent count, and its indifference to order, split, and merge."""

from __future__ import annotations

import itertools
import math
import pickle
import random

import numpy as np
import pytest
import torch
from cuda_waits import waiting_is_an_error
from hypothesis import example, given
from hypothesis import strategies as st

from trtcompile.errors import CalibrationError
from trtcompile.ptq.histogram import BINS, MIN_EXPONENT, AbsHistogram
from trtcompile.ptq.observer import FiniteCheck

FLOAT32_MAX = float(np.finfo(np.float32).max)

finite_float32 = st.one_of(
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.integers(-149, 127).map(lambda e: math.ldexp(1.0, e)),
    st.integers(-125, 128).map(lambda e: math.ldexp(1.0 - 2.0**-24, e)),
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0**-149, FLOAT32_MAX, -FLOAT32_MAX]),
)
value_lists = st.lists(finite_float32, max_size=60)


def histogram_of(*tensors: torch.Tensor) -> AbsHistogram:
    histogram = AbsHistogram()
    for tensor in tensors:
        histogram.update(tensor)
    return histogram


def exact_counts(values: list[float]) -> tuple[int, dict[int, int]]:
    """Range exponent and occupied bins, by exact arithmetic."""
    exponent = MIN_EXPONENT
    while any(abs(value) >= 2.0**exponent for value in values):
        exponent += 1
    counts: dict[int, int] = {}
    for value in values:
        numerator, denominator = abs(value).as_integer_ratio()
        width = exponent - 11
        bin_ = (numerator << max(-width, 0)) // (denominator << max(width, 0))
        counts[bin_] = counts.get(bin_, 0) + 1
    return exponent, counts


def occupied(histogram: AbsHistogram) -> dict[int, int]:
    counts = histogram.counts
    return {int(bin_): int(counts[bin_]) for bin_ in counts.nonzero().flatten()}


def test_several_made_together_count_apart() -> None:
    values = [torch.randn(100, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    histograms = AbsHistogram.several(3, torch.device("cpu"))
    for histogram, shown in zip(histograms, values, strict=True):
        histogram.update(shown)
    assert histograms == [histogram_of(shown) for shown in values]
    assert AbsHistogram.several(0, torch.device("cpu")) == []


@given(value_lists)
@example([FLOAT32_MAX, 2.0**-149])
@example([2.0**-101, 2.0**-100])
@example([1.0, math.nextafter(1.0, 0.0)])
def test_counts_are_exact(values: list[float]) -> None:
    tensor = torch.tensor(values, dtype=torch.float32)
    histogram = histogram_of(tensor)
    exponent, counts = exact_counts(tensor.tolist())
    assert histogram.exponent == exponent
    assert occupied(histogram) == counts
    assert histogram.amax == max(map(abs, tensor.tolist()), default=0.0)
    assert histogram.total == len(values)


@given(value_lists, st.lists(st.integers(0, 60), max_size=5), st.randoms())
def test_order_split_and_merge_do_not_matter(
    values: list[float], cuts: list[int], rng: random.Random
) -> None:
    whole = histogram_of(torch.tensor(values, dtype=torch.float32))
    shuffled = rng.sample(values, len(values))
    edges = [0, *sorted(min(cut, len(values)) for cut in cuts), len(values)]
    parts = [torch.tensor(shuffled[a:b], dtype=torch.float32) for a, b in itertools.pairwise(edges)]
    split = histogram_of(*parts)
    merged = AbsHistogram()
    for part in parts:
        merged.merge(histogram_of(part))
    assert split == whole
    assert merged == whole
    assert torch.equal(merged.counts, whole.counts)


@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn], ids=lambda d: str(d)[6:]
)
def test_small_floats_are_counted_as_their_float32_values(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    values = (torch.randn(5000, generator=generator) * 30).to(dtype)
    assert histogram_of(values) == histogram_of(values.float())


@pytest.mark.parametrize(
    "dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool, torch.float64]
)
def test_other_types_are_counted_as_float32(dtype: torch.dtype) -> None:
    values = torch.tensor([0, 1, 3, 100]).to(dtype)
    assert histogram_of(values) == histogram_of(values.to(torch.float32))


def test_the_most_negative_integer() -> None:
    assert histogram_of(torch.tensor([-(2**63)])).amax == 2.0**63
    assert histogram_of(torch.tensor([-128], dtype=torch.int8)).amax == 128.0


def test_many_values_cross_chunks_and_growth() -> None:
    generator = torch.Generator().manual_seed(1)
    parts = [torch.randn(300_001, generator=generator) * 10.0**k for k in (-3, 2, 0, 1)]
    histogram = histogram_of(*parts)
    values = torch.cat(parts).double().abs().numpy()
    exponent = math.frexp(values.max())[1]
    bins = np.floor(values * 2.0 ** (11 - exponent)).astype(np.int64)
    assert histogram.exponent == exponent
    assert np.array_equal(histogram.counts.numpy(), np.bincount(bins, minlength=BINS))
    assert histogram == histogram_of(*reversed(parts))


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "strided", "expanded"])
def test_memory_layout_does_not_matter(layout: str) -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(2, 3, 8, 10, generator=generator)
    changed = {
        "channels_last": values.to(memory_format=torch.channels_last),
        "transposed": values.transpose(1, 3),
        "strided": values[:, :, ::2],
        "expanded": values[:1].expand(4, -1, -1, -1),
    }[layout]
    assert histogram_of(changed) == histogram_of(changed.contiguous())


def test_counts_beyond_float32_and_int32() -> None:
    """2**24 + 1 is where float32 counts stop; int32 would overflow at 2**31."""
    histogram = histogram_of(torch.ones(3))
    for _ in range(33):
        histogram.merge(histogram)
    assert histogram.total == 3 << 33
    assert occupied(histogram) == {1024: 3 << 33}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("relu", [False, True])
def test_threads_count_the_same(dtype: torch.dtype, relu: bool) -> None:
    values = torch.randn(1_000_003, generator=torch.Generator().manual_seed(1)).to(dtype) * 3
    values = values.relu() if relu else values
    bins = (values.float().abs().double() * (BINS / 16)).long()
    expected = torch.zeros(BINS, dtype=torch.int64).index_add_(0, bins, torch.ones_like(bins))
    threads = torch.get_num_threads()
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            histogram = AbsHistogram()
            histogram.update(values)
            assert histogram.exponent == 4
            assert torch.equal(histogram.counts, expected)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_values_are_refused_and_not_counted(bad: float) -> None:
    histogram = histogram_of(torch.tensor([1.0, 2.0]))
    before = pickle.dumps(histogram)
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        histogram.update(torch.tensor([0.5, bad, 100.0]))
    assert pickle.loads(before) == histogram  # noqa: S301 - our own bytes


def test_float64_beyond_float32_is_infinite() -> None:
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        AbsHistogram().update(torch.tensor([1e300], dtype=torch.float64))


def test_complex_values_are_refused() -> None:
    with pytest.raises(CalibrationError, match="complex64"):
        AbsHistogram().update(torch.zeros(3, dtype=torch.complex64))


def test_an_empty_histogram() -> None:
    histogram = histogram_of(torch.zeros(0, 3))
    assert (histogram.total, histogram.amax, histogram.exponent) == (0, 0.0, MIN_EXPONENT)
    assert histogram == AbsHistogram()
    histogram.merge(AbsHistogram())
    assert histogram == AbsHistogram()


def test_histograms_that_differ_are_unequal() -> None:
    one = histogram_of(torch.tensor([1.0]))
    assert one != histogram_of(torch.tensor([1.0, 1.0]))
    assert one != histogram_of(torch.tensor([1.0 + 2.0**-20]))  # the same bin, another amax
    assert one != histogram_of(torch.tensor([2.0]))
    assert one != "histogram"


def test_readers_do_not_expose_the_state() -> None:
    histogram = histogram_of(torch.ones(4))
    histogram.counts.zero_()
    copy = histogram.to("cpu")
    copy.update(torch.ones(1))
    assert histogram.total == 4


def test_pickling_keeps_everything() -> None:
    histogram = histogram_of(torch.randn(100, generator=torch.Generator().manual_seed(3)))
    restored = pickle.loads(pickle.dumps(histogram))  # noqa: S301 - our own bytes
    assert restored == histogram
    restored.update(torch.ones(2))
    assert restored.total == 102


def test_updates_leave_the_tensor_alone() -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(4)).requires_grad_()
    before = values.detach().clone()
    histogram_of(values)
    assert torch.equal(values, before)


def test_bin_width_times_bins_is_the_range() -> None:
    histogram = histogram_of(torch.tensor([5.0]))
    assert histogram.bin_width * BINS == 8.0
    assert repr(histogram) == "AbsHistogram(total=1, amax=5, range=2**3)"


def test_finite_checks_find_none_on_the_cpu() -> None:
    assert FiniteCheck([]).first_bad() is None
    assert FiniteCheck([AbsHistogram(), histogram_of(torch.ones(2))]).first_bad() is None


@pytest.mark.gpu
class TestOnCuda:
    def test_counts_equal_those_of_the_cpu(self) -> None:
        generator = torch.Generator().manual_seed(5)
        parts = [
            torch.randn(20_000_000, generator=generator),
            torch.randn(1001, generator=generator) * 1e30,
        ]
        parts += [torch.tensor([FLOAT32_MAX, 2.0**-149, 0.0]), parts[0][:999].half()]
        elsewhere = histogram_of(*(part.cuda() for part in parts))
        assert elsewhere.device.type == "cpu"
        native = AbsHistogram("cuda:0")
        for part in parts:
            native.update(part.cuda())
        assert native.device.type == "cuda"
        assert native == elsewhere
        assert native.to("cpu") == histogram_of(*parts)

    def test_deterministic_mode_gives_the_same(self) -> None:
        values = torch.randn(100_000).cuda()
        native = AbsHistogram("cuda:0")
        native.update(values)
        torch.use_deterministic_algorithms(True)
        try:
            deterministic = AbsHistogram("cuda:0")
            deterministic.update(values)
        finally:
            torch.use_deterministic_algorithms(False)
        assert native == deterministic

    def test_updates_do_not_wait_for_the_device(self) -> None:
        values = torch.randn(1000).cuda()
        histogram = AbsHistogram("cuda:0")
        with waiting_is_an_error():
            histogram.update(values)
        assert histogram.total == 1000

    def test_nonfinite_values_are_found_later(self) -> None:
        good, bad = AbsHistogram("cuda:0"), AbsHistogram("cuda:0")
        good.update(torch.ones(3).cuda())
        bad.update(torch.tensor([1.0, math.nan]).cuda())
        assert FiniteCheck([good, bad, bad]).first_bad() == 1
        with pytest.raises(CalibrationError, match="NaN or infinity"):
            bad.counts  # noqa: B018
