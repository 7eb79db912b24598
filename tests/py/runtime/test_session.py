"""Engines on a GPU: numbers against eager PyTorch and the simulation, streams, CUDA graphs, memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import randomize
from torch import nn
from torchvision.models import DenseNet
from torchvision.models.squeezenet import Fire

import trtcompile
from trtcompile import Device, Input, InputMismatchError, StaleWeightsError, TRTModule, _tensorrt
from trtcompile.ptq import DataLoaderCalibrator

pytestmark = pytest.mark.gpu


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.block = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        x = torch.relu(self.block(x) + x)
        return self.head(x.mean((2, 3)))


def net() -> Net:
    model = Net()
    randomize(model, 0)
    return model


@pytest.fixture
def model() -> Net:
    return net().cuda()


EXACT = Device(disable_tf32=True)
RANGED = Input(min_shape=(1, 3, 16, 16), opt_shape=(4, 3, 16, 16), max_shape=(8, 3, 16, 16))


def images(batch: int = 4, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, 3, 16, 16, generator=generator).cuda()


def eager(model: Callable[..., Any], *args: Any) -> Any:
    """Full FP32, without TF32."""
    with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
        return model(*args)


def compile_(model: nn.Module, inputs: Any = None, **options: Any) -> TRTModule:
    inputs = [(4, 3, 16, 16)] if inputs is None else inputs
    return trtcompile.compile(
        model, inputs, **{"device": EXACT, "min_block_size": 1, "optimization_level": 1, **options}
    )


class TestNumbers:
    def test_fp32(self, model: Net) -> None:
        compiled, x = compile_(model), images()
        torch.testing.assert_close(compiled(x), eager(model, x), rtol=1e-4, atol=1e-4)
        assert compiled.runnable is None

    def test_fp16(self, model: Net) -> None:
        compiled, x = compile_(model, enabled_precisions={torch.half}), images()
        result, expected = compiled(x), eager(model, x)
        assert result.dtype == torch.float32
        error = (result - expected).abs().max() / expected.std()
        assert 1e-6 < error < 2e-2

    @pytest.mark.parametrize("others", [set(), {torch.float, torch.half}], ids=["int8", "fast"])
    def test_int8(self, model: Net, others: set[torch.dtype]) -> None:
        calibrator = DataLoaderCalibrator([images(16, seed=2)])
        compiled = compile_(model, enabled_precisions={torch.int8, *others}, calibrator=calibrator)
        x = images()
        simulated = compiled.lowered(x.cpu())
        spread = eager(model, x).std().cpu()
        # Values next to a rounding boundary may fall on either side: a step of one scale here and there.
        assert (compiled(x).cpu() - simulated).std() < 0.02 * spread
        assert (simulated - eager(model, x).cpu()).std() < 0.15 * spread
        layers = compiled.engine_modules[0].session().inspect()
        assert "Int8" in layers

    def test_the_pooling_of_a_first_layer_is_in_its_kernel(self) -> None:
        if not _tensorrt.load().measures_kernels:
            pytest.skip("this TensorRT has other kernels: pip install 'trtcompile[tensorrt]'")
        torch.manual_seed(0)
        first = (nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        model = nn.Sequential(*first, nn.Conv2d(64, 64, 3, padding=1), nn.ReLU()).cuda().eval()
        x = torch.randn(1, 3, 224, 224, device="cuda")
        compiled = trtcompile.compile(
            model,
            [tuple(x.shape)],
            enabled_precisions={torch.float, torch.half, torch.int8},
            calibrator=DataLoaderCalibrator([x]),
            min_block_size=1,
        )
        layers = json.loads(compiled.engine_modules[0].session().inspect())["Layers"]
        assert "CaskConvActPool" in [layer["LayerType"] for layer in layers], layers
        error = compiled(x).cpu() - compiled.lowered(x.cpu())
        assert error.std() < 0.02 * eager(model, x).std().cpu()

    @staticmethod
    def layers_and_parity(model: nn.Module, x: torch.Tensor) -> tuple[list[dict[str, Any]], float]:
        """The layers of an INT8 engine, and how near the image that is worst is to the simulation, in dB."""
        compiled = trtcompile.compile(
            model,
            [tuple(x.shape)],
            enabled_precisions={torch.float, torch.half, torch.int8},
            calibrator=DataLoaderCalibrator([x]),
            min_block_size=1,
        )
        layers = json.loads(compiled.engine_modules[0].session().inspect())["Layers"]
        (parity,) = trtcompile.output_parity(compiled, [x]).values()
        return layers, parity.worst_db

    @pytest.mark.parametrize("is_behind_first_layer", [False, True])
    def test_the_norms_of_a_dense_block_are_int8_and_nothing_is_copied(
        self, is_behind_first_layer: bool
    ) -> None:
        if not _tensorrt.load().measures_kernels:
            pytest.skip("this TensorRT has other kernels: pip install 'trtcompile[tensorrt]'")
        torch.manual_seed(0)
        x = torch.randn(2, 3, 64, 64, device="cuda")
        model = DenseNet(32, (4,), 64).eval()
        if is_behind_first_layer:  # and with parts of 24 channels, which are made wider
            x = torch.randn(8, 3, 32, 32, device="cuda")
            model = DenseNet(24, (4,), 48).eval()
            model.features.conv0 = nn.Conv2d(3, 48, 3, padding=1)
            model.features.pool0 = nn.Identity()
        layers, worst = self.layers_and_parity(model.cuda(), x)
        norms = [layer for layer in layers if layer["LayerType"] == "Scale"]
        written = [layer["Outputs"][0]["Format/Datatype"] for layer in norms]
        assert len(norms) == 5 and all("Int8" in kind for kind in written), layers
        # The image, or what the first layer makes of it, is quantized; what a pool writes may be copied.
        copies = [layer["Name"] for layer in layers if layer["LayerType"] == "Reformat"]
        assert len(copies) <= 3, copies
        assert worst > 25

    @pytest.mark.parametrize("channels", [3, 16])
    def test_all_images_of_a_batch_are_right_where_few_channels_lead_to_a_concatenation(
        self, channels: int
    ) -> None:
        """TensorRT 10.6 has an INT8 kernel for such convolutions that leaves only the first image right."""
        torch.manual_seed(0)
        front = [] if channels == 3 else [nn.Conv2d(3, channels, 3, padding=1), nn.ReLU()]
        fires = [Fire(channels, 16, 64, 64), Fire(128, 16, 64, 64)]
        model = nn.Sequential(*front, *fires, nn.Conv2d(128, 10, 1))
        x = torch.randn(8, 3, 32, 32, device="cuda")
        _, worst = self.layers_and_parity(model.cuda().eval(), x)
        assert worst > 25

    def test_a_model_on_the_cpu_compiles_to_the_same(self, model: Net) -> None:
        x = images()
        on_cpu, on_gpu = compile_(net()), compile_(model)
        assert on_cpu.graph_hash == on_gpu.graph_hash
        torch.testing.assert_close(on_cpu(x), on_gpu(x), rtol=1e-4, atol=1e-4)

    def test_strides(self, model: Net) -> None:
        compiled = compile_(model)
        x = images().to(memory_format=torch.channels_last)
        torch.testing.assert_close(compiled(x), eager(model, x), rtol=1e-4, atol=1e-4)
        y = images(8)[::2].transpose(2, 3)
        torch.testing.assert_close(compiled(y), eager(model, y), rtol=1e-4, atol=1e-4)


class TestShapes:
    @pytest.mark.parametrize("use_cuda_graphs", [False, True])
    def test_dynamic_batch(self, model: Net, use_cuda_graphs: bool) -> None:
        compiled = compile_(model, [RANGED], use_cuda_graphs=use_cuda_graphs)
        for batch in (1, 4, 8, 3, 1):
            x = images(batch, seed=batch)
            torch.testing.assert_close(compiled(x), eager(model, x), rtol=1e-4, atol=1e-4)
        with pytest.raises(InputMismatchError, match=r"max \[8, 3, 16, 16\]"):
            compiled(images(9))

    def test_sizes_that_do_not_go_together(self) -> None:
        class Adds(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x.relu() + y

        ranged = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3))
        compiled = compile_(Adds(), [ranged, ranged])
        x, y = torch.randn(5, 3).cuda(), torch.randn(5, 3).cuda()
        torch.testing.assert_close(compiled(x, y), x.relu() + y)
        with pytest.raises(InputMismatchError, match="together"):
            compiled(x, y[:4])
        torch.testing.assert_close(compiled(y, x), y.relu() + x)

    def test_an_input_on_the_cpu(self, model: Net) -> None:
        with pytest.raises(InputMismatchError, match="on cpu, but the engines run on cuda:0"):
            compile_(model)(images().cpu())


class TestCudaGraphs:
    def test_kept_results_are_not_overwritten(self, model: Net) -> None:
        compiled = compile_(model, use_cuda_graphs=True)
        inputs = [images(seed=seed) for seed in range(3)]
        results = [compiled(x) for x in inputs]
        for x, result in zip(inputs, results, strict=True):
            torch.testing.assert_close(result, eager(model, x), rtol=1e-4, atol=1e-4)

    def test_the_callers_input_is_read_at_each_call(self, model: Net) -> None:
        compiled = compile_(model, use_cuda_graphs=True)
        x = images()
        compiled(x)
        x.mul_(-2)
        torch.testing.assert_close(compiled(x), eager(model, x), rtol=1e-4, atol=1e-4)


class TestStreams:
    @pytest.mark.parametrize("use_cuda_graphs", [False, True])
    def test_another_stream(self, model: Net, use_cuda_graphs: bool) -> None:
        compiled = compile_(model, use_cuda_graphs=use_cuda_graphs)
        expected = [eager(model, images(seed=s)) for s in range(8)]
        streams = [torch.cuda.Stream() for _ in range(2)]
        results = []
        torch.cuda.synchronize()
        for seed in range(8):
            with torch.cuda.stream(streams[seed % 2]):
                # Made on the stream just before, so that a wrong order would show.
                results.append(compiled(images(seed=seed) * 2 / 2))
        torch.cuda.synchronize()
        for result, wanted in zip(results, expected, strict=True):
            torch.testing.assert_close(result, wanted, rtol=1e-4, atol=1e-4)

    def test_work_before_and_after_on_the_default_stream(self, model: Net) -> None:
        compiled = compile_(model)
        x = images()
        expected = eager(model, x) * 3
        for _ in range(20):
            made = torch.zeros_like(x)
            made += x
            result = compiled(made) * 3
            made.fill_(float("nan"))
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


class TestPyTorchRemainder:
    @pytest.mark.parametrize("where", ["cpu", "cuda"])
    def test_fallbacks_run_on_the_gpu(self, where: str) -> None:
        class Positions(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)
                self.register_buffer("offset", torch.randn(4, 1, 1))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                y = self.conv(x).relu()
                steps = torch.arange(y.shape[-1], device=x.device) + torch.zeros(1, device=x.device)
                return (y.cumsum(-1) + steps + self.offset).sigmoid()

        model = Positions().eval().to(where)
        compiled = compile_(model, torch_executed_ops={"aten.cumsum", "aten.add"})
        assert compiled.report is not None and compiled.report.fallbacks
        x = images()
        expected = eager(model.cuda(), x)
        for _ in range(2):
            torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)
        # The simulation stays on the CPU.
        torch.testing.assert_close(compiled.lowered(x.cpu()), expected.cpu(), rtol=1e-3, atol=1e-3)

    def test_the_model_stays_where_it_was(self, model: Net) -> None:
        state = torch.cuda.get_rng_state()
        before = {name: (id(t), t.clone()) for name, t in model.state_dict(keep_vars=True).items()}
        compiled = compile_(model)
        compiled(images())
        for name, tensor in model.state_dict(keep_vars=True).items():
            assert id(tensor) == before[name][0] and torch.equal(tensor, before[name][1])
            assert tensor.device.type == "cuda"
        assert torch.equal(torch.cuda.get_rng_state(), state)


class TestMemory:
    def test_lowered_costs_no_gpu_memory(self) -> None:
        big = nn.Sequential(nn.Linear(1024, 4096), nn.ReLU(), nn.Linear(4096, 1024)).eval()
        x = torch.randn(1, 1024).cuda()
        compiled = compile_(big, [(1, 1024)])
        compiled(x)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        result = compiled(x)
        torch.cuda.synchronize()
        assert all(t.device.type == "cpu" for t in compiled.lowered.buffers())
        # The weights have 33 MB; a call keeps its result and nothing else.
        assert torch.cuda.memory_allocated() - before <= 2**20
        del result


class TestTorchCompile:
    @pytest.fixture(autouse=True)
    def fresh(self) -> Any:
        torch._dynamo.reset()
        yield
        torch._dynamo.reset()

    def trt(self, function: Any, **options: Any) -> Any:
        options = {"device": EXACT, "min_block_size": 1, "optimization_level": 1, **options}
        return torch.compile(function, backend="trt", options=options)

    def test_a_module(self, model: Net) -> None:
        compiled = self.trt(model)
        with torch.no_grad():
            for batch in (4, 2):
                x = images(batch)
                torch.testing.assert_close(compiled(x), eager(model, x), rtol=1e-4, atol=1e-4)
            model.head.bias.add_(1)  # type: ignore[union-attr]
            with pytest.raises(StaleWeightsError):
                compiled(images(2))

    def test_a_graph_break(self, model: Net) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            y = model(x).relu()
            torch._dynamo.graph_break()
            return y * torch.arange(10, device=x.device) + x.mean()

        x = images()
        with torch.no_grad():
            torch.testing.assert_close(
                self.trt(function)(x), eager(function, x), rtol=1e-4, atol=1e-4
            )

    def test_int8_has_the_table_of_compile(self, model: Net) -> None:
        calibrator = DataLoaderCalibrator([images(8, seed=2)], device="cpu")
        options: dict[str, Any] = {
            "enabled_precisions": {torch.int8},
            "calibrator": calibrator,
        }
        reference = compile_(model, **options)
        x = images()
        with torch.no_grad():
            result = self.trt(model, **options)(x)
        spread = eager(model, x).std()
        assert (result - reference(x)).std() < 0.02 * spread
