"""The rules one by one: what each leaves out or quantizes, and what it must leave to the others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ptq.placed import conv, image, placed
from ptq.placement_table import PAGE, page
from torch import Tensor, nn
from torchvision.models.convnext import CNBlock
from torchvision.models.efficientnet import MBConv, MBConvConfig
from torchvision.models.vision_transformer import EncoderBlock

from trtcompile import Input
from trtcompile.ptq.placement.rule import LeavesOut, Quantizes, Shares
from trtcompile.ptq.placement.table import RULES

INT8 = {"enabled_precisions": {torch.int8}}
TOKENS = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(0))


def test_rules_have_names_of_their_own_and_a_documented_order() -> None:
    """Leaving out, then quantizing, then sharing."""
    assert len({rule.name for rule in RULES}) == len(RULES)
    kinds = [type(rule) for rule in RULES]
    assert kinds == sorted(kinds, key=[LeavesOut, Quantizes, Shares].index)
    assert RULES[0].name == "runs in PyTorch"
    for rule in RULES:
        assert rule.reason.endswith(".") and not rule.matches.endswith("."), rule.name


def test_the_page_shows_the_rules_as_they_are() -> None:
    assert PAGE.read_text() == page(), "run placement_table.py"


class TestExclusion:
    """What the user leaves out, by each of the three kinds of names."""

    MODEL = nn.Sequential(
        conv(8, 8),
        nn.ReLU(),
        nn.Sequential(conv(8, 8), nn.ReLU(), conv(8, 8)),
        nn.Flatten(),
        nn.Linear(512, 4),
    )

    def rules(self, **options: set[str]) -> dict[str, str]:
        return placed(self.MODEL, [image()], **INT8, **options).rules

    def test_none(self) -> None:
        assert self.rules() == {}

    @pytest.mark.parametrize("pattern", ["2", "2.*", "*2*"])
    def test_by_module(self, pattern: str) -> None:
        assert self.rules(int8_excluded_modules={pattern}) == {
            "convolution_1": "excluded module",
            "convolution_2": "excluded module",
        }

    @pytest.mark.parametrize(
        "name", ["aten.convolution", "aten.convolution.default", torch.ops.aten.convolution]
    )
    def test_by_operator(self, name: str) -> None:
        assert set(self.rules(int8_excluded_ops={name}).items()) == {
            ("convolution", "excluded operator"),
            ("convolution_1", "excluded operator"),
            ("convolution_2", "excluded operator"),
        }

    def test_by_node(self) -> None:
        assert self.rules(int8_excluded_nodes={"linear", "convolution_1"}) == {
            "convolution_1": "excluded node",
            "linear": "excluded node",
        }

    def test_the_reason_names_the_option(self) -> None:
        patterns = {"2.*", "4"}
        assert placed(self.MODEL, [image()], int8_excluded_modules=patterns, **INT8).skipped == {
            "convolution_1": "int8_excluded_modules has 2.*",
            "convolution_2": "int8_excluded_modules has 2.*",
            "linear": "int8_excluded_modules has 4",
        }

    def test_what_pytorch_runs_is_not_called_excluded(self) -> None:
        result = placed(
            self.MODEL,
            [image()],
            int8_excluded_modules={"*"},
            torch_executed_nodes={"linear"},
            **INT8,
        )
        assert result.rules["linear"] == "runs in PyTorch" and result.readers == {}

    def test_a_shortcut(self) -> None:
        model = nn.Sequential(conv(8, 8), nn.ReLU(), Shortcut())
        assert "add" in placed(model, [image()], **INT8).readers["relu"]
        without = placed(model, [image()], int8_excluded_ops={"aten.add"}, **INT8)
        assert without.rules == {"add": "excluded operator"}
        assert without.readers == {"input_0": ["convolution"], "relu": ["convolution_1"]}

    def test_a_pool_on_the_way(self) -> None:
        """The convolution behind it is INT8 all the same."""
        model = nn.Sequential(conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), conv(8, 8))
        result = placed(model, [image()], int8_excluded_ops={"aten.max_pool2d"}, **INT8)
        assert result.readers == {"input_0": ["convolution"], "max_pool2d": ["convolution_1"]}


class Shortcut(nn.Module):
    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.body = conv(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x


class Heads(nn.Module):
    """Two inputs and two outputs: there are several first and last layers."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.body = conv(8, 8), conv(8, 8), conv(8, 8)
        self.boxes, self.classes = conv(8, 4), conv(8, 4)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        z = torch.relu(self.body(torch.relu(self.left(x)) * self.right(y).sigmoid()))
        return self.boxes(z), self.classes(z).flatten(1)


