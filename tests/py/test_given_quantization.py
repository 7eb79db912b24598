"""Models that come quantized compile as they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.ao.quantization as ao

# Registers the quantized_decomposed operators.
import torch.ao.quantization.fx._decomposed
from checks import build_device, capture_for_test, check_op, operators
from torch import Tensor, nn

import trtcompile
from trtcompile import CompileSpec, Input, SettingsError, TRTCompileWarning, UnsupportedGraphError
from trtcompile.compiler import prepare
from trtcompile.fake_quantizers import fix_fake_quantizers
from trtcompile.ptq import DataLoaderCalibrator

INT8 = {torch.float, torch.int8}
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
qd = torch.ops.quantized_decomposed


class Pt2e(nn.Module):
    """A convolution as PT2E leaves it: an INT8 weight that is dequantized, and Q/DQ on its input."""

    def __init__(self, zero_point: int = 0, dtype: torch.dtype = torch.int8) -> None:
        super().__init__()
        weight = torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8)
        self.register_buffer("weight", weight)
        self.register_buffer("scales", torch.linspace(0.001, 0.002, 4))
        self.register_buffer("zero_points", torch.zeros(4, dtype=torch.int64))
        self.register_buffer("bias", torch.randn(4))
        limits = (-128, 127) if dtype == torch.int8 else (0, 255)
        self.activation = (0.025, zero_point, *limits, dtype)

    def forward(self, x: Tensor) -> Tensor:
        x = qd.dequantize_per_tensor(qd.quantize_per_tensor(x, *self.activation), *self.activation)
        weight = qd.dequantize_per_channel(
            self.weight, self.scales, self.zero_points, 0, -127, 127, torch.int8
        )
        return torch.relu(torch.conv2d(x, weight, self.bias))


def trained(*, observing: bool = False) -> nn.Module:
    """Two convolutions after quantization-aware training with torch.ao."""
    activation = ao.FakeQuantize.with_args(
        observer=ao.MovingAverageMinMaxObserver,
        quant_min=-128,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_tensor_symmetric,
    )
    weight = ao.FakeQuantize.with_args(
        observer=ao.MovingAveragePerChannelMinMaxObserver,
        quant_min=-127,
        quant_max=127,
        dtype=torch.qint8,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
    )
    torch.manual_seed(0)
    fake = activation()
    model = nn.Sequential(fake)
    for inputs, outputs in ((3, 8), (8, 4)):
        convolution = torch.ao.nn.qat.Conv2d(
            inputs, outputs, 3, qconfig=ao.QConfig(activation=activation, weight=weight)
        )
        model.extend([convolution, nn.ReLU(), activation()])
    model(IMAGE)
    if not observing:
        model.apply(ao.disable_observer)
    return model.eval()


def test_pt2e() -> None:
    check_op(Pt2e().eval(), IMAGE, enabled_precisions=INT8, rtol=1e-4, atol=1e-4)


def test_weights_stay_int8() -> None:
    captured = capture_for_test(Pt2e().eval(), [IMAGE])
    prepare(captured, CompileSpec(device=build_device(), enabled_precisions=INT8))
    graph = captured.graph_module
    constants = {n.meta["val"].dtype for n in graph.graph.nodes if n.op == "get_attr"}
    assert torch.int8 in constants
    assert operators(graph).count("quantized_decomposed.quantize_per_tensor.default") == 1


@pytest.mark.parametrize("half", [False, True])
def test_quantization_aware_training(half: bool) -> None:
    model = trained()
    precisions = INT8 | ({torch.half} if half else set())
    network = check_op(model, IMAGE, enabled_precisions=precisions, rtol=2e-2, atol=2e-2)
    layers = [
        network.definition.get_layer(i).type.name for i in range(network.definition.num_layers)
    ]
    assert layers.count("QUANTIZE") == 3
    assert layers.count("DEQUANTIZE") == 5  # those of the two weights as well
    assert "forward" not in vars(model[0]), "the model was changed"


def test_the_simulation_is_the_model() -> None:
    model = trained()
    compiled = trtcompile.compile(
        model, [Input((2, 3, 8, 8))], enabled_precisions=INT8, device=build_device()
    )
    torch.testing.assert_close(compiled.lowered(IMAGE), model(IMAGE), rtol=1e-5, atol=1e-5)
    assert compiled.report.multiply_add_share("INT8") == 1.0
    assert compiled.calibration_table is None


def test_an_observer_that_is_still_on_is_a_warning() -> None:
    model = trained(observing=True)
    ranges = model[0].scale.clone()
    with pytest.warns(TRTCompileWarning, match="5 fake quantizers still observe"):
        check_op(model, IMAGE, enabled_precisions=INT8, build=False, rtol=1, atol=1)
    assert torch.equal(model[0].scale, ranges)


def test_a_range_that_no_data_changes_is_not_observed() -> None:
    model = nn.Sequential(nn.Sigmoid(), ao.default_fixed_qparams_range_0to1_fake_quant())
    fix_fake_quantizers(model)  # warnings are errors here


def test_quantization_that_is_switched_off() -> None:
    model = trained().apply(ao.disable_fake_quant)
    network = check_op(model, IMAGE, build=False)
    layers = [
        network.definition.get_layer(i).type.name for i in range(network.definition.num_layers)
    ]
    assert "QUANTIZE" not in layers


class Doubled(ao.FakeQuantize):
    """A fake quantizer of a user's, which does more than the one it is derived from."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


