"""The benchmark of calibration: what it measures, on a small model."""

from __future__ import annotations

import calibration_throughput as benchmark
import pytest
import torch
from result_file import read_result

SMALL = ["--model", "squeezenet1_1", "--batch", "2", "--size", "64", "--device", "cpu"]


def test_defaults_are_those_of_the_bar():
    options = benchmark.parse_arguments(["--device", "cpu"])
    assert (options.model, options.batch, options.size, options.rounds) == ("resnet50", 32, 224, 5)
    assert options.output.name == "calibration-resnet50-cpu.json"
    assert benchmark.BAR == 0.85
    assert benchmark.MEMORY_BATCHES == (4, 64)


def test_nothing_to_measure_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        benchmark.parse_arguments(["--rounds", "0"])
    assert "not at least 1" in capsys.readouterr().err


def test_passes_give_the_same_images():
    images = benchmark.Images(3, (2, 3, 4, 4))
    first, second = list(images), list(images)
    assert len(first) == 3
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_a_result(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        benchmark, "memory_in_new_process", lambda options, n: {"before": 1, "peak": n}
    )
    output = tmp_path / "result.json"
    command = [*SMALL, "--batches", "2", "--rounds", "3", "--output", str(output)]
    status = benchmark.main(command)
    result = read_result(output, "calibration throughput")
    assert len(result["rounds_seconds"]) == result["ratio"]["count"] == 3
    for times, number in zip(result["rounds_seconds"], range(3), strict=True):
        assert list(times)[number % 2] == "plain"
    assert result["tensors"] >= 19
    assert set(result["memory_bytes"]) == {"4", "64"}
    assert status == (0 if result["ratio"]["median"] >= 0.85 else 1)
    assert "squeezenet1_1 on cpu" in capsys.readouterr().out


def test_memory_is_that_of_a_process(capsys):
    assert benchmark.main([*SMALL, "--memory", "1"]) == 0
    measured = benchmark.json.loads(capsys.readouterr().out)
    assert 0 < measured["before"] <= measured["peak"]
