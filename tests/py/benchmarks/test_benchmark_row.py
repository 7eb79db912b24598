from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from contenders import Built, Contender, kept
from row import Row, Settings
from timing import Sample
from torch import nn
from workloads import Workload

FAST = Settings(builds=3, rounds=5, seconds_per_turn=0.1, samples_per_turn=4)


class StubRunner:
    """Computes what the contender's name says, in the milliseconds that it says."""

    def __init__(self, plan: bytes, example: torch.Tensor) -> None:
        self._function, self.ms = PLANS[plan]
        self.host_ms = 0.001 if self.ms > 0.01 else 0.009

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        return self._function(batch)

    def inspect(self) -> str:
        return "{}"

    def layers(self) -> list[dict[str, Any]]:
        return [{"name": "all of it", "ms": self.ms}]

    def sample(self, samples: int, replays: int) -> Sample:
        return Sample([self.ms] * samples, self.host_ms)


PLANS: dict[bytes, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {}


def stub(
    name: str,
    *,
    ms: float = 1.0,
    seconds: float = 1.0,
    error: float = 0.0,
    fails: int = 0,
    images: slice = slice(None),
):
    """A contender whose outputs for some images of a batch are off by ``error``; its build number ``fails`` raises."""
    count = 0

    def build(workload: Workload, on_gpu: nn.Module) -> Built:
        nonlocal count
        count += 1
        if count == fails:
            raise RuntimeError("the builder refused")
        plan = f"{name} {count}".encode()
        factors = torch.ones(workload.batch, 1)
        factors[images] += error
        PLANS[plan] = (lambda x: workload.model(x) * factors, ms)
        simulation = copy.deepcopy(workload.model) if name.startswith("ours") else None
        return Built(plan, seconds, {"before_builder": 0.25}, simulation)

    return Contender(name, f"stub {name}", 20.0, build)


def measure(*contenders: Contender, **options: Any) -> tuple[bool, dict[str, Any], list[str]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 12)).eval()
    images = torch.randn(2, 8, 3, 2, 2)
    saved: list[str] = []
    row = Row(
        Workload("vgg16", model, 4, images[0], images[1], seed=0),
        contenders,
        options.pop("settings", FAST),
        make_runner=StubRunner,
        save=lambda result: saved.append(json.dumps(result, allow_nan=False)),
        device="cpu",
        **options,
    )
    return row.measure(), row.result, saved


def test_builds_of_another_process_are_reused(tmp_path: Path):
    """Numbered, so that several builds of a side stay several."""
    sides = stub("ours-int8", seconds=3.0), stub("onnx-int8")
    first, second = (measure(*(kept(s, tmp_path) for s in sides), settings=FAST) for _ in range(2))
    for (good, result, _), reused in ((first, False), (second, True)):
        assert good
        for entry in result["contenders"].values():
            assert [build["reused"] for build in entry["builds"]] == [reused] * FAST.builds
    plans = [torch.load(f, weights_only=False).plan for f in sorted(tmp_path.glob("*ours*"))]
    assert plans == [b"ours-int8 1", b"ours-int8 2", b"ours-int8 3"]
    assert second[1]["contenders"]["ours-int8"]["builds"][0]["seconds"] == 3.0


def test_every_build_is_timed_against_the_others_and_all_is_saved():
    good, result, saved = measure(stub("ours-int8", ms=1.0), stub("onnx-int8", ms=2.0))
    assert good
    assert result["finished"]
    for name, ms in (("ours-int8", 1.0), ("onnx-int8", 2.0)):
        builds = result["contenders"][name]["builds"]
        assert [build["number"] for build in builds] == [1, 2, 3]
        for build in builds:
            assert [one["median_ms"] for one in build["rounds"]] == [ms] * FAST.rounds
            assert {one["pass"] for one in build["rounds"]} == {build["number"]}
            assert build["checks"]["passed"]
    assert json.loads(saved[-1]) == result
    assert len(saved) == 3 * (2 + 1) + 1  # after each build, each pass, and at the end


def test_outputs_are_checked_against_simulation_or_eager():
    _, result, _ = measure(stub("ours-int8"), stub("onnx-int8"))
    checks = {n: c["builds"][0]["checks"] for n, c in result["contenders"].items()}
    assert checks["ours-int8"]["against"] == "the simulation"
    assert checks["onnx-int8"]["against"] == "eager FP32"
    assert checks["ours-int8"]["top1_agreement"] == 1.0


