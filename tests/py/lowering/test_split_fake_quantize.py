"""Fake quantization of other tools as pairs of quantize and dequantize."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from checks import build_device, capture_for_test, check_pass, operators
from network_oracle.float8 import nearest_e4m3
from torch import Tensor, nn

from trtcompile import CompileSpec, UnsupportedGraphError
from trtcompile.compiler import prepare
from trtcompile.lowering import run_pass
from trtcompile.lowering.split_fake_quantize import split_fake_quantize

X = torch.randn(4, 3, 5, generator=torch.Generator().manual_seed(0))
PAIR = [
    "quantized_decomposed.quantize_per_tensor.default",
    "quantized_decomposed.dequantize_per_tensor.default",
]


def test_per_tensor() -> None:
    graph = check_pass(
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127) + 1,
        [X],
        split_fake_quantize,
        rewrites=1,
    )
    assert operators(graph) == [*PAIR, "aten.add.Tensor"]
    quantize = next(n for n in graph.graph.nodes if "quantize_per_tensor" in str(n.target))
    assert quantize.args[1:] == (0.02, 0, -128, 127, torch.int8)
    assert quantize.meta["val"].dtype == torch.int8


def test_unsigned_keeps_its_type_and_zero_point() -> None:
    graph = check_pass(
        lambda x: torch.fake_quantize_per_tensor_affine(x, 0.02, 7, 0, 255),
        [X],
        split_fake_quantize,
        rewrites=1,
    )
    quantize = next(n for n in graph.graph.nodes if "quantize_per_tensor" in str(n.target))
    assert quantize.args[1:] == (0.02, 7, 0, 255, torch.uint8)


class WithRanges(nn.Module):
    """Ranges as buffers, as modules that were trained with quantization have them."""

    def __init__(self, per_channel: bool) -> None:
        super().__init__()
        size = 3 if per_channel else 1
        self.per_channel = per_channel
        self.register_buffer("scale", torch.linspace(0.01, 0.03, size))
        self.register_buffer("zero_point", torch.zeros(size, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        if self.per_channel:
            return torch.fake_quantize_per_channel_affine(
                x, self.scale, self.zero_point, 1, -127, 127
            )
        return torch.fake_quantize_per_tensor_affine(x, self.scale, self.zero_point, -128, 127)


def test_ranges_in_buffers() -> None:
    graph = check_pass(WithRanges(per_channel=False), [X], split_fake_quantize, rewrites=1)
    assert operators(graph) == PAIR
    graph = check_pass(WithRanges(per_channel=True), [X], split_fake_quantize, rewrites=1)
    assert operators(graph) == [name.replace("tensor", "channel") for name in PAIR]


def test_ranges_that_the_model_computes_are_left() -> None:
    def function(x: Tensor) -> Tensor:
        scale = x.abs().amax() / 127
        return torch.fake_quantize_per_tensor_affine(
            x, scale, torch.zeros((), dtype=torch.int32), -128, 127
        )

    graph = check_pass(function, [X], split_fake_quantize, rewrites=0)
    assert any("fake_quantize" in name for name in operators(graph))


def test_pt2e_with_ranges_in_tensors() -> None:
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("scale", torch.tensor(0.02))
            self.register_buffer("zero_point", torch.tensor(0))

        def forward(self, x: Tensor) -> Tensor:
            ranges = (self.scale, self.zero_point, -128, 127, torch.int8)
            qd = torch.ops.quantized_decomposed
            return qd.dequantize_per_tensor.tensor(
                qd.quantize_per_tensor.tensor(x, *ranges), *ranges
            )

    graph = check_pass(Quantized(), [X], split_fake_quantize, rewrites=2)
    assert operators(graph) == PAIR


@pytest.fixture
def modelopt() -> Iterator[Any]:
    """ModelOpt's operator, as that package registers it."""
    library = torch.library.Library("tensorrt", "FRAGMENT")
    library.define(
        "quantize_op(Tensor input, Tensor amax, int num_bits, int exponent_bits, bool unsigned, "
        "bool narrow_range) -> Tensor"
    )

    def quantize(
        x: Tensor, amax: Tensor, bits: int, exponent: int, unsigned: bool, narrow: bool
    ) -> Tensor:
        if exponent == 4:
            return nearest_e4m3(x / (amax / 448)).float() * (amax / 448)
        scale = amax / 127
        return (x / scale).round().clamp(-127 if narrow else -128, 127) * scale

    library.impl("quantize_op", quantize, "CompositeExplicitAutograd")
    library._register_fake("quantize_op", lambda x, *_: torch.empty_like(x))
    yield torch.ops.tensorrt.quantize_op
    library._destroy()


@pytest.mark.parametrize("exponent", [0, 4], ids=["int8", "fp8"])
@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (1, 3, 1)])
def test_modelopt(modelopt: Any, shape: tuple[int, ...], exponent: int) -> None:
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            size = 3 if 3 in shape else 1
            self.register_buffer("amax", torch.linspace(2, 3, size).reshape(shape))

        def forward(self, x: Tensor) -> Tensor:
            return modelopt(x, self.amax, 8, exponent, False, False)

    # An amax that lines up with its dimensions only by broadcasting is not one of ModelOpt's.
    known = shape != (3, 1)
    graph = check_pass(Quantized(), [X], split_fake_quantize, rewrites=int(known))
    kind = "channel" if 3 in shape else "tensor"
    if exponent == 4:
        quantize = "quantize_fp8" + ("_per_channel" if 3 in shape else "")
        assert (f"trtcompile.{quantize}.default" in operators(graph)) == known
    else:
        assert (f"quantized_decomposed.quantize_per_{kind}.default" in operators(graph)) == known


@pytest.mark.parametrize(("bits", "exponent"), [(4, 0), (4, 2), (8, 5)])
def test_modelopts_other_formats_are_left(modelopt: Any, bits: int, exponent: int) -> None:
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("amax", torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return modelopt(x, self.amax, bits, exponent, False, False)

    check_pass(Quantized(), [X], split_fake_quantize, rewrites=0)


def test_modelopts_pruned_channels(modelopt: Any) -> None:
    """ModelOpt has an amax of 0 for a channel without weights; any scale is right for zeros, and 0 is none."""

    class Pruned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("amax", torch.tensor([2.0, 0.0, 3.0]).reshape(1, 3, 1))

        def forward(self, x: Tensor) -> Tensor:
            return modelopt(x, self.amax, 8, 0, False, False)

    captured = capture_for_test(Pruned().eval(), [X])
    assert run_pass(split_fake_quantize, captured.graph_module, CompileSpec()) == 1
    pruned = X.clone()
    pruned[:, 1] = 0
    (result,) = captured.graph_module(pruned)
    expected = Pruned()(pruned)
    torch.testing.assert_close(result[:, [0, 2]], expected[:, [0, 2]])
    assert not result[:, 1].any()


@pytest.mark.parametrize("precisions", [{torch.float}, {torch.int8}])
@pytest.mark.parametrize("form", [(4, 0, False), (8, 0, True), (8, 5, False)])
def test_modelopts_other_formats_are_refused(
    modelopt: Any, form: tuple[int, int, bool], precisions: set[torch.dtype]
) -> None:
    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(X.shape[-1], 4)
            self.register_buffer("amax", torch.tensor(3.0))

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(modelopt(x, self.amax, *form, False))

    captured = capture_for_test(Quantized().eval(), [X])
    spec = CompileSpec(device=build_device(), enabled_precisions=precisions)
    with pytest.raises(UnsupportedGraphError, match="none of signed 8-bit integers or FP8"):
        prepare(captured, spec)
