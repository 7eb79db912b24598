"""``AbsHistogram``: exact counts of absolute values over a range that grows by doubling."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from trtcompile.errors import CalibrationError
from trtcompile.ptq.cuda_counting import Counted, kernels_on
from trtcompile.ptq.nvrtc import NvrtcError

BINS = 2048
_BIN_BITS = 11  # log2(BINS)

# The range is 2**exponent. The upper end holds every finite float32. The lower end keeps the factor
# that turns a value into its bin, 2**(11 - exponent), within float32; smaller values fall into bin
# 0.
MIN_EXPONENT = -100
MAX_EXPONENT = 128

# Values binned at a time: on the CPU few enough for the temporaries to stay in the cache; elsewhere
# few enough for float32 counts, which are exact up to 2**24.
_CPU_CHUNK = 1 << 18
_CUDA_CHUNK = 1 << 24

# bincount, most of the work on the CPU, has no threads. So threads of our own divide a tensor, each
# gets at least _SHARE values, and bins fewer at a time than PyTorch would divide among its threads
# (32768): waiting for one another at each operation, the two kinds of threads would be slow.
_SHARE = 1 << 18
_SHARE_CHUNK = 32000

# In how many histograms neighbouring values of a tensor without negative ones are counted on the
# CPU. Otherwise each zero of a ReLU waits for the one before it to be counted.
_WAYS = 4
_FIRST_BINS = torch.arange(0, _WAYS * BINS, BINS, dtype=torch.int16, device="cpu").repeat(
    _CPU_CHUNK // _WAYS
)

_NOT_FINITE = (
    "it holds NaN or infinity. Check the model's weights and the normalization of the data."
)

# What torch.aminmax takes; others, such as bool and float8, become float32 first.
_AS_THEY_ARE = frozenset(
    {torch.float32, torch.float16, torch.bfloat16, torch.float64}
    | {torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64}
)


class AbsHistogram:
    """Counts absolute values in 2048 equal bins over ``[0, 2**exponent)``.

    The range is the smallest power of two above every value seen, at least 2**-100. When a larger
    value arrives, the range doubles until it fits, and pairs of bins merge. Bin edges at one range
    are edges at every smaller one, and a value's bin is found by multiplying with a power of two,
    which is exact. So the counts depend only on the values: any order, split, or merge gives the
    same bits.

    Values are taken as float32: float16 and bfloat16 convert exactly, float64 and integers are
    rounded.

    On the CPU ``update`` refuses NaN and infinity at once and leaves the histogram as it was. On
    other devices it does not wait for the device: such values are remembered, and ``check_finite``
    and everything that reads the histogram raises.

    Args:
        device: where the counts are kept. Tensors elsewhere are counted where they are.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self._counts = torch.zeros(BINS, dtype=torch.int64, device=device)
        self._exponent = torch.full((), MIN_EXPONENT, dtype=torch.int32, device=device)
        self._peak = torch.zeros((), dtype=torch.float32, device=device)
        self._finite = torch.ones((), dtype=torch.bool, device=device)

    @classmethod
    def several(cls, count: int, device: torch.device) -> list[AbsHistogram]:
        """Empty histograms, made in a few launches together."""
        together = {
            name: value.expand(count, *value.shape).contiguous()
            for name, value in vars(cls(device)).items()
        }
        histograms = []
        for parts in zip(*(rows.unbind() for rows in together.values()), strict=True):
            histogram = cls.__new__(cls)
            vars(histogram).update(zip(together, parts, strict=True))
            histograms.append(histogram)
        return histograms

    def update(self, values: Tensor) -> None:
        """Counts the absolute values of a tensor of any shape, strides, and real dtype.

        Raises:
            CalibrationError: the tensor is complex, or (on the CPU) holds NaN or infinity.
        """
        flat = flat_values(values)
        if flat.numel() == 0:
            return
        if flat.device != self.device:
            elsewhere = AbsHistogram(flat.device)
            elsewhere.update(flat)
            self.merge(elsewhere)
            return
        if flat.is_cuda:
            count_together([(self, flat)])
        else:
            self._update_on_cpu(flat)

    def _update_on_cuda(self, flat: Tensor) -> None:
        """What the kernels of ``cuda_counting`` do, in many launches of PyTorch's own."""
        low, high = torch.aminmax(flat)
        peak = torch.maximum(low.float().abs(), high.float().abs())  # NaN wins
        self._finite = self._finite & torch.isfinite(peak)
        self._peak = torch.maximum(self._peak, peak)
        self._grow(_range_exponent(peak))
        self._counts += _count_on_cuda(flat, _power_of_two(_BIN_BITS - self._exponent))

    def _update_on_cpu(self, flat: Tensor) -> None:
        # As Python numbers where that will do: for small tensors each tensor operation counts.
        low, high = torch.stack(torch.aminmax(flat)).float().tolist()
        if not (math.isfinite(low) and math.isfinite(high)):
            raise CalibrationError(_NOT_FINITE)
        if max(-low, high) > float(self._peak):
            self._peak = torch.tensor(max(-low, high), dtype=torch.float32)
            self._grow(_range_exponent(self._peak))
        factor = 2.0 ** (_BIN_BITS - int(self._exponent))
        self._counts += _count_on_cpu(flat, factor, ways=1 if low < 0 else _WAYS)

    def merge(self, other: AbsHistogram) -> None:
        """Adds the values that another histogram has counted."""
        theirs = other.to(self.device)
        self._finite = self._finite & theirs._finite
        self._peak = torch.maximum(self._peak, theirs._peak)
        self._grow(theirs._exponent)
        theirs._grow(self._exponent)
        self._counts += theirs._counts

    def _grow(self, exponent: Tensor) -> None:
        """Doubles the range up to ``2**exponent``; a no-op if it is that large already."""
        shift = (exponent - self._exponent).clamp(0, _BIN_BITS)
        if self._counts.is_cuda or shift:  # reading it would wait for a CUDA device
            bins = torch.arange(BINS, device=self.device) >> shift
            self._counts = torch.zeros_like(self._counts).index_add_(0, bins, self._counts)
        self._exponent = torch.maximum(self._exponent, exponent)

    @property
    def finite(self) -> Tensor:
        """Whether no NaN or infinity was seen: a bool scalar on the histogram's device."""
        return self._finite

    def check_finite(self) -> None:
        """Waits for the device and raises if NaN or infinity was seen.

        Raises:
            CalibrationError: NaN or infinity was seen.
        """
        if not self._finite:
            raise CalibrationError(_NOT_FINITE)

    @property
    def counts(self) -> Tensor:
        """How many values each bin has: a copy, int64 ``[2048]``, on the histogram's device."""
        self.check_finite()
        return self._counts.clone()

    @property
    def exponent(self) -> int:
        """Base-2 logarithm of the range; ``MIN_EXPONENT`` if only zeros, or nothing, was seen."""
        self.check_finite()
        return int(self._exponent)

    @property
    def bin_width(self) -> float:
        """The range divided by the number of bins: a power of two."""
        return 2.0 ** (self.exponent - _BIN_BITS)

    @property
    def amax(self) -> float:
        """The largest absolute value seen, exact in float32; 0.0 if nothing was."""
        self.check_finite()
        return float(self._peak)

    def range_of(self, bins: int) -> float:
        """The upper edge of the first ``bins`` bins, but at most the largest value seen."""
        return min(bins * self.bin_width, self.amax)

    @property
    def total(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    @property
    def device(self) -> torch.device:
        """Where the counts are kept."""
        return self._counts.device

    def to(self, device: torch.device | str) -> AbsHistogram:
        """A copy on a device."""
        copy = AbsHistogram.__new__(AbsHistogram)
        for name, value in vars(self).items():
            setattr(copy, name, value.to(device, copy=True))
        return copy

    def __getstate__(self) -> dict[str, Tensor]:
        return vars(self.to("cpu"))  # readable on a machine without the device

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, AbsHistogram):
            return NotImplemented
        same = self.exponent == other.exponent and self.amax == other.amax
        return same and torch.equal(self.counts, other.counts.to(self.device))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"AbsHistogram(total={self.total}, amax={self.amax:g}, range=2**{self.exponent})"


