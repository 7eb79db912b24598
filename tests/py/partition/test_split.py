"""The executor: the PyTorch remainder that calls the engines."""

from __future__ import annotations

import pytest
import torch
from checks import build_device, install_oracle
from partition.partitioned import assert_runs_as, parts, vector
from torch import Tensor, nn

import trtcompile
from trtcompile import Input
from trtcompile.errors import UnsupportedGraphError


def test_several_outputs_in_the_models_order() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(x)
        return torch.tanh(y), torch.sigmoid(y), y, y.abs() * 2

    result = parts(model, [vector()], "sigmoid")
    assert len(result.engines) == 1
    assert_runs_as(result, model, vector())


def test_an_output_that_is_an_input() -> None:
    def model(x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        return x, torch.relu(y), y

    assert_runs_as(parts(model, [vector(0), vector(1)]), model, vector(0), vector(1))


def test_a_value_that_is_returned_twice() -> None:
    def model(x: Tensor) -> tuple[Tensor, ...]:
        y = torch.relu(x)
        return y, torch.tanh(y), y

    result = parts(model, [vector()])
    assert len(result.engines) == 1
    assert_runs_as(result, model, vector())


class ConstantOutput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([1.0, -2.0]))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.mean * 2, torch.relu(x), self.mean


def test_outputs_that_are_constants() -> None:
    result = parts(ConstantOutput(), [vector()])
    assert result.engines == [["relu"]]
    assert_runs_as(result, ConstantOutput(), vector())


def test_an_input_that_nobody_reads() -> None:
    def model(x: Tensor, unused: Tensor) -> Tensor:
        return torch.relu(x)

    result = parts(model, [vector(0), vector(1)])
    assert [len(profile) for profile in result.partitioned.engines[0].profiles] == [1]
    assert_runs_as(result, model, vector(0), vector(1))


def test_sizes_are_computed_where_they_are_needed() -> None:
    def model(x: Tensor) -> Tensor:
        y = torch.sigmoid(torch.relu(x))
        return torch.tanh(y.reshape(x.shape[0] * 3, -1)) + x.shape[0]

    result = parts(model, [Input(min_shape=(2, 6), opt_shape=(4, 6), max_shape=(8, 6))], "sigmoid")
    assert len(result.engines) == 2
    ranges = [engine.profiles[0][0] for engine in result.partitioned.engines]
    assert ranges[0] == ((2, 6), (4, 6), (8, 6))
    for rows in (2, 5, 8):
        assert_runs_as(result, model, torch.randn(rows, 6))


def test_ranges_of_what_lies_between_engines() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.tanh(torch.sigmoid(torch.cat([x, x], 0)[1:]))

    result = parts(
        model, [Input(min_shape=(2, 6), opt_shape=(4, 6), max_shape=(8, 6))], "sigmoid", "cat"
    )
    second = result.partitioned.engines[-1]
    assert second.profiles == ((((3, 6), (7, 6), (15, 6)),),)


def test_the_graph_itself_is_left_as_it_was() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.tanh(torch.sigmoid(torch.relu(x)))

    result = parts(model, [vector()], "sigmoid")
    (output,) = result.lowered(vector())
    torch.testing.assert_close(output, model(vector()))


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.last = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        joined = torch.sigmoid(self.left(x)) + torch.relu(self.right(x))
        return {"mean": joined.mean((2, 3)), "scores": self.last(joined.amax((2, 3)))}


def test_a_compiled_module_with_fallbacks_computes_what_the_model_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install_oracle(monkeypatch)
    model = Branches().eval()
    compiled = trtcompile.compile(
        model,
        [Input((2, 3, 6, 6))],
        device=build_device(disable_tf32=True),
        torch_executed_ops={torch.ops.aten.sigmoid},
        min_block_size=1,
    )
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = model(x)
    actual = compiled(x)
    assert len(compiled.engines) == 2 and list(actual) == list(expected)
    for name in expected:
        torch.testing.assert_close(actual[name], expected[name], rtol=1e-5, atol=1e-5)


def test_full_compilation_names_everything_that_fell_back() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.tanh(torch.special.bessel_j0(torch.sigmoid(torch.relu(x))))

    with pytest.raises(
        UnsupportedGraphError, match="2 operators cannot go into TensorRT"
    ) as caught:
        parts(model, [vector()], "sigmoid", require_full_compilation=True)
    report = caught.value.report
    assert [row.operator for row in report.fallbacks] == [
        "aten.sigmoid.default",
        "aten.special_bessel_j0.default",
    ]
    assert str(report) in str(caught.value)
    assert "aten.special_bessel_j0.default has no converter" in str(report)


def test_a_model_of_which_nothing_fits_is_refused_with_the_reasons() -> None:
    with pytest.raises(UnsupportedGraphError, match="nothing of the model") as caught:
        trtcompile.compile(
            nn.Sigmoid().eval(),
            [Input((2, 3))],
            device=build_device(),
            torch_executed_ops={"aten.sigmoid"},
        )
    assert [row.reason for row in caught.value.report.fallbacks] == [
        "torch_executed_ops leaves it to PyTorch"
    ]
