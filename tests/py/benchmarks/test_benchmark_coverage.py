from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

import model_coverage
import pytest
import torch
from coverage_models import MODELS, STATIC, Feature, Model
from coverage_run import measure, randomized, settle
from model_coverage import is_right, is_whole, main, problem_of, summary
from torch import nn

from trtcompile.conversion import REGISTRY

GOOD: dict[str, Any] = {
    "model": "a",
    "engines": 1,
    "fallbacks": [],
    "computed_by": "oracle",
    "largest_error": 1e-5,
    "seconds_before_builder": 2.0,
    "weight_bytes": 10**9,
    "peak_bytes": 3 * 10**9,
}


def test_a_good_row_has_no_problem():
    assert problem_of(GOOD) is None
    assert is_whole(GOOD) and is_right(GOOD)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"largest_error": 2e-4}, "largest error 0.0002"),
        ({"largest_error": float("nan")}, "largest error nan"),
        ({"largest_error": 2e-3, "computed_by": "engine"}, "largest error 0.002"),
        ({"fallbacks": ["aten.x (none) x2"], "engines": 3}, "fallbacks: aten.x"),
        ({"engines": 2}, "2 engines"),
        ({"seconds_before_builder": 15.5}, "16 s before"),
        ({"peak_bytes": 4 * 10**9}, "4.0 GB"),
        ({"error": "ConversionError: no"}, "ConversionError: no"),
    ],
)
def test_problems(change: dict[str, Any], said: str):
    assert said in str(problem_of({**GOOD, **change}))


def test_what_was_not_run_counts_as_not_reached():
    failed = {"model": "b", "problem": "crashed"}
    text = summary([GOOD, failed], listed=4)
    assert "2 of 4 models run" in text
    assert "in one engine with no fallback: 1 (25%" in text and "right: 1 (25%" in text


def test_the_list():
    names = [model.name for model in MODELS]
    assert len(set(names)) == len(names) >= 70
    assert sum(model.dynamic for model in MODELS) * 3 >= 2 * len(MODELS)
    assert main(["--models", "no such model"]) == 1


def test_samples():
    generator = torch.Generator().manual_seed(0)
    assert Feature(("batch", 3, 8, 8)).sample(STATIC, generator).shape == (2, 3, 8, 8)
    tokens = Feature(("batch", "sequence"), high=5).sample(STATIC, generator)
    assert tokens.dtype == torch.int64 and int(tokens.max()) < 5
    mask = Feature(("batch", "sequence"), mask=True).sample(STATIC, generator)
    assert mask.sum(dim=1).tolist() == [16, 15]


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor, *, shift: torch.Tensor) -> torch.Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3)) + shift


SMALL = Model("test/small", Small, (Feature(("batch", 3, 8, 8)),), {"shift": Feature(("batch", 4))})


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_model_is_measured(dynamic: bool):
    row = measure(SMALL, dynamic=dynamic, build=not dynamic)
    assert (row["engines"], row["fallbacks"], row["built"]) == (1, [], not dynamic)
    assert 0 < row["largest_error"] < 1e-4 and row["nodes"] == row["nodes_in_tensorrt"] > 3
    assert 0 < row["eager_error"] < 1e-4
    assert row["weight_bytes"] > 400 and problem_of(row) is None


def test_wrong_numbers_show(monkeypatch: pytest.MonkeyPatch):
    relu = torch.ops.aten.relu.default
    wrong = dataclasses.replace(REGISTRY.get(relu), convert=lambda net, self: net.identity(self))
    monkeypatch.setitem(REGISTRY._converters, relu, wrong)
    assert measure(SMALL, dynamic=False, build=False)["largest_error"] > 1e-2


def test_a_model_that_fails_is_a_row():
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("not this one")

    row = measure(Model("test/failing", Failing, SMALL.inputs), dynamic=False, build=False)
    assert "not this one" in row["error"]


