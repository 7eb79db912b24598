"""Values that are moved between where they are computed and where INT8 reads them: pools, views, concatenations."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from ptq.placed import conv, image, placed
from torch import Tensor, nn


def test_one_scale_through_max_pool_and_flatten() -> None:
    model = nn.Sequential(
        conv(8, 4),
        nn.ReLU(),
        conv(4, 4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        conv(4, 6),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(24, 5),
        nn.ReLU(),
        nn.Linear(5, 3),
    )
    result = placed(model, [image()])
    assert result.readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1"],
        "max_pool2d": ["convolution_2"],
        "reshape": ["linear"],
        "relu_3": ["linear_1"],
        # At the start of each chain, too.
        "relu_1": ["max_pool2d"],
        "relu_2": ["max_pool2d_1"],
    }
    assert result.shared == [("relu_1", "max_pool2d"), ("relu_2", "reshape")]


class Inception(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.three, self.pooled = conv(32, 4, 1), conv(32, 4), conv(32, 2, 1)
        self.after = conv(10, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(x)
        branches = [self.one(x), self.three(x), self.pooled(F.max_pool2d(x, 3, 1, 1))]
        return self.after(torch.cat([torch.relu(branch) for branch in branches], 1))


def test_a_concatenation_is_quantized_as_one() -> None:
    result = placed(Inception(), [image(32)])
    assert result.readers == {
        # The pool, too, reads INT8: otherwise the value would be needed in both types.
        "relu": ["convolution", "convolution_1", "max_pool2d"],
        "max_pool2d": ["convolution_2"],
        "cat": ["convolution_3"],
    }
    assert result.shared == [("relu", "max_pool2d")]


class Branches(nn.Module):
    """One value goes to several layers, each time moved differently; ``leave`` reads it, moved, in floating point."""

    def __init__(self, leave: Callable[[Tensor], Tensor] | None = None) -> None:
        super().__init__()
        self.before, self.after = conv(8, 8), conv(8, 4)
        self.pooled, self.pooled_twice, self.flat = conv(8, 4), conv(8, 4), nn.Linear(128, 3)
        self.leave = leave

    def forward(self, x: Tensor) -> list[Tensor]:
        x = torch.relu(self.before(x))
        once = F.max_pool2d(x, 2)
        twice = F.max_pool2d(once, 3, 1, 1)
        outputs = [self.pooled(once), self.pooled_twice(twice), self.flat(once.flatten(1))]
        return outputs if self.leave is None else [*outputs, self.leave(twice.flip(3))]


def test_a_value_that_int8_alone_reads_along_several_chains() -> None:
    result = placed(Branches(), [image()])
    assert result.readers == {
        "input_0": ["convolution"],
        "relu": ["max_pool2d"],
        "max_pool2d": ["convolution_1", "max_pool2d_1", "reshape"],
        "max_pool2d_1": ["convolution_2"],
        "reshape": ["linear"],
    }
    assert result.shared == [("relu", "max_pool2d", "max_pool2d_1", "reshape")]


def test_one_reader_in_floating_point_at_the_end_of_a_chain_is_enough() -> None:
    assert placed(Branches(torch.sigmoid), [image()]).readers == {
        "input_0": ["convolution"],
        "max_pool2d": ["convolution_1"],
        "max_pool2d_1": ["convolution_2"],
        "reshape": ["linear"],
    }


class BesideAConstant(nn.Module):
    """A value that is concatenated to a constant and has a reader of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.own, self.after = conv(32, 8), conv(8, 4), conv(9, 4)
        self.plane = nn.Parameter(torch.randn(2, 1, 8, 8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.relu(self.before(x))
        return self.own(x), self.after(torch.cat([x, self.plane], 1))


def test_a_concatenation_with_a_constant_is_quantized_as_one() -> None:
    """Dequantized beside a constant that is not, it would have to be concatenated in floating point."""
    result = placed(BesideAConstant(), [image(32)])
    assert result.readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1"],
        "cat": ["convolution_2"],
    }


def test_a_pool_along_one_axis_keeps_the_scale() -> None:
    model = nn.Sequential(nn.Conv1d(8, 8, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(8, 4, 3))
    result = placed(model, [torch.randn(2, 8, 16)])
    assert result.readers == {
        "input_0": ["convolution"],
        "max_pool1d": ["convolution_1"],
        "relu": ["max_pool1d"],
    }
    assert result.shared == [("relu", "max_pool1d")]


class ReadOnTheWay(nn.Module):
    """A branch is quantized for a convolution of its own and for the one after the concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.after = conv(32, 4), conv(32, 4), conv(8, 4)
        self.own = conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = torch.relu(self.left(x)), torch.relu(self.right(x))
        return self.after(torch.cat([left, right], 1)), self.own(left)


def test_what_enters_a_concatenation_shares_its_scale() -> None:
    result = placed(ReadOnTheWay(), [image(32)])
    assert result.readers == {
        "input_0": ["convolution", "convolution_1"],
        "cat": ["convolution_2"],
        "relu": ["convolution_3", "cat"],
        "relu_1": ["cat"],
    }
    assert result.shared == [("relu", "relu_1", "cat")]


def test_average_pools_in_front_of_linear_layers_run_in_int8() -> None:
    model = nn.Sequential(
        conv(8, 8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    result = placed(model, [image()])
    assert result.readers == {
        "input_0": ["convolution"],
        "reshape": ["linear"],
        "relu": ["adaptive_avg_pool2d"],
        "adaptive_avg_pool2d": ["reshape"],
    }
    # An average has a smaller range than what it averages.
    assert result.shared == [("adaptive_avg_pool2d", "reshape")]


def test_average_pools_whose_result_nobody_quantizes_stay_in_floating_point() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.AvgPool2d(2), nn.Sigmoid())
    assert placed(model, [image()]).readers == {"input_0": ["convolution"]}


@pytest.mark.parametrize(
    "computed",
    [
        nn.Sequential(conv(8, 8, groups=8), nn.Hardswish()),
        nn.Sequential(conv(8, 8), nn.GroupNorm(2, 8), nn.ReLU()),
    ],
    ids=["depthwise", "norm"],
)
def test_what_floating_point_computes_is_averaged_in_floating_point(computed: nn.Module) -> None:
    """A Q for the pool would read all that is averaged; the one behind it reads the averages."""
    model = nn.Sequential(
        conv(8, 8), computed, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    )
    readers = placed(model, [image()]).readers
    assert readers["adaptive_avg_pool2d"] == ["reshape"] and readers["reshape"] == ["linear"]
    assert not any("adaptive_avg_pool2d" in reader for reader in readers.values())


def test_averages_of_averages_run_in_int8() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.AvgPool2d(2), nn.AvgPool2d(2), conv(8, 4))
    assert placed(model, [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["avg_pool2d"],
        "avg_pool2d": ["avg_pool2d_1"],
        "avg_pool2d_1": ["convolution_1"],
    }


class TwoReaders(nn.Module):
    """The pool's result is also read in floating point."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.after = conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        pooled = F.max_pool2d(torch.relu(self.before(x)), 2)
        return self.after(pooled), torch.sigmoid(pooled)


def test_a_chain_that_floating_point_reads_too_is_quantized_only_for_int8() -> None:
    assert placed(TwoReaders(), [image()]).readers == {
        "input_0": ["convolution"],
        "max_pool2d": ["convolution_1"],
    }


def test_a_chain_through_pytorch_is_quantized_only_behind_it() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8))
    result = placed(model, [image()], torch_executed_ops={"aten.max_pool2d"})
    assert result.readers == {"input_0": ["convolution"], "max_pool2d": ["convolution_1"]}


