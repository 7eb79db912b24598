"""The verdict on each operator, and its reason."""

from __future__ import annotations

import torch
from partition.partitioned import assert_runs_as, parts, vector


def test_an_operator_without_a_converter_says_so() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.relu(torch.special.bessel_j0(torch.relu(x)))

    result = parts(model, [vector()])
    assert result.reasons == {
        "special_bessel_j0": "aten.special_bessel_j0.default has no converter"
    }
    assert result.engines == [["relu"], ["relu"]] and result.torch == ["special_bessel_j0"]
    assert_runs_as(result, model, vector())


def test_exclusion_by_overload_and_by_family() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x) * torch.tanh(x)

    by_family = parts(model, [vector()], "sigmoid")
    by_overload = parts(model, [vector()], "sigmoid.default")
    by_another_overload = parts(model, [vector()], "sigmoid.out")
    reason = "torch_executed_ops leaves it to PyTorch"
    assert by_family.reasons == by_overload.reasons == {"sigmoid": reason}
    assert by_another_overload.reasons == {}


def test_float64_stays_in_pytorch() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.relu((torch.relu(x).double() * 3).float())

    result = parts(model, [vector()])
    assert result.engines == [["relu"], ["relu"]]
    assert set(result.reasons.values()) == {"TensorRT has no float64 tensors"}
    assert_runs_as(result, model, vector())


def test_a_converter_that_cannot_take_the_arguments_gives_its_own_reason() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        return torch.conv2d(x, torch.ones(3, 2, 3, 3, dtype=torch.int64))

    result = parts(model, [torch.ones(1, 2, 4, 4, dtype=torch.int64)])
    assert "floating-point tensors" in result.reasons["convolution"]
    assert result.engines == []


def test_an_output_of_what_pytorch_runs_is_picked_in_pytorch() -> None:
    def model(x: torch.Tensor) -> torch.Tensor:
        values, _ = torch.sort(torch.relu(x), dim=1)
        return torch.tanh(values)

    result = parts(model, [vector()], "sort")
    assert result.engines == [["relu"], ["tanh"]]
    picked = [reason for reason in result.reasons.values() if "picks" in reason]
    assert picked == ["it picks an output of aten.sort.default, which runs in PyTorch"]
    assert_runs_as(result, model, vector())
