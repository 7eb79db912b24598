"""Compilations in several threads at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from checks import randomize
from torch import nn
from torch.fx import traceback

import trtcompile
from trtcompile.node_info import _noted
from trtcompile.ptq import DataLoaderCalibrator

THREADS = 4


class Net(nn.Module):
    def __init__(self, blocks: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4), nn.ReLU())
                for _ in range(blocks)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x).mean((2, 3)).softmax(1)


def models() -> list[nn.Module]:
    return [randomize(Net(4 + number % 2), number) for number in range(2 * THREADS)]


def image() -> torch.Tensor:
    return torch.randn(2, 4, 24, 24, generator=torch.Generator().manual_seed(0))


def simulated(model: nn.Module) -> torch.Tensor:
    result = trtcompile.simulate(
        model,
        [image()],
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator([image()], progress=False),
    )
    with torch.no_grad():
        outputs: Any = result.lowered(image())
    return outputs  # type: ignore[no-any-return]


def test_a_note_of_a_source_line_outlives_what_another_thread_clears() -> None:
    """What is noted is the process's: another thread that ends its capture meanwhile clears it."""
    meta = traceback.current_meta
    with _noted("inner", 1):
        assert meta["custom"] == {"inner": 1}
        meta.clear()
    assert "custom" not in meta
    with _noted("outer", 1):
        with _noted("inner", 2):
            assert meta["custom"] == {"outer": 1, "inner": 2}
        assert meta["custom"] == {"outer": 1}
    assert "custom" not in meta


def test_threads_take_turns() -> None:
    expected = [simulated(model) for model in models()]
    again = models()
    state = torch.get_rng_state()
    with ThreadPoolExecutor(THREADS) as pool:
        found = list(pool.map(simulated, again))
    for ours, theirs in zip(found, expected, strict=True):
        # PyTorch's own threads add in another order where there are several of the user's.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_thread_compiles_beside_torch_compile() -> None:
    """Both wait for one lock, so neither holds what the other waits for."""
    first, second = models()[:2]

    def lazily() -> torch.Tensor:
        with torch.no_grad():
            outputs: torch.Tensor = torch.compile(second, backend="eager")(image())
        return outputs

    expected = simulated(first)
    with ThreadPoolExecutor(2) as pool:
        tasks = [pool.submit(lazily), pool.submit(simulated, first)]
        compiled, ours = (task.result(timeout=300) for task in tasks)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
    torch.testing.assert_close(compiled, second(image()))


def test_a_failure_lets_the_next_one_begin() -> None:
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(trtcompile.simulate, models()[0], [])
        with pytest.raises(trtcompile.SettingsError):
            failing.result(timeout=300)
    assert simulated(models()[0]).shape == (2, 4)
