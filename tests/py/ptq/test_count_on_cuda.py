"""Counting on a GPU, through the kernels and without them, gives the CPU's counts to the bit."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from cuda_waits import waiting_is_an_error
from small_requests import SmallNet, make_request
from torch import Tensor

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.inputs import Input
from trtcompile.ptq import collect, count_queue, histogram
from trtcompile.ptq.count_queue import CountQueue, QueuedHistogram
from trtcompile.ptq.cuda_counting import CountingKernels, kernels_on
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.nvrtc import NvrtcError

pytestmark = pytest.mark.gpu

CUDA = torch.device("cuda", 0)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def forbid_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (histogram, collect):
        monkeypatch.setattr(module, "kernels_on", lambda device: NvrtcError("switched off"))


def queued(device: torch.device, count: int) -> tuple[CountQueue, list[QueuedHistogram]]:
    queue = CountQueue(1 << 28)
    return queue, [queue.observer_of(AbsHistogram(device)) for _ in range(count)]


def check(groups: Sequence[Sequence[Tensor]], device: torch.device = CUDA) -> None:
    """Each group shows one more tensor to each histogram; values may differ from group to group."""
    queue, observers = queued(device, len(groups[0]))
    alone = [AbsHistogram(device) for _ in observers]
    expected = [AbsHistogram() for _ in observers]
    for group in groups:
        for k, values in enumerate(group):
            there = values.to(device)
            observers[k].update(there)
            alone[k].update(there)
            expected[k].update(values)
    queue.flush()
    for k, reference in enumerate(expected):
        assert observers[k].histogram.device == device
        assert observers[k].histogram.to("cpu") == reference
        assert alone[k].to("cpu") == reference


def test_the_kernels_are_there() -> None:
    assert isinstance(kernels_on(CUDA), CountingKernels)


@pytest.mark.parametrize("kernels", [True, False], ids=["kernels", "operators"])
class TestBothWays:
    @pytest.fixture(autouse=True)
    def _switch(self, kernels: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        if not kernels:
            forbid_kernels(monkeypatch)

    def test_ranges_grow_across_groups(self) -> None:
        sizes = [1, 3, 8192, 8193, 2_000_003, 40_001, 7]
        check(
            [
                [randn(size, seed=10 * seed + k) * 5.0**seed for k, size in enumerate(sizes)]
                for seed in range(4)
            ]
        )

    def test_a_tensor_larger_than_the_queue(self) -> None:
        large = randn(1 << 20).repeat(80)
        check([[large, randn(5), large.relu().half(), randn(5)]])

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_every_half(self, dtype: torch.dtype) -> None:
        patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
        finite = patterns[patterns.isfinite()]
        check([[finite[finite.abs() < 1], finite], [finite, finite[:8191]]])

    @pytest.mark.parametrize(
        "dtype", [torch.float64, torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool]
    )
    def test_other_types(self, dtype: torch.dtype) -> None:
        values = randn(5000) * 30
        check([[(values.abs() if dtype == torch.uint8 else values).to(dtype)]])

    def test_zeros_extremes_and_one_value_alone(self) -> None:
        largest = torch.finfo(torch.float32).max
        exact = [math.ldexp(1.0, e) for e in (-149, -101, -100, -11, 0, 127)]
        values = [
            randn(300_000).relu(),
            torch.zeros(100_000),
            torch.tensor([0.0, -0.0, largest, -largest, *exact, *(-v for v in exact)]),
            torch.full((1_000_003,), -6.0),
        ]
        check([values, values[1:] + values[:1]])

    def test_views_and_small_shapes(self) -> None:
        values = randn(4, 6, 30, 30)
        image = values.to(memory_format=torch.channels_last)
        check(
            [
                [values[1:], values[:3], values[:, :, ::2], values.flatten()[1:], image],
                [
                    values.half().flatten()[3:],
                    values.sum(),
                    values[:0],
                    values.transpose(0, 3),
                    image,
                ],
                [values[:1].expand(3, -1, -1, -1), values, values[..., 1:], values.mT, values[0]],
            ]
        )

    @pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
    def test_nonfinite_values(self, bad: float) -> None:
        queue, (first, second) = queued(CUDA, 2)
        values = randn(100_000).to(CUDA)
        first.update(values)
        second.update(torch.where(torch.arange(100_000, device=CUDA) == 99_999, bad, values))
        second.update(values)
        queue.flush()
        assert first.histogram.total == 100_000
        assert not second.finite
        with pytest.raises(CalibrationError, match="NaN or infinity"):
            second.check_finite()

    def test_deterministic_mode(self) -> None:
        torch.use_deterministic_algorithms(True)
        try:
            check([[randn(100_000), randn(77)], [randn(100_000) * 9, randn(77)]])
        finally:
            torch.use_deterministic_algorithms(False)

    def test_another_stream(self) -> None:
        expected = AbsHistogram()
        stream = torch.cuda.Stream(CUDA)
        counted = AbsHistogram(CUDA)
        torch.cuda.synchronize(CUDA)
        with torch.cuda.stream(stream):
            for seed in range(5):
                values = randn(1_000_000, seed=seed)
                counted.update(values.to(CUDA).mul(2.0).div(2.0))
                expected.update(values)
        stream.synchronize()
        assert counted.to("cpu") == expected

    @pytest.mark.two_gpus
    def test_another_device_than_the_current_one(self) -> None:
        check([[randn(50_000), randn(9)], [randn(50_000) * 7, randn(9)]], torch.device("cuda", 1))


def test_values_that_wait_are_counted_without_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also when a group is counted in between, because much waits or a histogram comes again."""
    monkeypatch.setattr(count_queue, "_MOST_TENSORS", 3)
    values = [randn(10_000, seed=k).to(CUDA) for k in range(5)]
    queue, observers = queued(CUDA, 5)
    kernels_on(CUDA)
    with waiting_is_an_error():
        for _ in range(2):
            for observer, tensor in zip(observers, values, strict=True):
                observer.update(tensor)
        queue.flush()
    for observer, tensor in zip(observers, values, strict=True):
        expected = AbsHistogram()
        expected.update(tensor.cpu())
        expected.update(tensor.cpu())
        assert observer.histogram.to("cpu") == expected


