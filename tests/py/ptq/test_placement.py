"""Where Q/DQ go, on the building blocks of known networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from ptq.placed import conv, image, placed
from torch import Tensor, nn
from torchvision.models.mobilenetv2 import InvertedResidual
from torchvision.models.resnet import BasicBlock, Bottleneck

from trtcompile.node_info import layer_name


def stem(block: nn.Module) -> nn.Module:
    """A block after a convolution and an activation, as in the middle of a network."""
    return nn.Sequential(conv(8, 8), nn.ReLU(), block)


def projection(outputs: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(8, outputs, 1, stride=2, bias=False), nn.BatchNorm2d(outputs))


def test_inputs_of_convolutions_and_linear_layers_are_quantized() -> None:
    model = nn.Sequential(
        conv(8, 4), nn.BatchNorm2d(4), nn.ReLU(), conv(4, 4), nn.ReLU(), nn.Flatten(1, 2)
    )
    result = placed(model, [image()])
    assert result.readers == {"input_0": ["convolution"], "relu": ["convolution_1"]}
    assert result.weight_axes == {"convolution": 0, "convolution_1": 0}
    assert result.shared == [] and result.skipped == {}


def test_identity_shortcut_is_quantized_once_for_the_convolution_and_the_add() -> None:
    assert placed(stem(BasicBlock(8, 8)), [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1", "add"],
        "relu_1": ["convolution_2"],
    }


class Multiple(nn.Module):
    """The residual is scaled before it is added, which no convolution does in its epilogue."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.main, self.after = conv(8, 8), conv(8, 8), conv(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        return self.after(torch.relu(torch.add(self.main(torch.relu(x)), x.sigmoid(), alpha=2)))


