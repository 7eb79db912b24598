from __future__ import annotations

import pytest
import torch
from timing import REPLAYS_AFTER_SWITCH, PlanRunner, Sample, interleave

import trtcompile


class VirtualRunner:
    """Takes ``ms`` of virtual time per replay, of which every tenth sample takes ten times as much."""

    def __init__(self, name: str, ms: float, log: list[tuple[str, int, int]]) -> None:
        self.name, self.ms, self.log = name, ms, log

    def sample(self, samples: int, replays: int) -> Sample:
        self.log.append((self.name, samples, replays))
        return Sample([self.ms * (10 if i == 3 else 1) for i in range(samples)], 0.01)


def test_rounds_interleave_and_begin_with_another_engine_each():
    log: list[tuple[str, int, int]] = []
    runners = {name: VirtualRunner(name, 0.5, log) for name in "abc"}
    measured = interleave(runners, rounds=5, seconds=0.3, samples=10)
    turns = [name for name, samples, _ in log if samples == 10]
    assert turns == list("abcbcacababcbca")
    assert {name: [one.number for one in rounds] for name, rounds in measured.items()} == {
        name: [1, 2, 3, 4, 5] for name in "abc"
    }


def test_turns_last_as_long_as_asked_and_medians_ignore_an_outlier():
    log: list[tuple[str, int, int]] = []
    runners = {"fast": VirtualRunner("fast", 0.1, log), "slow": VirtualRunner("slow", 100.0, log)}
    measured = interleave(runners, rounds=2, seconds=0.3, samples=10)
    assert ("fast", 10, 300) in log  # 0.03 s of 0.1 ms
    assert ("slow", 10, 3) in log  # never fewer
    one = measured["fast"][0]
    assert one.median_ms == pytest.approx(0.1)
    assert max(one.samples_ms) == pytest.approx(1.0)
    values = one.as_json()
    assert values["number"] == 1
    assert values["host_ms"] == 0.01
    assert len(values["samples_ms"]) == 10


@pytest.fixture
def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.Conv2d(16, 16, 3, padding=1),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(16, 10),
    ).eval()


@pytest.mark.gpu
def test_plan_runner_runs_what_it_times(small_network):
    compiled = trtcompile.compile(
        small_network,
        [trtcompile.Input((4, 3, 16, 16))],
        device={"gpu_id": 0, "disable_tf32": True},
    )
    batches = [torch.randn(4, 3, 16, 16, device="cuda") for _ in range(3)]
    runner = PlanRunner(compiled.engines[0].plan, batches[0])
    for batch in batches:
        with torch.no_grad():
            expected = small_network(batch.cpu())
        torch.testing.assert_close(runner.run(batch).cpu(), expected, rtol=1e-3, atol=1e-4)
    measured = interleave({"a": runner}, rounds=2, seconds=0.02, samples=4)
    assert all(ms > 0 for one in measured["a"] for ms in one.samples_ms)
    layers = runner.layers()
    assert 0 < sum(layer["ms"] or 0 for layer in layers) < 10
    assert sum(layer["ms"] is not None for layer in layers) >= 2
    assert REPLAYS_AFTER_SWITCH < 1000  # the length of CUDA's queue of launches


@pytest.mark.gpu
def test_plan_runner_refuses_other_bindings(small_network):
    compiled = trtcompile.compile(small_network, [trtcompile.Input((4, 3, 16, 16))])
    with pytest.raises(ValueError, match="not an input"):
        PlanRunner(compiled.engines[0].plan, torch.randn(2, 3, 16, 16, device="cuda"))
