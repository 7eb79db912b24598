from __future__ import annotations

from typing import Any

import pytest
from summary import Side, markdown, side, verdicts


def build(
    ms: float, *, seconds: float = 10.0, rounds: int = 5, passed: bool = True
) -> dict[str, Any]:
    return {
        "seconds": seconds,
        "stages": {"before_builder": 2.0},
        "checks": {"passed": passed},
        "rounds": [{"median_ms": ms} for _ in range(rounds)],
    }


def result(
    ours: list[dict[str, Any]],
    route: list[dict[str, Any]],
    *,
    model: str = "resnet50",
    batch: int = 32,
    fp16: list[dict[str, Any]] | None = None,
    gpu: str = "Some GPU",
) -> dict[str, Any]:
    sides = {"ours-int8": ours, "ours-fp16": fp16 or [build(1.0)] * 3, "onnx-int8": route}
    return {
        "row": {"model": model, "batch": batch},
        "contenders": {name: {"builds": builds} for name, builds in sides.items()},
        "environment": {
            "machine": {"gpu": gpu, "driver_version": "580.1"},
            "versions": {"torch": "2.11.0", "TensorRT": "10.6.0"},
            "commit": "0123456789abcdef",
            "date": "2026-01-02T03:04:05+00:00",
        },
    }


def latency_verdict(*results: dict[str, Any]) -> str:
    return verdicts(results)[0]["latency"]


@pytest.mark.parametrize(
    ("ours", "expected"), [(0.85, "met"), (0.875, "met"), (0.876, "not met"), (1.1, "not met")]
)
def test_bar_with_three_percent(ours, expected):
    assert latency_verdict(result([build(ours)] * 3, [build(1.0)] * 3)) == expected


def test_median_over_builds_decides():
    builds = [build(0.8), build(0.8), build(5.0)]
    assert latency_verdict(result(builds, [build(1.0)] * 3)) == "met"
    assert side(result(builds, []), "ours-int8").ms == 0.8


@pytest.mark.parametrize(
    ("ours", "expected"),
    [
        ([build(0.5)] * 2, "not judged: only 2 builds"),
        ([build(0.5), build(0.5, rounds=4), build(0.5)], "not judged: only 4 rounds"),
        ([build(0.5), build(0.5, passed=False), build(0.5)], "not judged: wrong outputs"),
        ([], "not judged: a side is missing"),
        ([build(0.5, rounds=0)] * 3, "not judged: a side is missing"),
        ([build(0.5, seconds=61.0)], "met"),
    ],
)
def test_what_a_verdict_needs(ours, expected):
    assert latency_verdict(result(ours, [build(1.0, seconds=120.0)])) == expected


def test_route_needs_three_builds_too_unless_they_are_long():
    assert latency_verdict(result([build(0.5)] * 3, [build(1.0)])) == "not judged: only 1 builds"


def test_reference_that_got_slower_meets_no_bar():
    # 0.93 ms was seen before on this GPU: 0.85 * 1.1 is under the bar of today and over that one's.
    builds = [build(0.93)] * 3, [build(1.1)] * 3
    assert latency_verdict(result(*builds)) == "met"
    assert "faster before (0.930 ms)" in latency_verdict(result(*builds, gpu="NVIDIA H200"))


def test_short_rows_are_judged_by_their_geometric_mean():
    over = result([build(0.112)] * 3, [build(0.1)] * 3, model="vgg16", batch=1)
    under = result([build(0.09)] * 3, [build(0.1)] * 3, model="vgg16", batch=128)
    long = result([build(0.18)] * 3, [build(0.2)] * 3, model="vgg16", batch=128)
    assert latency_verdict(over) == "not met"  # 1.12 / 1.05
    assert latency_verdict(over, under) == "met"
    assert latency_verdict(over, long) == "not met"


def test_int8_must_beat_our_own_fp16():
    slower = result([build(0.5)] * 3, [build(1.0)] * 3, fp16=[build(0.49)] * 3)
    faster = result([build(0.5)] * 3, [build(1.0)] * 3, fp16=[build(0.51)] * 3)
    assert verdicts([slower])[0]["faster than FP16"] == "not met"
    assert verdicts([faster])[0]["faster than FP16"] == "met"


def test_build_time_bar():
    route = [build(1.0, seconds=100.0)]
    assert verdicts([result([build(0.5, seconds=51.0)] * 3, route)])[0]["build"] == "met"
    assert verdicts([result([build(0.5, seconds=52.0)] * 3, route)])[0]["build"] == "not met"


def test_a_route_that_was_not_calibrated_is_no_reference_for_build_times():
    ours, route = [build(0.5, seconds=1.0)] * 3, [build(1.0, seconds=100.0)]
    verdict = verdicts([result(ours, [{**route[0], "calibrated": False}])])[0]
    assert verdict["build"] == "not judged: scales of an earlier build"
    assert verdict["latency"] == verdicts([result(ours, route)])[0]["latency"]


def test_row_without_a_bar_is_shown_without_a_verdict():
    assert latency_verdict(result([build(1.0)] * 3, [build(1.0)] * 3, batch=7)) == "no bar"


def test_markdown_lists_rows_in_order_with_everything_measured():
    short = result([build(0.1)] * 3, [build(0.1)] * 3, model="vgg16", batch=1)
    text = markdown([result([build(0.5), build(0.6), build(0.7)], []), short])
    latency, build_times, machine = text.split("\n\n")
    rows = latency.splitlines()
    assert rows[2].startswith("| vgg16 | 1 | 0.1000 (0.1000–0.1000) |")
    assert rows[3].startswith("| resnet50 | 32 | 0.6000 (0.5000–0.7000) |")
    assert "not run" in rows[3]
    assert len({row.count("|") for row in rows}) == 1
    assert "| 2.0 |" in build_times
    assert machine == (
        "Some GPU, driver 580.1, torch 2.11.0, TensorRT 10.6.0, commit 0123456789ab, 2026-01-02"
    )


def test_side_type():
    assert isinstance(side(result([build(1.0)], []), "ours-int8"), Side)
    assert side(result([], []), "no such side") is None
