"""Which operators share an engine."""

from __future__ import annotations

import pytest
import torch
from checks import randomize
from partition.partitioned import assert_runs_as, parts, vector
from torch import Tensor, nn

from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator


def test_a_chain_that_changes_sides_twice() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.tanh(torch.sigmoid(torch.relu(x)))

    result = parts(model, [vector()], "sigmoid")
    assert result.engines == [["relu"], ["tanh"]] and result.torch == ["sigmoid"]
    assert_runs_as(result, model, vector())


def test_no_cycle_where_an_engine_and_a_bypass_meet() -> None:
    """relu and mul in one engine would have to run both before and after sigmoid."""

    def model(x: Tensor) -> Tensor:
        y = torch.relu(x)
        return torch.sigmoid(y) * y

    result = parts(model, [vector()], "sigmoid")
    assert result.engines == [["relu"], ["mul"]]
    assert_runs_as(result, model, vector())


def test_a_diamond_in_one_engine() -> None:
    def model(x: Tensor) -> Tensor:
        y = torch.relu(x)
        return torch.sigmoid(torch.tanh(y) + y.abs())

    result = parts(model, [vector()], "sigmoid")
    assert result.engines == [["relu", "tanh", "abs", "add"]]
    assert_runs_as(result, model, vector())


def test_a_diamond_with_pytorch_on_one_side() -> None:
    def model(x: Tensor) -> Tensor:
        y = torch.relu(x)
        return torch.tanh(y) + torch.sigmoid(y)

    result = parts(model, [vector()], "sigmoid")
    assert result.engines == [["relu", "tanh"], ["add"]]
    assert_runs_as(result, model, vector())


def test_parallel_branches_share_engines_step_by_step() -> None:
    def model(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return tuple(torch.tanh(torch.sigmoid(torch.relu(value))) for value in (x, y))

    result = parts(model, [vector(0), vector(1)], "sigmoid")
    assert result.engines == [["relu", "relu"], ["tanh", "tanh"]]
    assert_runs_as(result, model, vector(0), vector(1))


def test_branches_that_begin_and_end_on_different_sides() -> None:
    def model(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return torch.relu(torch.sigmoid(x)), torch.sigmoid(torch.relu(y))

    result = parts(model, [vector(0), vector(1)], "sigmoid")
    assert result.engines == [["relu", "relu"]]
    assert_runs_as(result, model, vector(0), vector(1))


def test_branches_of_different_length_share_engines() -> None:

    def model(x: Tensor, y: Tensor) -> Tensor:
        late = torch.sigmoid(torch.relu(torch.sigmoid(x)))
        return torch.tanh(late) + torch.relu(y) * torch.sigmoid(y)

    result = parts(model, [vector(0), vector(1)], "sigmoid")
    assert result.engines == [["relu", "relu", "mul"], ["tanh", "add"]]
    assert_runs_as(result, model, vector(0), vector(1))


class SmallTail(nn.Module):
    """Five operators, one for PyTorch, two."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(5):
            x = torch.relu(x) if x.dim() > 5 else torch.tanh(x)
        return (torch.sigmoid(x) * 2).abs()


@pytest.mark.parametrize(("least", "engines"), [(2, 2), (3, 1), (5, 1), (6, 0)])
def test_small_blocks_are_left_to_pytorch(least: int, engines: int) -> None:
    result = parts(SmallTail(), [vector()], "sigmoid", min_block_size=least)
    assert len(result.engines) == engines
    demoted = {name for name, reason in result.reasons.items() if "smaller" in reason}
    assert demoted == {2: set(), 1: {"mul", "abs"}, 0: {"tanh", "mul", "abs"}}[engines]
    if engines == 1:
        reason = f"its block of 2 operators is smaller than min_block_size={least}"
        assert result.reasons["mul"] == reason
    assert_runs_as(result, SmallTail(), vector())


def test_a_model_that_fits_whole_is_never_too_small() -> None:
    result = parts(torch.relu, [vector()], min_block_size=100)
    assert result.engines == [["relu"]]


def test_a_block_left_to_pytorch_joins_its_neighbours() -> None:
    def model(x: Tensor) -> Tensor:
        x = torch.sigmoid(torch.tanh(torch.tanh(x)))
        return torch.tanh(torch.tanh(torch.sigmoid(torch.relu(x))))

    assert len(parts(model, [vector()], "sigmoid").engines) == 3
    result = parts(model, [vector()], "sigmoid", min_block_size=2)
    assert result.engines == [["tanh", "tanh"], ["tanh", "tanh"]]
    assert result.torch == ["sigmoid", "relu", "sigmoid"]
    assert result.reasons["relu"] == "its block of 1 operators is smaller than min_block_size=2"
    assert_runs_as(result, model, vector())


def test_casts_and_qdq_do_not_make_a_block_larger() -> None:
    model = nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.ReLU())
    calibrator = DataLoaderCalibrator(
        [vector()], algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
    )
    options = {"enabled_precisions": {torch.int8, torch.float16}, "calibrator": calibrator}
    assert parts(model, [vector()], "sigmoid", **options).engines != []
    with pytest.warns(match="only 0% of the multiply-adds"):
        result = parts(model, [vector()], "sigmoid", min_block_size=2, **options)
    assert result.engines == []
    assert result.torch == ["linear", "sigmoid", "relu"]  # neither quantized nor cast
    assert_runs_as(result, model, vector())


def test_int8_weights_are_in_the_engine_of_their_operator() -> None:
    model = randomize(nn.Sequential(nn.Linear(6, 6), nn.Sigmoid(), nn.Linear(6, 6)), seed=0)
    calibrator = DataLoaderCalibrator(
        [vector()], algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
    )
    result = parts(
        model, [vector()], "sigmoid", enabled_precisions={torch.int8}, calibrator=calibrator
    )
    operator = [
        "quantize_per_tensor",
        "dequantize_per_tensor",
        "quantize_per_channel",
        "dequantize_per_channel",
        "linear",
    ]
    assert result.engines == [operator, operator]
    assert [len(engine.profiles[0]) for engine in result.partitioned.engines] == [1, 1]
    (simulated,) = result.lowered(vector())
    torch.testing.assert_close(result.run(vector())[0], simulated, rtol=1e-5, atol=1e-5)


class LateResidual(nn.Module):
    """What is added is ready long before the convolution that it is added to."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        return self.second(torch.sigmoid(self.first(x))) + x


def test_qdq_of_a_residual_is_in_the_engine_that_adds_it() -> None:
    x = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(0))
    calibrator = DataLoaderCalibrator([x], progress=False)
    result = parts(
        randomize(LateResidual(), seed=0),
        [x],
        "sigmoid",
        enabled_precisions={torch.int8},
        calibrator=calibrator,
    )
    first, second = result.engines
    assert first.count("quantize_per_tensor") == 1 and second.count("quantize_per_tensor") == 1
    (simulated,) = result.lowered(x)
    torch.testing.assert_close(result.run(x)[0], simulated, rtol=1e-4, atol=1e-4)


def test_what_is_made_of_constants_for_pytorch_is_no_engine() -> None:
    """A constant too large to be folded."""

    def model(x: Tensor) -> Tensor:
        return torch.sigmoid(torch.arange(4.0).expand(2_000_000, 4)[:2, :1] * 2 + x)

    result = parts(model, [vector()], "sigmoid", "add", "mul")
    assert result.engines == []
    assert_runs_as(result, model, vector())
