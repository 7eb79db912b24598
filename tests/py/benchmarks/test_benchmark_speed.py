"""The speed benchmark: which rows are run, and what its bars say of made-up results."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import latency
import pytest
import speed
from gpu_queue import Job
from result_file import write_result
from speed_summary import ALL_CNNS, CNNS, markdown, problems
from workloads import IMAGE_SIZE


def result(
    model: str = "resnet50",
    batch: int = 8,
    *,
    ours: float = 0.8,
    fp16: float = 1.0,
    route: float = 1.0,
    builds: int = 3,
    **layers: Any,
) -> dict[str, Any]:
    def build(ms: float) -> dict[str, Any]:
        return {
            "seconds": 30.0,
            "stages": {"before_builder": 2.0},
            "checks": {"passed": True},
            "rounds": [{"median_ms": ms}] * 5,
            "int8_layers": {"expected": 53, "INT8": 53, "floating convolutions": [], **layers},
        }

    sides = {"ours-int8": ours, "ours-fp16": fp16, "onnx-int8": route}
    return {
        "kind": "latency",
        "finished": True,
        "row": {"model": model, "batch": batch},
        "contenders": {name: {"builds": [build(ms)] * builds} for name, ms in sides.items()},
        "environment": {
            "machine": {"gpu": "Some GPU", "driver_version": "580.1"},
            "versions": {"torch": "2.11.0", "TensorRT": "10.6.0"},
            "commit": "0123456789abcdef",
            "date": "2026-01-02T03:04:05+00:00",
        },
    }


def test_rows_within_all_bars_have_no_problems():
    assert problems([result(), result("vgg16", 64, ours=0.85, route=1.0)]) == []


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (result(ours=1.04), "resnet50 batch 8: 1.040 times our FP16, not 1.0"),
        (result(route=0.73), "resnet50 batch 8: 1.096 times the ONNX route, not 1.05"),
        (result("vgg16", route=0.9), "geometric mean over the ONNX route is 0.889 in 1 rows"),
        (result(builds=2), "resnet50 batch 8, ours-int8: only 2 builds"),
        (result(builds=0), "resnet50 batch 8, onnx-int8: not measured"),
        (result(**{"not INT8": ["convolution_7"]}), "convolution_7 is not INT8"),
        (result(**{"not found": ["convolution_7"]}), "convolution_7 is not found"),
        (
            result(
                **{
                    "floating convolutions": [
                        {"operator": "c", "layer": "c/x", "reads": "FP16", "rule": ""}
                    ]
                }
            ),
            "c/x reads FP16 without a rule",
        ),
    ],
)
def test_each_missed_bar_is_told(made, message):
    assert any(message in problem for problem in problems([made]))


def test_what_a_rule_excludes_and_linear_layers_are_no_problem():
    floating = [
        {"operator": "c", "layer": "c/x", "reads": "FP16", "rule": "its weight is computed"},
        {"operator": "linear_2", "layer": "linear_2/convolution", "reads": "FP16", "rule": ""},
    ]
    assert problems([result(**{"floating convolutions": floating})]) == []


def test_the_mean_is_over_all_rows_and_three_percent_are_forgiven():
    row = functools.partial(result, "resnet18")
    assert problems([row(ours=0.7, batch=1), row(ours=1.02, fp16=1.1)]) == []
    assert problems([row(ours=1.08, fp16=1.1, batch=1), row(ours=0.6)]) == []
    found = problems([row(ours=0.8, batch=1), row(ours=1.02, fp16=1.1)])
    assert found == ["the geometric mean over the ONNX route is 0.903 in 2 rows, not 0.85"]


def test_further_models_have_the_bars_of_rows_but_no_part_in_the_mean():
    rows = [result("densenet", ours=0.8), result("resnet50", ours=1.0, fp16=1.1)]
    assert problems(rows) == []
    (found,) = problems([rows[0], result("densenet121", ours=1.2, fp16=1.3)])
    assert found == "densenet121 batch 8: 1.200 times the ONNX route, not 1.05"
    text = markdown(rows)
    assert "over the ONNX route, 1 rows of vgg16, resnet18, mobilenet_v2, densenet: 0.800." in text
    assert f"over the ONNX route, 2 rows of {', '.join(ALL_CNNS)}: 0.894." in text


def test_short_rows_of_a_model_are_judged_together():
    fast = result("vgg16", 1, ours=0.08, fp16=0.1, route=0.1)
    slow = result("vgg16", 8, ours=0.112, fp16=0.1, route=0.1)
    assert problems([fast, slow, result("resnet18", ours=0.7)]) == []
    found = problems([slow, result("resnet18", ours=0.7)])
    assert any("vgg16 batch 8: 1.120 times our FP16" in problem for problem in found)


def test_other_models_are_shown_and_not_judged():
    extra = result("vit_base_patch16_224", ours=2.0, fp16=1.0)
    assert problems([extra, result()]) == []
    text = markdown([extra, result()])
    assert "| vit_base_patch16_224 | 8 | 2.0000 | 1.0000 | 1.0000 | 2.000 | 2.000 |" in text
    assert f"over the ONNX route, 1 rows of {', '.join(ALL_CNNS)}: 0.800." in text
    assert "Some GPU" in text and text.index("resnet50") < text.index("vit_base")


def jobs_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> list[Job]:
    ran: list[Job] = []

    def run_jobs(jobs: list[Job], *_: Any) -> list[Any]:
        ran.extend(jobs)
        return []

    monkeypatch.setattr(speed, "run_jobs", run_jobs)
    assert speed.main(list(arguments)) == 1  # rows are missing
    return ran


def test_every_row_is_a_command_that_latency_takes(tmp_path, monkeypatch):
    jobs = jobs_of(monkeypatch, "--output", str(tmp_path), "--time-limit", "300", "--commit", "abc")
    assert len(jobs) == len(CNNS) * 3
    for job in jobs:
        options = latency.parse_arguments(job.command[2:])
        (batch,) = options.batch
        assert job.name == f"latency-{options.model}-b{batch}"
        assert (options.output, options.commit, options.time_limit) == (tmp_path, "abc", 280.0)
        assert job.seconds == 300.0
    needs = [job.needs for job in jobs]
    assert needs == sorted(needs, reverse=True)
    assert set(speed.SECONDS_NEEDED) == set(IMAGE_SIZE)


def test_finished_rows_are_not_run_again(tmp_path, monkeypatch):
    write_result(tmp_path / "latency-vgg16-b1.json", result("vgg16", 1))
    write_result(tmp_path / "latency-vgg16-b8.json", {**result("vgg16", 8), "finished": False})
    rows = ("--models", "vgg16", "--output", str(tmp_path))
    names = [job.name for job in jobs_of(monkeypatch, *rows)]
    assert names == ["latency-vgg16-b8", "latency-vgg16-b64"]
    names = [job.name for job in jobs_of(monkeypatch, *rows, "--again")]
    assert len(names) == 3


def test_a_row_without_the_route_is_not_finished(tmp_path, monkeypatch):
    row = result("vgg16", 1)
    del row["contenders"]["onnx-int8"]
    write_result(tmp_path / "latency-vgg16-b1.json", row)
    jobs = jobs_of(monkeypatch, "--models", "vgg16", "--batches", "1", "--output", str(tmp_path))
    assert [job.name for job in jobs] == ["latency-vgg16-b1"]


def test_summarizing_names_what_is_missing(tmp_path, capsys):
    there = tmp_path / "latency-resnet50-b8.json"
    write_result(there, result())
    assert speed.main(["--summarize", str(there)]) == 0
    assert speed.main(["--summarize", str(there), str(Path(tmp_path) / "none.json")]) == 1
    assert "none.json cannot be read" in capsys.readouterr().out