class Own(ao.FakeQuantizeBase):
    """One that has nothing but the switches in common with those of torch.ao."""

    def calculate_qparams(self) -> None:
        raise AssertionError("nothing observes")

    def forward(self, x: Tensor) -> Tensor:
        if self.fake_quant_enabled[0] == 0:
            return x
        return torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127)


@pytest.mark.parametrize("kind", [Doubled, Own])
@pytest.mark.parametrize("enabled", [True, False])
def test_a_fake_quantizer_of_ones_own_does_what_its_forward_does(
    kind: type[Any], enabled: bool
) -> None:
    fake = kind() if kind is Own else kind(quant_min=-128, quant_max=127, dtype=torch.qint8)
    fake.enable_fake_quant(enabled)
    fake.disable_observer()
    if kind is Doubled:
        fake.scale.fill_(0.02)
    model = nn.Sequential(fake, nn.Conv2d(3, 4, 3)).eval()
    compiled = trtcompile.simulate(
        model,
        [IMAGE],
        enabled_precisions=INT8 if enabled else {torch.float},
        device=build_device(),
    )
    torch.testing.assert_close(compiled.lowered(IMAGE), model(IMAGE))
    assert isinstance(fake.fake_quant_enabled, Tensor), "the model was changed"


def test_ranges_that_never_saw_data_are_a_warning() -> None:
    fake = ao.FakeQuantize(quant_min=-128, quant_max=127, dtype=torch.qint8)
    fake.disable_observer()
    with pytest.warns(TRTCompileWarning, match="1 fake quantizers have never observed data"):
        capture_for_test(nn.Sequential(fake), [IMAGE])
    fake.scale.fill_(0.02)  # as from a checkpoint
    capture_for_test(nn.Sequential(fake), [IMAGE])


def test_weights_of_each_channel_that_were_never_observed_are_refused() -> None:
    """As in PyTorch: there is one scale, and there are eight channels."""
    weight = ao.default_per_channel_weight_fake_quant
    config = ao.QConfig(activation=ao.default_fake_quant, weight=weight)
    convolution = torch.ao.nn.qat.Conv2d(3, 8, 3, qconfig=config).apply(ao.disable_observer)
    with (
        pytest.warns(TRTCompileWarning, match="never observed"),
        pytest.raises(UnsupportedGraphError, match="dimensions of scale"),
    ):
        capture_for_test(convolution, [IMAGE])


def test_weights_that_torch_ao_packed() -> None:
    linear = torch.ao.nn.quantized.dynamic.Linear(16, 16)
    with pytest.raises(UnsupportedGraphError, match=r"module '0.*' has weights that torch.ao pack"):
        capture_for_test(nn.Sequential(linear), [torch.zeros(2, 16)])


def refused(model: nn.Module, error: type[Exception], said: str, **options: Any) -> None:
    captured = capture_for_test(model.eval(), [IMAGE])
    with pytest.raises(error, match=said):
        prepare(captured, CompileSpec(device=build_device(), **options))


def test_what_tensorrt_does_not_have() -> None:
    refused(Pt2e(zero_point=3), UnsupportedGraphError, "zero-point is 3", enabled_precisions=INT8)
    refused(Pt2e(0, torch.uint8), UnsupportedGraphError, "not torch.uint8", enabled_precisions=INT8)


@pytest.mark.parametrize("scale", [0.0, -0.02, float("nan"), float("inf"), 1e-42])
def test_what_is_no_scale(scale: float) -> None:
    """TensorRT-RTX builds engines of them."""
    said = f"the scale {scale:g} is not a positive normal"
    model = Pt2e().eval()
    model.activation = (scale, *model.activation[1:])
    if scale != 0:  # PyTorch divides by it
        refused(model, UnsupportedGraphError, said, enabled_precisions=INT8)
    model = Pt2e().eval()
    model.scales[2] = scale
    said = said.replace("1e-42", "1.00053e-42")
    refused(model, UnsupportedGraphError, said, enabled_precisions=INT8)