def count_together(shown: Sequence[tuple[AbsHistogram, Tensor]]) -> None:
    """Updates histograms on one CUDA device, each with a tensor of its own, in few launches.

    The result is that of updating one after the other. Does not wait for the device.

    Args:
        shown: at least one; no histogram twice; tensors as ``dense_values`` gives them, not empty,
            on the histograms' device.
    """
    kernels = kernels_on(shown[0][0].device)
    if isinstance(kernels, NvrtcError):
        for histogram, dense in shown:
            histogram._update_on_cuda(flat_values(dense))
    else:
        kernels.count([_counted(histogram, dense) for histogram, dense in shown])


def _counted(histogram: AbsHistogram, dense: Tensor) -> Counted:
    return Counted(
        dense, histogram._counts, histogram._exponent, histogram._peak, histogram._finite
    )


def stacked_counts(histograms: Sequence[AbsHistogram]) -> Tensor:
    """The counts of all: int64 ``[histograms, 2048]``, on the device of the first; at least one is needed.

    Raises:
        CalibrationError: one was shown NaN or infinity.
    """
    device = histograms[0].device
    return torch.stack([histogram.counts.to(device) for histogram in histograms])


def occupied_bins(counts: Tensor) -> Tensor:
    """How many bins, from zero, hold all values of each histogram: int64 ``[histograms]``."""
    numbers = torch.arange(1, BINS + 1, device=counts.device)
    return torch.where(counts > 0, numbers, 0).amax(dim=1)