class TestEdges:
    def test_both_are_int8_by_default(self) -> None:
        assert placed(Heads(), [image(), image()]).rules == {}

    def test_first_layers(self) -> None:
        rules = placed(Heads(), [image(), image()], int8_first_layer=False, **INT8).rules
        assert rules == {"convolution": "first layer", "convolution_1": "first layer"}

    def test_last_layers(self) -> None:
        rules = placed(Heads(), [image(), image()], int8_last_layer=False, **INT8).rules
        assert rules == {"convolution_3": "last layer", "convolution_4": "last layer"}


class Qkv(nn.Module):
    """Three linear layers read one value, as in BERT."""

    def __init__(self, size: int = 32) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)
        self.query, self.key, self.value, self.out = (nn.Linear(size, size) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        q, k, v = self.query(y), self.key(y), self.value(y)
        weights = (q @ k.transpose(-2, -1)).softmax(-1)
        return x + self.out(weights @ v)


class TestTransformers:
    def test_query_key_and_value_read_one_quantized_value(self) -> None:
        result = placed(Qkv(), [TOKENS])
        (norm,) = [value for value, readers in result.readers.items() if len(readers) == 3]
        assert result.readers[norm] == ["linear", "linear_1", "linear_2"]
        assert len(result.readers) == 2 and result.shared == []

    def test_products_of_activations_are_left_out(self) -> None:
        rules = placed(Qkv(), [TOKENS]).rules
        assert rules["matmul"] == rules["matmul_1"] == "product of activations"

    @pytest.mark.parametrize(
        ("operator", "product"),
        [
            ("scaled_dot_product_attention", lambda q, k: F.scaled_dot_product_attention(q, k, k)),
            ("matmul", lambda q, k: q @ k.mT),
            ("bmm", lambda q, k: torch.bmm(q, k.mT)),
            ("bmm", lambda q, k: torch.einsum("bij,bkj->bik", q, k)),
            ("mm", lambda q, k: torch.mm(q[0], k[0].T)),
        ],
    )
    def test_every_form_of_them(
        self, operator: str, product: Callable[[Tensor, Tensor], Tensor]
    ) -> None:
        result = placed(product, [torch.randn(3, 5, 4), torch.randn(3, 5, 4)])
        assert result.rules == {operator: "product of activations"} and result.readers == {}

    def test_a_vit_block_has_int8_in_its_linear_layers_only(self) -> None:
        block = EncoderBlock(4, 32, 64, 0.0, 0.0, partial(nn.LayerNorm, eps=1e-6))
        result = placed(nn.Sequential(block, block), [TOKENS])
        assert set(result.weight_axes) == {
            f"linear{s}" for s in ("", *(f"_{i}" for i in range(1, 8)))
        }
        readers = {reader for readers in result.readers.values() for reader in readers}
        assert not any(name.startswith(("add", "scaled", "native")) for name in readers)
        streams = [name for name, rule in result.rules.items() if rule == "residual stream"]
        assert streams == ["add", "add_1", "add_2", "add_3"]
        assert not any(value.startswith("add") for value in result.readers)

    @pytest.mark.parametrize("norm", [nn.LayerNorm(8), nn.GroupNorm(1, 8)], ids=["layer", "group"])
    def test_convolutions_between_norms_do_not_make_it_a_cnn(self, norm: nn.Module) -> None:
        """As in PoolFormer: what is added follows a convolution, but norms read the sum."""
        result = placed(nn.Sequential(ConvolutionalStream(norm), conv(8, 8)), [image()])
        assert result.rules == {"add": "residual stream"}
        assert not any("add" in readers for readers in result.readers.values())

    def test_a_convnext_block(self) -> None:
        """Depthwise 7x7, norm, two linear layers: the linear layers are INT8, and the stream is not."""
        result = placed(nn.Sequential(CNBlock(32, 1.0, 0.0), CNBlock(32, 1.0, 0.0)), [image(32)])
        assert result.weight_axes == {"linear": 0, "linear_1": 0, "linear_2": 0, "linear_3": 0}
        assert result.rules == {
            "convolution": "grouped convolution",
            "add": "residual stream",
            "convolution_1": "grouped convolution",
            "add_1": "residual stream",
        }


class ConvolutionalStream(nn.Module):
    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm, self.body = norm, conv(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.body(x)
        if isinstance(self.norm, nn.LayerNorm):
            return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.norm(x)


class TestProductsWithWeights:
    """A constant right factor is a weight, in whatever operator it stands."""

    @pytest.mark.parametrize(
        ("name", "product"),
        [
            ("addmm", lambda x, w, b: torch.addmm(b, x.sigmoid()[0], w)),
            ("mm", lambda x, w, b: torch.mm(x.sigmoid()[0], w)),
            ("matmul", lambda x, w, b: torch.matmul(x, w)),
        ],
    )
    def test_scales_lie_along_the_columns(self, name: str, product: Callable[..., Tensor]) -> None:
        result = placed(WithWeight(product, torch.randn(32, 24)), [TOKENS])
        assert result.weight_axes == {name: 1} and result.skipped == {}
        assert [name] in result.readers.values()

    def test_einsum(self) -> None:
        model = WithWeight(lambda x, w, b: torch.einsum("bnc,cd->bnd", x, w), torch.randn(32, 24))
        assert placed(model, [TOKENS]).weight_axes == {"bmm": 2}

    def test_a_stack_of_weights_is_left_out(self) -> None:
        model = WithWeight(lambda x, w, b: torch.bmm(x, w), torch.randn(2, 32, 24))
        assert placed(model, [TOKENS]).rules == {"bmm": "no channel axis"}

    def test_a_constant_left_factor_is_left_out(self) -> None:
        model = WithWeight(lambda x, w, b: torch.matmul(w, x), torch.randn(7, 5))
        assert placed(model, [TOKENS]).rules == {"matmul": "constant input"}

    def test_a_vector_is_left_out(self) -> None:
        model = WithWeight(lambda x, w, b: torch.matmul(x, w), torch.randn(32))
        assert placed(model, [TOKENS]).rules == {"matmul": "no channel axis"}

    def test_a_linear_layer_with_a_vector_is_left_out(self) -> None:
        model = WithWeight(lambda x, w, b: F.linear(x, w), torch.randn(32))
        assert placed(model, [TOKENS]).rules == {"linear": "no channel axis"}


class WithWeight(nn.Module):
    def __init__(self, function: Callable[..., Tensor], weight: Tensor) -> None:
        super().__init__()
        self.function = function
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(torch.randn(24))

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, self.weight, self.bias)


class TestDepthwise:
    @pytest.mark.parametrize(
        ("kernel", "groups", "activation", "is_int8"),
        [
            (3, 8, nn.ReLU(), True),
            (5, 8, nn.ReLU(), True),
            (7, 8, nn.ReLU6(), True),
            (3, 8, nn.Identity(), True),
            (3, 2, nn.ReLU(), True),
            (3, 8, nn.SiLU(), True),
            (5, 8, nn.SiLU(), False),
            (3, 8, nn.Hardswish(), False),
            (3, 8, nn.Hardtanh(), False),
            (3, 2, nn.Sigmoid(), False),
        ],
    )
    def test_what_its_kernel_can_write(
        self, kernel: int, groups: int, activation: nn.Module, is_int8: bool
    ) -> None:
        grouped = conv(8, 8, kernel, groups=groups)
        model = nn.Sequential(conv(8, 8), nn.ReLU(), grouped, activation, conv(8, 8))
        expected = {} if is_int8 else {"convolution_1": "grouped convolution"}
        assert placed(model, [image()]).rules == expected

    def test_a_result_that_leaves_the_model_is_not_int8(self) -> None:
        model = nn.Conv2d(8, 8, (1, 5), groups=8)
        said = "its result goes to the model's output, which reads no INT8"
        assert placed(model, [image()]).skipped == {"convolution": said}

    def test_what_a_user_excludes_takes_those_in_front_with_it(self) -> None:
        chain = [m for _ in range(2) for m in (conv(8, 8, groups=8), nn.ReLU())]
        model = nn.Sequential(conv(8, 8), nn.ReLU(), *chain, conv(8, 8))
        result = placed(model, [image()], int8_excluded_nodes={"convolution_3"}, **INT8)
        assert result.skipped == {
            "convolution_3": result.skipped["convolution_3"],
            "convolution_2": "its result goes to convolution_3, which reads no INT8",
            "convolution_1": "its result goes to convolution_2, which reads no INT8",
        }
        assert set(result.weight_axes) == {"convolution"}


class TestGates:
    def test_a_block_of_efficientnet(self) -> None:
        config = MBConvConfig(2, 3, 1, 16, 16, 1, 1.0, 1.0)
        result = placed(MBConv(config, 0.0, nn.BatchNorm2d), [image(16)])
        squeezing = {name for name, rule in result.rules.items() if rule == "one pixel"}
        assert squeezing == {"convolution_2", "convolution_3"}
        assert result.rules["convolution_1"] == "grouped convolution"  # the gate reads its result
        assert set(result.weight_axes) == {"convolution", "convolution_4"}
        # The gate multiplies a value that INT8 reads afterwards; neither it nor what it multiplies gets Q.
        assert set(result.readers) == {"input_0", "mul_3"}

    def test_the_last_layers_for_small_images_are_no_gates(self) -> None:
        """A ResNet's stage that sees one pixel: INT8 convolutions write what it reads."""
        model = Behind(
            torch.relu, conv(8, 8, stride=8), nn.ReLU(), conv(8, 8), nn.ReLU(), conv(8, 4, 1)
        )
        assert list(placed(model, [image()]).weight_axes) == [
            "convolution",
            "convolution_1",
            "convolution_2",
            "convolution_3",
        ]

    @pytest.mark.parametrize(
        "average",
        [nn.AdaptiveAvgPool2d(1), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.ReLU())],
        ids=["at once", "activated"],
    )
    def test_an_average_of_what_int8_computes_is_a_gate_s_input(self, average: nn.Module) -> None:
        result = placed(Behind(average, conv(8, 4, 1), nn.ReLU(), conv(4, 8, 1)), [image()])
        assert result.rules == dict.fromkeys(("convolution_1", "convolution_2"), "one pixel")
        assert result.readers == {"input_0": ["convolution"]}

    def test_linear_layers_behind_a_pool_are_no_gates(self) -> None:
        model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
        assert placed(model, [image()]).weight_axes == {"linear": 0}


