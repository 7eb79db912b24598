"""What the tests of the oracle share: the installed TensorRT, a builder, and comparison."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any

import pytest
import torch
from oracle_networks import OracleNetwork
from oracle_networks.engines import make_logger, strongly_typed
from oracle_networks.network_case import Net


def _first_installed(*names: str) -> ModuleType | None:
    for name in names:
        if importlib.util.find_spec(name) is not None:
            return importlib.import_module(name)
    return None


def defining_flavour() -> ModuleType | None:
    """The TensorRT that defines networks here; TensorRT-RTX needs no GPU for it."""
    return _first_installed("tensorrt_rtx", "tensorrt")


def running_flavour() -> ModuleType | None:
    """The TensorRT that runs engines here; None with no GPU."""
    return _first_installed("tensorrt", "tensorrt_rtx") if torch.cuda.is_available() else None


class Bench:
    """A flavour with its builder and the errors that it reports."""

    def __init__(self, trt: Any) -> None:
        self.trt = trt
        self.logger, self.errors = make_logger(trt)
        self.builder = trt.Builder(self.logger)

    def network(self) -> Any:
        """An empty network."""
        self.errors.clear()
        return strongly_typed(self.trt, self.builder)

    def net(self) -> Net:
        return Net(self.trt, self.network())


def defining_bench() -> Bench:
    """A bench for defining networks; skips the test that asks where there can be none."""
    trt = defining_flavour()
    if trt is None:
        pytest.skip("no TensorRT is installed: pip install 'trtcompile[rtx]'")
    if trt.__name__ == "tensorrt" and not torch.cuda.is_available():
        pytest.skip("TensorRT defines networks only beside a GPU: pip install 'trtcompile[rtx]'")
    return Bench(trt)


def named(networks: list[OracleNetwork]) -> Any:
    return pytest.mark.parametrize("case", networks, ids=[case.name for case in networks])


def assert_same(
    actual: torch.Tensor, expected: torch.Tensor, tolerances: dict[torch.dtype, float]
) -> None:
    """Equal dtype and shape; floats within the tolerance of the largest expected magnitude.

    A dtype without a tolerance must be equal.
    """
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    tolerance = tolerances.get(expected.dtype, 0.0)
    finite = expected[expected.isfinite()].abs().float() if tolerance else expected.new_empty(0)
    largest = finite.max().item() if finite.numel() else 0.0
    torch.testing.assert_close(
        actual, expected, rtol=tolerance, atol=tolerance * largest, equal_nan=True
    )