class PartlyAsymmetric(nn.Module):
    """A part that TensorRT takes, and one that has a zero-point."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = Pt2e(), Pt2e(zero_point=3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x)[:, :3])


def test_what_tensorrt_does_not_have_may_be_left_to_pytorch() -> None:
    model = PartlyAsymmetric().eval()
    refused(model, UnsupportedGraphError, "torch_executed_modules", enabled_precisions=INT8)
    options = {"enabled_precisions": INT8, "torch_executed_modules": {"second"}}
    captured = capture_for_test(model, [IMAGE])
    prepare(captured, CompileSpec(device=build_device(), **options))
    torch.testing.assert_close(captured.graph_module(IMAGE)[0], model(IMAGE))


def test_a_model_whose_quantized_part_is_left_to_pytorch_needs_no_int8() -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 3), Pt2e(zero_point=3)).eval()
    captured = capture_for_test(model, [IMAGE])
    prepare(captured, CompileSpec(device=build_device(), torch_executed_modules={"1"}))


class AlongAxis(nn.Module):
    """A weight with scales along an axis of one's choice."""

    def __init__(self, layer: nn.Conv2d | nn.ConvTranspose2d | nn.Linear, axis: int) -> None:
        super().__init__()
        self.layer, self.axis = layer, axis
        others = [dim for dim in range(layer.weight.dim()) if dim != axis]
        self.register_buffer("scales", layer.weight.detach().abs().amax(others) / 127)
        self.register_buffer("zero_points", torch.zeros(len(self.scales), dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(
            self.layer.weight, self.scales, self.zero_points, self.axis, -127, 127
        )
        return torch.func.functional_call(self.layer, {"weight": weight}, (x,))


@pytest.mark.parametrize(
    ("layer", "outputs"),
    [
        (nn.Conv2d(3, 4, 3), 0),
        (nn.ConvTranspose2d(3, 4, 3), 1),
        (nn.Linear(8, 4), 0),
    ],
    ids=["convolution", "transposed", "linear"],
)
def test_scales_along_anything_but_output_channels_are_no_int8(layer: Any, outputs: int) -> None:
    """A sum over inputs has no common scale then; eager PyTorch has the values that the engine is to have."""
    for axis in range(layer.weight.dim()):
        model = AlongAxis(layer, axis).eval()
        report = trtcompile.dry_run(model, [IMAGE], enabled_precisions=INT8)
        assert report.multiply_add_share("INT8") == float(axis == outputs), axis
    model = AlongAxis(layer, 1 - outputs)
    check_op(model, IMAGE, enabled_precisions=INT8, rtol=1e-4, atol=1e-4, build=False)


def test_two_sources_of_scales() -> None:
    calibrator = DataLoaderCalibrator([IMAGE])
    options = {"enabled_precisions": INT8, "calibrator": calibrator}
    refused(Pt2e(), SettingsError, "with scales of its own. Drop the calibrator", **options)


class Depthwise(nn.Module):
    """A depthwise convolution whose result is quantized, or is not."""

    def __init__(self, is_int8: bool) -> None:
        super().__init__()
        self.is_int8 = is_int8
        self.weight = nn.Parameter(torch.randn(3, 1, 3, 3))
        self.register_buffer("scales", torch.linspace(0.02, 0.04, 3))
        self.register_buffer("zero_points", torch.zeros(3, dtype=torch.int32))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.fake_quantize_per_tensor_affine(x, 0.02, 0, -128, 127)
        weight = torch.fake_quantize_per_channel_affine(
            self.weight, self.scales, self.zero_points, 0, -127, 127
        )
        x = torch.relu(torch.conv2d(x, weight, groups=3))
        return torch.fake_quantize_per_tensor_affine(x, 0.05, 0, -128, 127) if self.is_int8 else x


@pytest.mark.parametrize("is_int8", [True, False])
def test_depthwise_weights_without_an_int8_kernel_are_dequantized(is_int8: bool) -> None:
    """They keep their quantized values: eager PyTorch, which ``check_op`` compares with, has those."""
    network = check_op(
        Depthwise(is_int8).eval(), IMAGE, enabled_precisions=INT8, rtol=1e-4, atol=1e-4
    )
    layers = [
        network.definition.get_layer(i).type.name for i in range(network.definition.num_layers)
    ]
    assert layers.count("DEQUANTIZE") == (3 if is_int8 else 1)


def test_weights_that_were_dequantized_are_freed() -> None:
    options = {"enabled_precisions": INT8, "device": build_device()}
    lowered = trtcompile.simulate(Depthwise(False).eval(), [IMAGE], **options).lowered
    used = {node.target for node in lowered.graph.nodes if node.op == "get_attr"}
    assert used == {name for name, _ in lowered.named_buffers()}


def test_where_int8_is_the_model_says_itself() -> None:
    options = {"enabled_precisions": INT8, "int8_first_layer": False, "int8_excluded_nodes": {"a"}}
    said = r"int8_excluded_nodes, int8_first_layer was given.* Drop the option"
    refused(Pt2e(), SettingsError, said, **options)


def test_no_source_of_scales_says_how_to_make_one() -> None:
    said = r"no calibrator.*DataLoaderCalibrator\(dataloader\), or CacheCalibrator\(cache_file\)"
    refused(nn.Conv2d(3, 4, 3), SettingsError, said, enabled_precisions=INT8)


def test_int8_has_to_be_enabled() -> None:
    refused(Pt2e(), SettingsError, "comes quantized, but enabled_precisions has no torch.int8")


def test_a_dry_run_needs_no_calibrator() -> None:
    for model in (Pt2e(), nn.Conv2d(3, 4, 3)):
        report = trtcompile.dry_run(model.eval(), [IMAGE], enabled_precisions=INT8)
        assert report.multiply_add_share("INT8") == 1.0