MOVEMENTS: dict[str, tuple[Callable[[Tensor], Tensor], list[str]]] = {
    "roll": (lambda x: x.roll((1, 2), (2, 3)), ["roll"]),
    "repeat": (lambda x: x.repeat(1, 1, 2, 1), ["repeat"]),
    "flip": (lambda x: x.flip(3), ["flip"]),
    "expand": (lambda x: x.unsqueeze(1).expand(-1, 3, -1, -1, -1).flatten(0, 1), ["reshape"]),
    "index_select": (lambda x: x.index_select(1, torch.arange(7, -1, -1)), ["index_select"]),
    "zero padding": (lambda x: F.pad(x, (1, 0, 2, 1)), ["constant_pad_nd"]),
    "reflection": (lambda x: F.pad(x, (1, 0, 2, 1), "reflect"), ["reflection_pad2d"]),
    "replication": (lambda x: F.pad(x, (1, 0, 2, 1), "replicate"), ["replication_pad2d"]),
    "circular": (lambda x: F.pad(x, (1, 0, 2, 1), "circular"), ["_pad_circular"]),
    "channel shuffle": (lambda x: F.channel_shuffle(x, 2), ["reshape_1"]),
    "pixels": (lambda x: F.pixel_shuffle(x.repeat(1, 4, 1, 1), 2), ["reshape_1"]),
}


class Moved(nn.Module):
    """What a convolution gives, moved to another one."""

    def __init__(self, move: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.before, self.move, self.after = conv(8, 8), move, conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.move(torch.relu(self.before(x))))


@pytest.mark.parametrize("name", MOVEMENTS)
def test_what_is_only_moved_keeps_its_scale(name: str) -> None:
    move, (moved,) = MOVEMENTS[name]
    result = placed(Moved(move), [image()])
    first = next(reader for value, (reader, *_) in result.readers.items() if value == "relu")
    assert result.readers == {
        "input_0": ["convolution"],
        moved: ["convolution_1"],
        "relu": [first],
    }
    assert result.shared == [("relu", moved)]


def test_padding_with_another_value_has_a_scale_of_its_own() -> None:
    result = placed(Moved(lambda x: F.pad(x, (1, 1), value=9.0)), [image()])
    assert result.readers == {"input_0": ["convolution"], "constant_pad_nd": ["convolution_1"]}
    assert result.shared == []


class Halves(nn.Module):
    """Both halves of a value are convolved, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = conv(4, 4), conv(4, 4)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        left, right = torch.relu(x).chunk(2, 1)
        return self.left(left), self.right(right)


def test_parts_of_one_value_share_its_scale() -> None:
    result = placed(Halves(), [image()])
    assert result.readers == {"getitem": ["convolution"], "getitem_1": ["convolution_1"]}
    assert result.shared == [("getitem", "getitem_1")]


@pytest.mark.parametrize(
    "pick", [lambda y: y[:, :, 0].unsqueeze(2), lambda y: y[:, :, :4]], ids=["one", "some"]
)
def test_what_a_part_is_picked_from_has_no_say_in_its_scale(
    pick: Callable[[Tensor], Tensor],
) -> None:
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.after = conv(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.after(pick(torch.relu(x)))

    result = placed(Picked(), [image()])
    assert list(result.readers.values()) == [["convolution"]] and "relu" not in result.readers
    assert result.shared == []


def test_indices_have_no_scale() -> None:
    class Picked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.after = conv(8, 4)

        def forward(self, x: Tensor, places: Tensor) -> Tensor:
            return self.after(torch.relu(x).index_select(1, places))

    result = placed(Picked(), [image(), torch.arange(8)])
    assert result.readers == {"index_select": ["convolution"], "relu": ["index_select"]}
    assert result.shared == [("relu", "index_select")]