def test_every_parameter_and_statistic_is_random():
    model = randomized(Small(), seed=0)
    tensors = [*model.parameters(), model.norm.running_mean, model.norm.running_var]
    assert all(tensor.unique().numel() > 1 for tensor in tensors)


class Standardizing(nn.Conv2d):
    """Its weight's own scale does not matter."""

    def __init__(self) -> None:
        super().__init__(3, 4, 3)
        self.gain = nn.Parameter(torch.ones(4, 1, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.gain * self.weight / self.weight.std(dim=(1, 2, 3), keepdim=True)
        return torch.conv2d(x, weight, self.bias)


@pytest.mark.parametrize("layer", [nn.Conv2d(3, 4, 3), Standardizing()], ids=["plain", "gain"])
def test_results_of_a_settled_layer_vary_by_one(layer: nn.Module):
    module = randomized(layer, seed=0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter *= 7
        settle(module, Model("test/layer", lambda: module, (Feature(("batch", 3, 8, 8)),)))
        images = Feature((64, 3, 8, 8)).sample({}, torch.Generator().manual_seed(0))
        assert 0.8 < module(images).std().item() < 1.25


def test_a_weight_that_two_layers_share_is_scaled_once():
    first, second = nn.Linear(8, 8), nn.Linear(8, 8)
    second.weight = first.weight
    module = randomized(nn.Sequential(first, second), seed=0)
    settle(module, Model("test/shared", lambda: module, (Feature(("batch", 8)),)))
    features = Feature((256, 8)).sample({}, torch.Generator().manual_seed(0))
    assert 0.7 < first(features).std().item() < 1.4


def test_a_layer_in_a_loop_is_left_alone():
    layer = nn.Linear(8, 8)
    module = randomized(nn.Sequential(layer, nn.ReLU(), layer), seed=0)
    before = layer.weight.clone()
    settle(module, Model("test/loop", lambda: module, (Feature(("batch", 8)),)))
    assert torch.equal(layer.weight, before)


def test_does_not_stand_in_for_the_package_of_its_name(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delitem(sys.modules, "coverage", raising=False)
    with pytest.raises(ImportError, match="not the package"):
        importlib.import_module("coverage")


def test_an_engine_may_be_further_off_than_the_oracle():
    assert problem_of({**GOOD, "largest_error": 5e-4, "computed_by": "engine"}) is None


def test_models_run_side_by_side_on_all_gpus(monkeypatch: pytest.MonkeyPatch):
    both = threading.Barrier(2, timeout=60)

    def run(model: Model, options: argparse.Namespace, gpu: str) -> dict[str, Any]:
        both.wait()
        return {"model": model.name, "gpu": gpu}

    monkeypatch.setattr(model_coverage, "_in_a_process", run)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3,5")
    options = model_coverage.parse_arguments(["--jobs", "2"])
    rows = list(model_coverage._rows(MODELS[:4], options))
    assert [row["model"] for row in rows] == [model.name for model in MODELS[:4]]
    assert {row["gpu"] for row in rows} == {"3", "5"}


def test_rows_of_other_models_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    def run(model: Model, options: argparse.Namespace, gpu: str) -> dict[str, Any]:
        return {
            **GOOD,
            "model": model.name,
            "problem": None,
            "nodes": 1,
            "nodes_in_tensorrt": 1,
        } | {
            "seconds_in_builder": 0.0,
            "largest_error": error,
        }

    monkeypatch.setattr(model_coverage, "_in_a_process", run)
    output = tmp_path / "coverage.json"
    error = 1e-6
    assert main(["--models", "alexnet", "resnet18", "--output", str(output)]) == 0
    error = 1e-7
    assert main(["--models", "alexnet", "--keep-others", "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [(row["model"], row["largest_error"]) for row in rows] == [
        ("torchvision/alexnet", 1e-7),
        ("torchvision/resnet18", 1e-6),
    ]
    assert all(row["commit"] for row in rows)