FAST = {"enabled_precisions": {torch.float, torch.half, torch.int8}}
PAYOFF = "costs more than it saves"


class Behind(nn.Module):
    """Convolutions behind a function of what an INT8 convolution gives."""

    def __init__(self, function: Callable[[Tensor], Tensor], *after: nn.Module) -> None:
        super().__init__()
        # Of one pixel, for the sake of those that are concatenated.
        self.stem, self.function, self.after = conv(8, 8, 1), function, nn.Sequential(*after)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.function(self.stem(x)))


def gated(x: Tensor) -> Tensor:
    """What TensorRT does not compute in the convolution's kernel."""
    return x * x.mean((2, 3), keepdim=True).sigmoid()


class Gated(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return gated(x)


class TestPayoff:
    def test_what_follows_fp16_is_fp16_too(self) -> None:
        depthwise = conv(8, 8, groups=8)
        model = Behind(gated, conv(8, 8, 1), nn.ReLU(), depthwise, nn.ReLU(), conv(8, 8, 1))
        result = placed(model, [image()], **FAST)
        assert result.rules == dict.fromkeys(
            ("convolution_1", "convolution_2", "convolution_3"), PAYOFF
        )
        assert result.readers == {"input_0": ["convolution"]}

    def test_a_chain_to_a_heavier_convolution_is_int8(self) -> None:
        model = Behind(gated, conv(8, 8, 1), nn.SiLU(), conv(8, 8, groups=8), nn.ReLU(), conv(8, 8))
        assert placed(model, [image()], **FAST).rules == {}

    @pytest.mark.parametrize(
        "between",
        [gated, nn.Sequential(conv(8, 8, 5, groups=8), nn.Hardswish())],
        ids=["gate", "depthwise"],
    )
    def test_a_chain_ends_where_int8_does(self, between: Callable[[Tensor], Tensor]) -> None:
        middle = Gated() if between is gated else between
        assert isinstance(middle, nn.Module)
        result = placed(Behind(gated, conv(8, 8, 1), middle, conv(8, 8)), [image()], **FAST)
        assert result.rules["convolution_1"] == PAYOFF

    def test_what_comes_before_all_products_costs_nothing(self) -> None:
        def model(x: Tensor) -> Tensor:
            return F.conv2d((x - 0.5) * 2, torch.ones(4, 8, 1, 1))

        assert placed(model, [image()], **FAST).rules == {}

    def test_the_reason_has_the_numbers(self) -> None:
        result = placed(Behind(gated, conv(8, 6, 1)), [image()], **FAST)
        assert result.skipped == {
            # 2 x 8 x 8 pixels of 8 channels, 6 times.
            "convolution_1": "6.14e+03 multiply-adds for 1.02e+03 values that no INT8 convolution writes"
        }

    @pytest.mark.parametrize("options", [INT8, {**FAST, "int8_only_where_faster": False}])
    def test_without_fp16_or_when_switched_off_all_are_int8(self, options: dict[str, Any]) -> None:
        result = placed(
            Behind(gated, conv(8, 8, 1), nn.ReLU(), conv(8, 8, 1)), [image()], **options
        )
        assert result.rules == {} and len(result.weight_axes) == 3

    @pytest.mark.parametrize(
        "function",
        [
            torch.relu,
            F.silu,
            F.mish,
            F.hardswish,
            lambda x: F.max_pool2d(F.relu6(x), 2),
            lambda x: F.avg_pool2d(F.gelu(x), 2),
            lambda x: torch.cat([x.relu(), x.sigmoid()], 1)[:, 4:12],
        ],
        ids=["relu", "silu", "mish", "hardswish", "max pool", "average pool", "cat"],
    )
    def test_what_a_convolution_can_write_in_int8_costs_nothing(
        self, function: Callable[[Tensor], Tensor]
    ) -> None:
        assert placed(Behind(function, conv(8, 8, 1)), [image()], **FAST).rules == {}

    def test_a_sum_with_a_convolution_costs_nothing(self) -> None:
        assert placed(nn.Sequential(Shortcut(), conv(8, 8, 1)), [image()], **FAST).rules == {}

    def test_a_branch_that_is_not_int8_spoils_a_concatenation(self) -> None:
        model = Behind(lambda x: torch.cat([x.relu(), gated(x)], 1), conv(16, 8, 1))
        assert placed(model, [image()], **FAST).rules == {"convolution_1": PAYOFF}

    def test_much_work_pays_for_its_q(self) -> None:
        """3.4e10 multiply-adds for 1.7e7 values save 82 us and cost 12; 1.3e8 for 6.6e4 save 0.3 and cost 2."""
        model = Behind(gated, conv(8, 2048, 1), Gated(), conv(2048, 2048, 1))
        assert placed(model, [image(8, 64)], **FAST).rules == {"convolution_1": PAYOFF}

    @pytest.mark.parametrize(
        ("batch", "expected"),
        [(1, {"convolution_1": PAYOFF}), (32, {"convolution": "few channels"})],
    )
    def test_a_dynamic_batch_counts_as_the_opt_batch(
        self, batch: int, expected: dict[str, str]
    ) -> None:
        shapes = [(b, 8, 32, 32) for b in (1, batch, 64)]
        entry = Input(min_shape=shapes[0], opt_shape=shapes[1], max_shape=shapes[2])
        assert placed(Behind(gated, conv(8, 32768, 1)), [entry], **FAST).rules == expected

    def test_linear_layers_are_no_convolutions(self) -> None:
        assert placed(Qkv(), [TOKENS], **FAST).rules.keys() == placed(Qkv(), [TOKENS]).rules.keys()


class TestFewChannels:
    """``image(8, 128)`` has 2 x 128 x 128 pixels: 2**15, the least that count."""

    @staticmethod
    def left_out(*layers: nn.Module, size: int = 128, **options: Any) -> list[str]:
        rules = placed(nn.Sequential(*layers), [image(8, size)], **{**FAST, **options}).rules
        assert set(rules.values()) <= {"few channels"}
        return list(rules)

    def test_a_network_of_few_channels_stays_in_floating_point(self) -> None:
        layers = (conv(8, 4), nn.ReLU(), nn.MaxPool2d(1), conv(4, 8), nn.ReLU(), conv(8, 3))
        assert self.left_out(*layers) == ["convolution", "convolution_1", "convolution_2"]

    @pytest.mark.parametrize(
        "layers",
        [
            (conv(8, 9),),
            (conv(8, 8), nn.ReLU(), conv(8, 9)),
            (conv(8, 9), nn.ReLU(), conv(9, 8), nn.ReLU(), conv(8, 8)),
            (nn.ConvTranspose2d(8, 8, 3, padding=1),),
            (nn.MaxPool2d(2), conv(8, 8)),
        ],
        ids=["nine", "nine behind", "nine in front", "transposed", "fewer pixels"],
    )
    def test_what_is_int8(self, layers: tuple[nn.Module, ...]) -> None:
        assert self.left_out(*layers) == []

    def test_small_images_are_int8(self) -> None:
        assert self.left_out(conv(8, 8), size=127) == []

    @pytest.mark.parametrize("options", [INT8, {"int8_only_where_faster": False}])
    def test_without_fp16_or_when_switched_off_all_are_int8(self, options: dict[str, Any]) -> None:
        assert self.left_out(conv(8, 8), **options) == []

    def test_the_reason_has_the_numbers(self) -> None:
        result = placed(nn.Sequential(conv(8, 4)), [image(8, 128)], **FAST)
        assert result.skipped == {"convolution": "8 channels become 4, at 32768 pixels"}


class TestOneRow:
    @staticmethod
    def left_out(*layers: nn.Module, rows: int = 1, width: int = 16, **options: Any) -> list[str]:
        data = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
        rules = placed(nn.Sequential(*layers), [data], **{**FAST, **options}).rules
        assert set(rules.values()) <= {"one row"}
        return list(rules)

    def test_a_vector_stays_in_floating_point(self) -> None:
        layers = (nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 4))
        assert self.left_out(*layers) == ["linear", "linear_1"]

    def test_two_rows_are_int8(self) -> None:
        assert self.left_out(nn.Linear(16, 8), rows=2) == []

    @pytest.mark.parametrize(("outputs", "expected"), [(2047, ["linear"]), (2048, [])])
    def test_large_weights_are_int8(self, outputs: int, expected: list[str]) -> None:
        assert self.left_out(nn.Linear(2048, outputs), width=2048) == expected

    def test_what_leads_to_large_weights_is_int8(self) -> None:
        layers = (
            nn.Linear(16, 2048),
            nn.GELU(),
            nn.Linear(2048, 2048),
            nn.ReLU(),
            nn.Linear(2048, 8),
        )
        assert self.left_out(*layers) == ["linear_2"]

    def test_the_last_layer_behind_int8_convolutions_is_int8(self) -> None:
        model = nn.Sequential(
            conv(8, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 4)
        )
        assert placed(model, [image()[:1]], **FAST).rules == {}

    @pytest.mark.parametrize("options", [INT8, {"int8_only_where_faster": False}])
    def test_without_fp16_or_when_switched_off_all_are_int8(self, options: dict[str, Any]) -> None:
        assert self.left_out(nn.Linear(16, 8), **options) == []
