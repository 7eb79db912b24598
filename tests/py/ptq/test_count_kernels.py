"""count_values.cu: it compiles for GPUs, and as C++ on the CPU it counts what AbsHistogram counts."""

from __future__ import annotations

import ctypes
import math
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from trtcompile.errors import CalibrationError
from trtcompile.ptq.cuda_counting import SOURCE, readable, table_of
from trtcompile.ptq.histogram import AbsHistogram, _counted, dense_values
from trtcompile.ptq.nvrtc import NvrtcError, compiled

HERE = Path(__file__).parent


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
def test_nvrtc_compiles_the_kernels(architecture: str) -> None:
    try:
        compiled("", "empty.cu", architecture)
    except NvrtcError as error:
        pytest.skip(str(error))
    code = compiled(SOURCE.read_text(), SOURCE.name, architecture)
    assert code.startswith(b"\x7fELF")
    assert b"count_values" in code and b"grow_ranges" in code


def test_what_does_not_compile_is_said() -> None:
    try:
        compiled("", "empty.cu", "sm_90")
    except NvrtcError as error:
        pytest.skip(str(error))
    with pytest.raises(
        NvrtcError, match=r"wrong\.cu does not compile for sm_90(?s:.)*undefined_name"
    ):
        compiled("__device__ int x() { return undefined_name; }", "wrong.cu", "sm_90")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The kernels as functions of the CPU."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ to compile the kernels for the CPU")
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    command = [compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-x", "c++"]
    command += [f"-I{SOURCE.parent}", str(HERE / "cuda_on_cpu.h"), "-o", str(library)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def count(kernels: Any, shown: Sequence[tuple[AbsHistogram, Tensor]], blocks: int = 3) -> None:
    """``CountingKernels.count`` on the CPU."""
    group = [readable(_counted(histogram, dense_values(values))) for histogram, values in shown]
    rows, chunks = table_of(group)
    table = torch.tensor(rows, dtype=torch.int64)
    address, blocks = ctypes.c_void_p(table.data_ptr()), min(blocks, chunks)
    kernels.launch_count_values(blocks, address, len(rows), chunks, 0)
    kernels.launch_grow_ranges(len(rows), address)
    kernels.launch_count_values(blocks, address, len(rows), chunks, 1)


def check(kernels: Any, groups: Sequence[Sequence[Tensor]]) -> None:
    """Each group shows one more tensor to each histogram."""
    ours = [AbsHistogram() for _ in groups[0]]
    theirs = [AbsHistogram() for _ in groups[0]]
    for group in groups:
        count(kernels, list(zip(ours, group, strict=True)))
        for histogram, values in zip(theirs, group, strict=True):
            histogram.update(values)
    for mine, reference in zip(ours, theirs, strict=True):
        assert mine == reference


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_groups_of_tensors_whose_ranges_grow(kernels: Any) -> None:
    """Sizes below, at, and above those of a chunk, and more than one tensor for a block."""
    sizes = [1, 3, 8192, 8193, 40_001, 7]
    groups = [
        [randn(size, seed=seed * 10 + k) * 3.0**seed for k, size in enumerate(sizes)]
        for seed in range(3)
    ]
    check(kernels, groups)


def test_zeros_and_extremes(kernels: Any) -> None:
    largest = torch.finfo(torch.float32).max
    exact = [math.ldexp(1.0, e) for e in (-149, -101, -100, -11, 0, 127)]
    values = [
        randn(20_000).relu(),
        torch.zeros(9000),
        torch.tensor([0.0, -0.0, largest, -largest, *exact, *(-v for v in exact)]),
        torch.tensor([1.0, math.nextafter(1.0, 0.0), -1.0]).repeat(5),
    ]
    check(kernels, [values, [values[k] for k in (1, 2, 3, 0)]])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_half_is_counted_as_its_float32(kernels: Any, dtype: torch.dtype) -> None:
    """All finite bit patterns, subnormals included."""
    patterns = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    finite = patterns[patterns.isfinite()]
    check(kernels, [[finite[finite.abs() < 1], finite], [finite, finite[:8191]]])


@pytest.mark.parametrize("dtype", [torch.float64, torch.int8, torch.int64, torch.bool])
def test_other_types_become_float32(kernels: Any, dtype: torch.dtype) -> None:
    check(kernels, [[(randn(999) * 30).to(dtype)]])


def test_views(kernels: Any) -> None:
    values = randn(4, 6, 30, 30)
    views = [values[1:], values[:, :, ::2], values.flatten()[1:], values.half().flatten()[3:]]
    check(
        kernels,
        [[*views, values[0, 0, 0, 0], values.transpose(0, 3), values[:1].expand(3, -1, -1, -1)]],
    )
    last = values.to(memory_format=torch.channels_last)
    check(kernels, [[last, last[1:3], last[:, 2:5], last[:, :, ::3], last.half(), last.double()]])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_nonfinite_values_are_remembered(kernels: Any, bad: float, dtype: torch.dtype) -> None:
    good, other = AbsHistogram(), AbsHistogram()
    values = randn(9000).to(dtype)
    count(kernels, [(other, torch.where(torch.arange(9000) == 8999, bad, values)), (good, values)])
    count(kernels, [(other, values)])
    assert good.total == 9000
    assert not other.finite
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        other.check_finite()


def test_counts_are_64_bits_wide(kernels: Any) -> None:
    histogram = AbsHistogram()
    histogram.update(torch.ones(3))
    for _ in range(33):
        histogram.merge(histogram)
    count(kernels, [(histogram, torch.full((5,), 4.0))])
    assert histogram.counts[[256, 1024]].tolist() == [3 << 33, 5]