def dense_values(values: Tensor) -> Tensor:
    """All values in memory without gaps: the tensor itself, of whatever shape, if it can be had so.

    Raises:
        CalibrationError: the tensor is complex.
    """
    values = _countable(values)
    # Told by PyTorch itself, since a calibration on a GPU waits for the host to prepare its tensors.
    if values.is_contiguous() or values.is_contiguous(memory_format=torch.channels_last):
        return values
    return flat_values(values)


def flat_values(values: Tensor) -> Tensor:
    """All values in one dimension, in whatever order needs no copy.

    Raises:
        CalibrationError: the tensor is complex.
    """
    values = _countable(values).detach()
    if not values.is_contiguous():
        # channels_last and transposed tensors are dense in another order
        values = values.permute(sorted(range(values.dim()), key=values.stride, reverse=True))
    return values.reshape(-1)


def _countable(values: Tensor) -> Tensor:
    """The values as a dtype that can be counted."""
    if values.is_complex():
        raise CalibrationError(
            f"it is {values.dtype}, which has no INT8 form. Leave complex tensors unquantized."
        )
    return values if values.dtype in _AS_THEY_ARE else values.float()


def _range_exponent(peak: Tensor) -> Tensor:
    """The least e with ``peak < 2**e``, from the bits of a float32: int32, within the limits."""
    return ((peak.view(torch.int32) >> 23) - 126).clamp(MIN_EXPONENT, MAX_EXPONENT)


def _power_of_two(exponent: Tensor) -> Tensor:
    """``2**exponent`` as float32, put together from its bits: exact for -126..127."""
    return ((exponent + 127) << 23).view(torch.float32)


def _count_on_cpu(flat: Tensor, factor: float, ways: int) -> Tensor:
    shares = min(torch.get_num_threads(), flat.numel() // _SHARE)
    if shares <= 1:
        return _count_share(flat, factor, ways, _CPU_CHUNK)
    with ThreadPoolExecutor(shares) as pool:
        tasks = [
            pool.submit(_count_share, part, factor, ways, _SHARE_CHUNK)
            for part in flat.chunk(shares)
        ]
        return torch.stack([task.result() for task in tasks]).sum(dim=0)


def _count_share(flat: Tensor, factor: float, ways: int, at_a_time: int) -> Tensor:
    size = min(flat.numel(), at_a_time)
    counts = torch.zeros(ways * BINS, dtype=torch.int64)
    scaled = torch.empty(size, dtype=torch.float32)
    # 16-bit bins: bincount reads them twice as fast as 32-bit ones, and five times as fast as
    # 64-bit.
    bins = torch.empty(size, dtype=torch.int16)
    for chunk in torch.split(flat, at_a_time):
        n = chunk.numel()
        if n < bins.numel():  # the last one
            scaled, bins = scaled[:n], bins[:n]
        scaled.copy_(chunk).mul_(factor)
        bins.copy_(scaled).abs_()  # truncation is symmetric about zero
        if ways > 1:
            bins.add_(_FIRST_BINS[:n])
        counts += torch.bincount(bins, minlength=ways * BINS)
    return counts.view(ways, BINS).sum(dim=0)


def _count_on_cuda(flat: Tensor, factor: Tensor) -> Tensor:
    counts = torch.zeros(BINS, dtype=torch.int64, device=flat.device)
    # bincount waits for the device. histc does not, but refuses to run in deterministic mode,
    # although its result here does not depend on the order: its counts are whole numbers.
    deterministic = torch.are_deterministic_algorithms_enabled()
    for chunk in torch.split(flat, _CUDA_CHUNK):
        scaled = (chunk.float() * factor).abs_()
        if deterministic:
            counts += torch.bincount(
                scaled.nan_to_num_(0, 0).clamp_(max=BINS - 1).int(), minlength=BINS
            )
        else:
            counts += torch.histc(scaled, BINS, 0, BINS).long()
    return counts