def test_wrong_outputs_are_reported_and_still_timed():
    good, result, _ = measure(stub("ours-int8", error=-1.0), stub("onnx-int8"))
    assert not good
    build = result["contenders"]["ours-int8"]["builds"][0]
    assert not build["checks"]["passed"]
    assert build["rounds"]


def test_one_wrong_image_of_many_is_reported():
    """Over all images it is less than is allowed; of the route, which has no simulation, that is enough."""
    wrong = {"error": 0.12, "images": slice(2, 3)}
    good, result, _ = measure(stub("ours-int8", **wrong), stub("onnx-int8", **wrong))
    checks = {n: c["builds"][0]["checks"] for n, c in result["contenders"].items()}
    for one in checks.values():
        assert one["sqnr_db_of_the_worst_image"] < one["minimum_sqnr_db"] < one["sqnr_db"]
    assert not good
    assert not checks["ours-int8"]["passed"] and checks["onnx-int8"]["passed"]


def test_a_side_that_takes_over_a_minute_is_built_once_and_timed_in_every_pass():
    good, result, _ = measure(stub("ours-int8"), stub("onnx-int8", seconds=61.0))
    assert good
    (build,) = result["contenders"]["onnx-int8"]["builds"]
    assert [one["pass"] for one in build["rounds"]] == [1] * 5 + [2] * 5 + [3] * 5
    assert len(result["contenders"]["ours-int8"]["builds"]) == 3


def test_nothing_is_timed_again_when_every_side_is_built_once():
    _, result, _ = measure(stub("ours-int8", seconds=70.0), stub("onnx-int8", seconds=61.0))
    assert [len(c["builds"]) for c in result["contenders"].values()] == [1, 1]
    assert len(result["clocks_after_pass"]) == 1


@pytest.mark.parametrize("fails", [1, 2])
def test_a_failing_side_leaves_the_others_measured(fails):
    good, result, _ = measure(stub("ours-int8"), stub("onnx-int8", fails=fails))
    assert not good
    assert "the builder refused" in result["contenders"]["onnx-int8"]["error"]
    assert len(result["contenders"]["onnx-int8"]["builds"]) == fails - 1
    builds = result["contenders"]["ours-int8"]["builds"]
    assert [len(build["rounds"]) for build in builds] == [FAST.rounds] * 3


def test_builds_that_the_time_limit_leaves_no_room_for_are_left_out():
    left = iter([100.0, 80.0, 30.0, 10.0])
    good, result, _ = measure(
        stub("ours-int8", seconds=20.0),
        stub("onnx-int8", seconds=40.0),
        seconds_left=lambda: next(left, 5.0),
    )
    assert good
    ours, route = result["contenders"]["ours-int8"], result["contenders"]["onnx-int8"]
    assert (len(ours["builds"]), len(route["builds"])) == (2, 1)
    assert route["notes"][0] == "build 2 left out: the time limit leaves no 40 s for it"
    assert [one["pass"] for one in route["builds"][0]["rounds"]] == [1] * 5 + [2] * 5


def test_clocks_are_read_after_each_pass():
    _, result, _ = measure(stub("ours-int8"), clocks=lambda: {"clocks.sm": "1980 MHz"})
    assert result["clocks_after_pass"] == [
        {"pass": number, "clocks.sm": "1980 MHz"} for number in (1, 2, 3)
    ]


def test_launches_that_may_not_keep_the_device_busy_are_noted():
    _, result, _ = measure(stub("ours-int8", ms=0.01), stub("onnx-int8", ms=1.0))
    notes = result["contenders"]["ours-int8"]["notes"]
    assert len(notes) == 3
    assert notes[0].startswith("pass 1: enqueuing takes 0.009 ms")
    assert result["contenders"]["onnx-int8"]["notes"] == []


def test_layers_of_each_sides_first_engine_are_timed_if_asked_for():
    timed = Settings(builds=2, rounds=5, seconds_per_turn=0.1, samples_per_turn=4, layers=True)
    _, result, _ = measure(stub("ours", ms=2.0), stub("route"), settings=timed)
    first, second = result["contenders"]["ours"]["builds"]
    assert first["layers"] == [{"name": "all of it", "ms": 2.0}]
    assert "layers" not in second
    _, result, _ = measure(stub("ours"))
    assert "layers" not in result["contenders"]["ours"]["builds"][0]