def test_a_multiple_of_a_value_is_no_residual() -> None:
    assert placed(Multiple(), [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1"],
        "relu_1": ["convolution_2"],
    }


def test_projection_shortcut_is_the_residual_and_shares_the_block_input() -> None:
    model = stem(BasicBlock(8, 16, 2, projection(16)))
    assert placed(model, [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1", "convolution_3"],
        "relu_1": ["convolution_2"],
        "convolution_3": ["add"],
    }


class ProjectionFirst(nn.Module):
    """The shortcut is computed before the main path and is the add's left operand."""

    def __init__(self) -> None:
        super().__init__()
        self.shortcut, self.first, self.second = conv(8, 8, 1), conv(8, 8), conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.shortcut(x)
        return torch.relu(shortcut + self.second(torch.relu(self.first(x))))


def test_the_shorter_of_two_paths_is_the_residual_in_whatever_order() -> None:
    assert placed(ProjectionFirst(), [image()]).readers == {
        "input_0": ["convolution", "convolution_1"],
        "relu": ["convolution_2"],
        "convolution": ["add"],
    }


def test_bottleneck_with_identity_shortcut() -> None:
    assert placed(stem(Bottleneck(8, 2)), [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1", "add"],
        "relu_1": ["convolution_2"],
        "relu_2": ["convolution_3"],
    }


def test_bottleneck_with_projection_shortcut() -> None:
    assert placed(stem(Bottleneck(8, 4, 2, projection(16))), [image()]).readers == {
        "input_0": ["convolution"],
        "relu": ["convolution_1", "convolution_4"],
        "relu_1": ["convolution_2"],
        "relu_2": ["convolution_3"],
        "convolution_4": ["add"],
    }


def test_the_sum_of_two_blocks_is_quantized_once_for_all_its_readers() -> None:
    readers = placed(stem(nn.Sequential(BasicBlock(8, 8), BasicBlock(8, 8))), [image()]).readers
    assert readers["relu_2"] == ["convolution_3", "add_1"]


def test_inverted_residuals_have_depthwise_weights_by_channel_and_a_quantized_shortcut() -> None:
    model = nn.Sequential(InvertedResidual(8, 8, 1, 2), InvertedResidual(8, 16, 2, 2))
    result = placed(model, [image()])
    assert result.readers == {
        "input_0": ["convolution", "add"],
        "hardtanh": ["convolution_1"],
        "hardtanh_1": ["convolution_2"],
        "add": ["convolution_3"],
        "hardtanh_2": ["convolution_4"],
        "hardtanh_3": ["convolution_5"],
    }
    assert set(result.weight_axes.values()) == {0}


class FeedForward(nn.Module):
    """A transformer's block: its residual stream carries what INT8 would lose."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 16), nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.down(F.gelu(self.up(self.norm(x))))


def test_the_residual_stream_of_a_transformer_is_not_quantized() -> None:
    result = placed(nn.Sequential(FeedForward(), FeedForward()), [torch.randn(2, 3, 8)])
    assert len(result.readers) == 4
    assert {reader for readers in result.readers.values() for reader in readers} == {
        "linear",
        "linear_1",
        "linear_2",
        "linear_3",
    }
    assert not {"input_0", "add"} & set(result.readers)


class Gate(nn.Module):
    """Squeeze and excitation: the gate multiplies, and has one value for each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.squeeze, self.excite = conv(8, 8), nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        gate = self.excite(torch.relu(self.squeeze(y.mean((2, 3), keepdim=True))))
        return y * torch.sigmoid(gate) + x


def test_gates_stay_in_floating_point() -> None:
    """With what makes them: INT8 convolutions of one pixel cost more in Q than they save."""
    result = placed(Gate(), [image()])
    assert result.readers == {"input_0": ["convolution"]}
    assert result.rules == {"convolution_1": "one pixel", "convolution_2": "one pixel"}


class AddedBias(nn.Module):
    """What is added broadcasts, so it is no residual."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(8, 8)

    def forward(self, x: Tensor, offset: Tensor) -> Tensor:
        return self.body(x) + offset


def test_an_operand_that_broadcasts_is_no_residual() -> None:
    result = placed(AddedBias(), [image(), torch.randn(1, 8, 1, 1)])
    assert result.readers == {"input_0": ["convolution"]}


class ReadTwice(nn.Module):
    """The convolution's result is read by more than the add, so it cannot keep the sum to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        return (x + y) * torch.sigmoid(y)


def test_no_residual_where_the_convolution_has_other_readers() -> None:
    assert placed(ReadTwice(), [image()]).readers == {"input_0": ["convolution"]}


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions(groups: int) -> None:
    result = placed(nn.ConvTranspose2d(8, 4, 2, stride=2, groups=groups), [image()])
    if groups == 1:
        assert result.weight_axes == {"convolution": 1}
    else:
        assert result.readers == {} and result.weight_axes == {}
        assert "grouped transposed" in result.skipped["convolution"]


class ComputedWeight(nn.Module):
    def forward(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.linear(x, torch.tanh(weight))


def test_a_weight_that_the_model_computes_is_left_alone() -> None:
    result = placed(ComputedWeight(), [image(), torch.randn(4, 8)])
    assert result.readers == {}
    assert result.skipped == {"linear": "its weight is computed by the model"}


class ConstantInput(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("prototype", torch.randn(1, 8, 4, 4))
        self.body = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(torch.tanh(self.prototype)).mean()


def test_what_depends_on_constants_alone_is_folded_not_quantized() -> None:
    result = placed(ConstantInput(), [image()])
    assert result.readers == {} and result.weight_axes == {}


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = conv(8, 8).half()

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x.half()).float()


def test_inputs_that_are_not_float32_are_left_alone() -> None:
    result = placed(Half(), [image()])
    assert result.readers == {}
    assert result.skipped == {"convolution": "its input is torch.float16, not float32"}


def test_what_pytorch_runs_is_not_quantized() -> None:
    model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4))
    result = placed(model, [image()], torch_executed_ops={"aten.convolution"})
    assert result.readers == {"reshape": ["linear"], "relu": ["reshape"]}
    assert result.skipped == {"convolution": "it runs in PyTorch"}


class Shared(nn.Module):
    """One module, called twice on values of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.body = conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(torch.relu(self.body(x)))


def test_a_module_that_is_called_twice_is_quantized_at_each_call() -> None:
    result = placed(Shared(), [image()])
    assert result.readers == {"input_0": ["convolution"], "relu": ["convolution_1"]}
    assert result.weight_axes == {"convolution": 0, "convolution_1": 0}
    first, second = result.placement.weighted.values()
    assert first.weight.target == second.weight.target


def test_every_quantized_value_has_a_reason() -> None:
    placement = placed(stem(BasicBlock(8, 16, 2, projection(16))), [image()]).placement
    reads = [
        (layer_name(value), layer_name(reader), decision.rule, decision.why)
        for value, readers in placement.readers.items()
        for reader, decision in readers.items()
    ]
    assert reads == [
        ("input_0", "convolution", "weighted operator", "input of convolution"),
        ("relu", "convolution_1", "weighted operator", "input of convolution_1"),
        ("relu", "convolution_3", "weighted operator", "input of convolution_3"),
        ("relu_1", "convolution_2", "weighted operator", "input of convolution_2"),
        ("convolution_3", "add", "shortcut", "residual added to convolution_2"),
    ]


def test_a_model_without_weights_has_nothing_to_quantize() -> None:
    result = placed(nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)), [image()])
    assert result.readers == {} and result.shared == []