def test_collecting_with_and_without_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last batch is partial; the values are the same ones, so the counts are equal."""
    request = make_request(SmallNet(), [Input((4, 3, 32, 32))])
    batches = [randn(3, 3, 32, 32, seed=k) for k in range(6)]
    with torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    ):
        fast = collect.collect(request, batches, device=CUDA)
        forbid_kernels(monkeypatch)
        with pytest.warns(CalibrationWarning, match=r"slowly: switched off\."):
            slow = collect.collect(request, batches, device=CUDA)
    assert fast.samples == slow.samples == 18
    for mine, theirs in zip(fast.histograms, slow.histograms, strict=True):
        assert mine == theirs
    assert list(fast.inputs.rows) == list(slow.inputs.rows)
    assert all(tensor.device.type == "cpu" for row in fast.inputs.rows.values() for tensor in row)


@pytest.mark.parametrize("bad_batch", [0, 1, 3])
def test_the_batch_with_nonfinite_values_is_named(bad_batch: int) -> None:
    batches = [randn(4, 3, 32, 32, seed=k) for k in range(4)]
    batches[bad_batch][1, 0, 5, 5] = math.nan
    with pytest.raises(CalibrationError, match=rf"Tensor 'x', batch {bad_batch} .*NaN or infinity"):
        collect.collect(
            make_request(SmallNet(), [Input((4, 3, 32, 32))]), batches, device=torch.device("cuda")
        )


def test_a_loader_may_reuse_its_memory_on_the_gpu() -> None:
    """Kept samples are those of their own batch, although keys are read later."""
    request = make_request(SmallNet(), [Input((2, 3, 32, 32))])
    batches = [randn(2, 3, 32, 32, seed=k) for k in range(4)]
    memory = torch.empty(2, 3, 32, 32, device=CUDA)
    reused = collect.collect(request, (memory.copy_(batch) for batch in batches), device=CUDA)
    expected = collect.collect(request, batches, device=torch.device("cpu"))
    assert list(reused.inputs.rows) == list(expected.inputs.rows)
    for key, row in expected.inputs.rows.items():
        assert torch.equal(reused.inputs.rows[key][0], row[0])
    assert reused.shared(["x"]).to("cpu") == expected.shared(["x"])
