"""``trtcompile.compile``: results, options, and the caller's module and process, which stay as they were."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn

import trtcompile
from trtcompile import (
    AutogradError,
    Device,
    Dim,
    EngineLoadError,
    Input,
    InputMismatchError,
    SettingsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.errors import LoweringError
from trtcompile.lowering.name_tensors import name_tensors
from trtcompile.ptq import DataLoaderCalibrator


class Net(nn.Module):
    """Convolutions, a norm, dropout, and a hook."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.drop(torch.relu(self.norm(self.conv(x)))))


def net() -> Net:
    model = Net()
    randomize(model, 0)
    return model


class Fn(nn.Module):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def compile_(model: nn.Module, inputs: Any, **options: Any) -> trtcompile.TRTModule:
    return trtcompile.compile(
        model, inputs, **{"device": build_device(), "min_block_size": 1, **options}
    )


IMAGE = Input((2, 3, 8, 8))


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)


def assert_matches(compiled: nn.Module, model: nn.Module, *inputs: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("oracle")
class TestResults:
    @pytest.fixture(scope="class")
    @classmethod
    def model(cls) -> Net:
        return net()

    @pytest.mark.parametrize("batch", [2, Dim("batch", min=1, opt=2, max=5)], ids=["one", "range"])
    def test_a_graph_module(self, model: Net, batch: Any) -> None:
        """What torch.fx makes of a model, changed by hand."""
        traced = torch.fx.symbolic_trace(model)
        for node in traced.graph.nodes:
            if node.target is torch.relu:
                node.target = torch.tanh
        traced.recompile()
        traced.eval()
        code = traced.code
        compiled = compile_(traced, [(batch, 3, 8, 8)])
        x = torch.randn(2, 3, 8, 8)
        assert_matches(compiled, traced, x)
        assert not torch.allclose(compiled(x), model(x), atol=1e-2)
        assert len(compiled.engines) == 1 and not compiled.report.fallbacks  # type: ignore[union-attr]
        assert traced.code == code

    def test_a_graph_module_that_torch_export_made(self, model: Net) -> None:
        x = torch.randn(2, 3, 8, 8)
        with torch.no_grad():
            exported = torch.export.export(model, (x,)).module()
        with pytest.warns(TRTCompileWarning, match="train mode"):  # which eval() cannot change
            compiled = compile_(exported, [IMAGE])
        assert_matches(compiled, model, x)

    def test_one_engine(self, model: Net) -> None:
        compiled = compile_(model, [IMAGE])
        assert len(compiled.engines) == 1 and not compiled.report.fallbacks  # type: ignore[union-attr]
        assert_matches(compiled, model, torch.randn(2, 3, 8, 8))

    def test_dynamic_batch(self, model: Net) -> None:
        ranged = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(5, 3, 8, 8))
        compiled = compile_(model, [ranged])
        for batch in (1, 2, 5):
            assert_matches(compiled, model, torch.randn(batch, 3, 8, 8))

    @pytest.mark.parametrize(
        "inputs", [IMAGE, [(2, 3, 8, 8)], torch.randn(2, 3, 8, 8)], ids=["input", "shape", "tensor"]
    )
    def test_forms_of_inputs(self, model: Net, inputs: Any) -> None:
        assert_matches(compile_(model, inputs), model, torch.randn(2, 3, 8, 8))

    def test_channels_last_model_and_input(self, model: Net) -> None:
        last = copy.deepcopy(model).to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
        assert_matches(compile_(last, [x]), model, x)

    @pytest.mark.parametrize(
        "make",
        [
            lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
            lambda x: x.flip(0)[::1].expand(2, -1, -1, -1),
            lambda x: torch.cat([x, x], dim=3)[..., ::2],
        ],
        ids=["transposed", "expanded", "strided"],
    )
    def test_non_contiguous_inputs(self, model: Net, make: Any) -> None:
        compiled = compile_(model, [IMAGE])
        assert_matches(compiled, model, make(torch.randn(2, 3, 8, 8)))

    def test_nested_inputs_and_outputs(self) -> None:
        class Nested(nn.Module):
            def forward(self, batch: dict[str, Any], pair: list[torch.Tensor]) -> dict[str, Any]:
                total = batch["x"] @ pair[0] - pair[1].relu()
                return {"total": total, "more": (total.sigmoid(), [batch["y"] * 2], None, 7)}

        model = Nested().eval()
        spec = [{"x": (2, 4), "y": Input((3,))}, [(4, 5), torch.randn(2, 5)]]
        compiled = compile_(model, spec)
        x, y, w, b = torch.randn(2, 4), torch.randn(3), torch.randn(4, 5), torch.randn(2, 5)
        got, expected = compiled({"x": x, "y": y}, [w, b]), model({"x": x, "y": y}, [w, b])
        torch.testing.assert_close(got["total"], expected["total"])
        torch.testing.assert_close(got["more"][:2], expected["more"][:2])
        assert got["more"][2:] == (None, 7)
        assert list(got) == list(expected) and isinstance(got["more"][1], list)

    def test_keywords(self) -> None:
        class Two(nn.Module):
            def forward(
                self, x: torch.Tensor, scale: torch.Tensor, extra: Any = None
            ) -> torch.Tensor:
                return x.relu() * scale

        model = Two().eval()
        compiled = compile_(model, [(2, 3), (3,)])
        x, scale = torch.randn(2, 3), torch.randn(3)
        expected = model(x, scale)
        for result in (compiled(x, scale), compiled(x, scale=scale), compiled(scale=scale, x=x)):
            torch.testing.assert_close(result, expected)
        for args, kwargs in [
            ((x,), {}),
            ((), {"x": x}),
            ((x,), {"y": scale}),
            ((x, scale), {"x": x}),
        ]:
            with pytest.raises(InputMismatchError, match=r"structure|keywords"):
                compiled(*args, **kwargs)

    def test_outputs_that_are_inputs_or_constants(self) -> None:
        constant = torch.randn(3)
        model = Fn(lambda x, y: (x, x.relu() + y, constant * 2, y))
        compiled = compile_(model, [(2, 3), (3,)])
        assert_matches(compiled, model, torch.randn(2, 3), torch.randn(3))

    def test_integer_and_bool_inputs(self) -> None:
        model = Fn(lambda i, m, x: x * m + i)
        spec = [Input((3,), dtype=torch.int64), Input((3,), dtype=torch.bool), (2, 3)]
        compiled = compile_(model, spec)
        inputs = torch.tensor([-5, 0, 7]), torch.tensor([True, False, True]), torch.randn(2, 3)
        assert_matches(compiled, model, *inputs)

    @pytest.mark.parametrize("excluded", ["aten.relu", torch.ops.aten.relu.default], ids=str)
    def test_fallbacks(self, model: Net, excluded: Any) -> None:
        compiled = compile_(model, [IMAGE], torch_executed_ops={excluded})
        assert [row.operator for row in compiled.report.fallbacks] == ["aten.relu.default"]  # type: ignore[union-attr]
        assert len(compiled.engines) == 2
        assert_matches(compiled, model, torch.randn(2, 3, 8, 8))

    def test_fallbacks_that_create_tensors(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            positions = torch.arange(x.shape[1], device=x.device) + torch.zeros(x.shape[1])
            return (x.relu() + positions).cumsum(1).sigmoid()

        model = Fn(function)
        compiled = compile_(model, [(2, 3)], torch_executed_ops={"aten.add", "aten.cumsum"})
        assert_matches(compiled, model, torch.randn(2, 3))

    def test_fallbacks_of_permuted_views(self) -> None:
        model = Fn(lambda x: x.relu().permute(0, 2, 1).reshape(2, -1).sin() * 2)
        compiled = compile_(model, [(2, 3, 4)], torch_executed_ops={"aten.permute", "aten.reshape"})
        assert [row.operator for row in compiled.report.fallbacks] == [  # type: ignore[union-attr]
            "aten.permute.default",
            "aten.reshape.default",
        ]
        assert_matches(compiled, model, torch.randn(2, 3, 4))

    def test_views_of_outputs_in_channels_last(self) -> None:
        """In eager PyTorch the convolution's output is channels_last, so that the view is one."""

        class Flat(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.conv = nn.Conv2d(3, 4, 3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.conv(x).permute(0, 2, 3, 1).view(2, -1).sin()

        model = Flat().eval().to(memory_format=torch.channels_last)
        x = torch.randn(2, 3, 8, 8).to(memory_format=torch.channels_last)
        assert_matches(compile_(model, [x], torch_executed_ops={"aten.permute"}), model, x)
        excluded = {"aten.convolution", "aten.permute", "aten.reshape"}
        assert_matches(compile_(model, [x], torch_executed_ops=excluded), model, x)

    def test_the_callers_autocast_changes_nothing(self, model: Net) -> None:
        compiled = compile_(model, [IMAGE], torch_executed_ops={"aten.convolution"})
        x = torch.randn(2, 3, 8, 8)
        expected = compiled(x)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert torch.equal(compiled(x), expected)

    def test_train_mode_is_compiled_as_eval(self, model: Net) -> None:
        training = copy.deepcopy(model).train()
        with pytest.warns(TRTCompileWarning, match="train mode.*compiled as in eval mode"):
            compiled = compile_(training, [IMAGE])
        assert_matches(compiled, model, torch.randn(2, 3, 8, 8))


def _random_states() -> list[Any]:
    return [torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist()]  # noqa: NPY002


def _fingerprint(model: nn.Module) -> dict[str, Any]:
    """All that a caller could notice of a module."""
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return {
        "objects": [(name, id(t)) for name, t in tensors],
        "values": [(name, t.detach().clone()) for name, t in tensors],
        "versions": [(name, t._version) for name, t in tensors],
        "grad": [
            (
                name,
                t.requires_grad,
                t.device,
                t.stride(),
                None if t.grad is None else t.grad.clone(),
            )
            for name, t in tensors
        ],
        "training": [m.training for m in model.modules()],
        "attributes": [
            {k: id(v) for k, v in vars(m).items() if k != "training"} for m in model.modules()
        ],
        "hooks": [
            {k: dict(v) for k, v in vars(m).items() if k.endswith("_hooks") and isinstance(v, dict)}
            for m in model.modules()
        ],
    }


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return list(a) == list(b) and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(a == b)


@pytest.fixture
def watched() -> Iterator[Net]:
    """A module in a mixed state; the test must leave it, and the process, as they are."""
    model = net()
    model(torch.randn(2, 3, 8, 8)).sum().backward()
    model.last.bias.requires_grad_(False)
    model.drop.train()
    model.norm.register_forward_hook(lambda module, args, output: output * 2)
    model.register_forward_pre_hook(lambda module, args: (args[0] + 1,))
    before, states = _fingerprint(model), _random_states()
    grad, dtype, threads = (
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.get_num_threads(),
    )
    yield model
    after = _fingerprint(model)
    for aspect, value in before.items():
        assert _same(value, after[aspect]), aspect
    assert _same(states, _random_states())
    assert (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads()) == (
        grad,
        dtype,
        threads,
    )


class Noisy(nn.Module):
    """Draws from every global random state while it is traced, and then does as told."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * random.random() + float(np.random.rand())  # noqa: NPY002


@pytest.mark.filterwarnings("ignore:the model is in train mode")
class TestTheCallersModule:
    def test_after_a_compilation(self, watched: Net, oracle: None) -> None:
        x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
        compiled = compile_(watched, [IMAGE])
        reference = copy.deepcopy(watched).eval()
        assert_matches(compiled, reference, x)  # hooks included

    def test_after_an_int8_compilation(self, watched: Net) -> None:
        batches = [torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))]
        loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batches), shuffle=True)
        calibrator = trtcompile.ptq.DataLoaderCalibrator(loader)
        compile_(
            watched,
            [IMAGE],
            enabled_precisions={torch.float, torch.half, torch.int8},
            calibrator=calibrator,
        )

    def test_random_numbers_drawn_in_forward(self, watched: Net) -> None:
        compile_(Noisy(watched), [IMAGE])

    @pytest.mark.parametrize(
        "stage",
        [
            "trtcompile.compiler.capture",
            "torch.export.exported_program.ExportedProgram.run_decompositions",
            "trtcompile.compiler.lower",
            "trtcompile.compiler.quantize",
            "trtcompile.compiler.assign_fp16",
            "trtcompile.compiler.partition",
            "trtcompile.compiler.make_report",
            "trtcompile.compiler.convert",
            "trtcompile.compiler.build_engine",
            "trtcompile.compiler.EngineModule",
        ],
    )
    def test_after_a_failure(
        self, stage: str, watched: Net, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any, **kwargs: Any) -> Any:
            random.random()
            torch.rand(1)
            raise RuntimeError(f"made to fail: {stage}")

        monkeypatch.setattr(stage, fail)
        calibrator = trtcompile.ptq.DataLoaderCalibrator([torch.zeros(2, 3, 8, 8)])
        with pytest.raises((RuntimeError, UnsupportedGraphError), match="made to fail"):
            compile_(
                watched,
                [IMAGE],
                enabled_precisions={torch.half, torch.int8},
                calibrator=calibrator,
            )

    def test_after_a_forward_that_fails_half_way(self, watched: Net) -> None:
        class Fails(nn.Module):
            def __init__(self, inner: nn.Module) -> None:
                super().__init__()
                self.inner = inner

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.inner(x)
                raise ValueError("half way")

        with pytest.raises(UnsupportedGraphError, match="half way"):
            compile_(Fails(watched), [IMAGE])


class TestIndependence:
    def test_training_on_changes_nothing(self, oracle: None) -> None:
        model = net()
        compiled = compile_(model, [IMAGE])
        x = torch.randn(2, 3, 8, 8)
        expected, simulated = compiled(x), compiled.lowered(x)
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.add_(1)
        assert torch.equal(compiled(x), expected)
        assert torch.equal(compiled.lowered(x), simulated)

    def test_lowered_is_on_the_cpu_and_shares_nothing(self) -> None:
        model = net()
        compiled = compile_(model, [IMAGE])
        tensors = [*compiled.lowered.parameters(), *compiled.lowered.buffers()]
        theirs = {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
        assert tensors and all(t.device.type == "cpu" for t in tensors)
        assert not {t.data_ptr() for t in tensors} & theirs

    def test_what_pytorch_runs_shares_nothing_with_the_model(self) -> None:
        model = net()
        compiled = compile_(model, [IMAGE], torch_executed_ops={"aten.convolution"})
        theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        constants = list(compiled.executor.buffers())
        assert constants
        assert not {t.untyped_storage().data_ptr() for t in constants} & theirs
        kept = {t.data_ptr() for t in compiled.lowered.buffers()}
        assert {t.data_ptr() for t in constants} <= kept  # one copy for both

    @pytest.mark.parametrize("int8", [False, True], ids=["fp16", "int8"])
    def test_the_callers_default_device_changes_nothing(self, oracle: None, int8: bool) -> None:
        model = nn.Sequential(net(), nn.Upsample(scale_factor=1.5, mode="bilinear")).eval()
        images = [torch.randn(3, 3, 8, 8) for _ in range(2)]
        ranged = Input((Dim("batch", min=1, opt=2, max=4), 3, 8, 8))

        def compiled() -> trtcompile.TRTModule:
            if not int8:
                return compile_(model, [ranged], enabled_precisions={torch.half})
            calibrator = DataLoaderCalibrator(images)
            return compile_(model, [ranged], enabled_precisions={torch.int8}, calibrator=calibrator)

        expected = compiled()
        with torch.device("meta"):  # stands for a GPU; tensors made there have no values
            got = compiled()
        assert got.calibration_table == expected.calibration_table
        assert torch.equal(got(images[0]), expected(images[0]))
        assert torch.equal(got.lowered(images[0]), expected.lowered(images[0]))

    def test_lowered_gives_the_models_structure(self) -> None:
        model = Fn(lambda x, y: {"a": x @ y, "b": [x.relu()]})
        lowered = compile_(model, [(2, 3), (3, 4)]).lowered
        x, y = torch.randn(2, 3), torch.randn(3, 4)
        torch.testing.assert_close(lowered(x, y), model(x, y))

    def test_keep_lowered(self) -> None:
        compiled = compile_(net(), [IMAGE], keep_lowered=False)
        with pytest.raises(AttributeError, match="keep_lowered=True"):
            _ = compiled.lowered
        assert not hasattr(compiled, "lowered")

    def test_the_module_has_no_weights_to_move(self, oracle: None) -> None:
        compiled = compile_(net(), [IMAGE], torch_executed_ops={"aten.convolution"})
        x = torch.randn(2, 3, 8, 8)
        expected = compiled(x)
        plans = [engine.plan for engine in compiled.engines]
        assert compiled.state_dict() == {} and not list(compiled.parameters())
        compiled.half().double().to(torch.bfloat16).train().requires_grad_(True)
        assert torch.equal(compiled(x), expected)
        assert [engine.plan for engine in compiled.engines] == plans
        assert all(b.dtype == torch.float32 for b in compiled.executor.buffers())

    def test_repr(self) -> None:
        text = repr(compile_(net(), [IMAGE]))
        assert "TRTModule(inputs=([2, 3, 8, 8] float32), engines=[Engine(engine_0, " in text


class TestOptions:
    def test_require_full_compilation(self) -> None:
        with pytest.raises(UnsupportedGraphError, match=r"(?s)1 operators cannot.*aten.relu") as e:
            compile_(
                net(), [IMAGE], require_full_compilation=True, torch_executed_ops={"aten.relu"}
            )
        assert [row.operator for row in e.value.report.fallbacks] == ["aten.relu.default"]  # type: ignore[attr-defined]

    def test_min_block_size(self) -> None:
        excluded = {"aten.relu"}
        small = compile_(net(), [IMAGE], torch_executed_ops=excluded, min_block_size=1)
        assert len(small.engines) == 2
        with pytest.raises(UnsupportedGraphError, match="smaller than min_block_size=2"):
            compile_(net(), [IMAGE], torch_executed_ops=excluded, min_block_size=2)

    def test_use_cuda_graphs_reaches_the_engines(self) -> None:
        for wanted in (False, True):
            compiled = compile_(net(), [IMAGE], use_cuda_graphs=wanted)
            assert [m._use_cuda_graphs for m in compiled.engine_modules] == [wanted]

    def test_gpu_id_reaches_the_engines(self) -> None:
        device = Device(compute_capability=build_device().compute_capability, gpu_id=3)
        if device.compute_capability is None:
            pytest.skip("builds for its own GPU only: pip install 'trtcompile[rtx]'")
        compiled = compile_(net(), [IMAGE], device=device)
        assert "cuda:3" in (compiled.runnable or "")

    def test_an_operator_that_is_not_there_warns(self) -> None:
        with pytest.warns(
            TRTCompileWarning, match="aten.conv2d, which the lowered model does not have"
        ):
            compile_(net(), [IMAGE], torch_executed_ops={"aten.conv2d"})

    def test_a_spec_and_options(self) -> None:
        spec = trtcompile.CompileSpec(device=build_device(), use_cuda_graphs=True)
        compiled = trtcompile.compile(net(), [IMAGE], spec=spec, keep_lowered=False)
        assert compiled.spec.use_cuda_graphs and not compiled.spec.keep_lowered


class TestNothingToCompile:
    def test_no_operator_for_tensorrt(self) -> None:
        with pytest.raises(
            UnsupportedGraphError, match=r"(?s)nothing of the model.*torch_executed_ops"
        ) as e:
            compile_(nn.ReLU().eval(), [(2, 3)], torch_executed_ops={"aten.relu"})
        report = e.value.report
        assert isinstance(report, trtcompile.PartitionReport)
        assert [row.operator for row in report.fallbacks] == ["aten.relu.default"]

    def test_no_operator_at_all(self) -> None:
        with pytest.raises(UnsupportedGraphError, match="nothing of the model"):
            compile_(Fn(lambda x: x), [(2, 3)])

    def test_a_float64_model(self) -> None:
        with pytest.raises(UnsupportedGraphError, match="no float64 tensors"):
            compile_(Fn(lambda x: x.relu() + 1), [Input((2, 3), dtype=torch.float64)])

    def test_a_model_that_writes_a_buffer(self) -> None:
        class Writes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("count", torch.zeros(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.count += 1
                return x * self.count

        model = Writes().eval()
        with pytest.raises(UnsupportedGraphError, match="writes to 'count'"):
            compile_(model, [(3,)])
        assert torch.equal(model.count, torch.zeros(3))


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with no GPU is needed")
class TestWithoutAGpu:
    def test_forward_raises_before_anything_runs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Neither the engine nor the simulation in its place."""
        compiled = compile_(net(), [IMAGE], torch_executed_ops={"aten.relu"})

        def run(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("something was run")

        for graph in (compiled.executor, compiled.lowered):
            monkeypatch.setattr(graph, "forward", run)
        monkeypatch.setattr(torch.fx.Interpreter, "run", run)
        for _ in range(2):
            with pytest.raises(EngineLoadError) as caught:
                compiled(torch.randn(2, 3, 8, 8))
        assert "for compute capability 8.9" in str(caught.value)
        assert "no GPU cuda:0" in str(caught.value)

    def test_runnable_says_why(self) -> None:
        compiled = compile_(net(), [IMAGE])
        assert "this machine has no GPU cuda:0" in (compiled.runnable or "")

    def test_the_simulation_runs_when_it_is_asked_for(self) -> None:
        model = net()
        compiled = compile_(model, [IMAGE])
        assert_matches(compiled.lowered, model, torch.randn(2, 3, 8, 8))


class TestStages:
    def test_a_failing_pass_is_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken_pass(graph_module: Any, spec: Any) -> int:
            raise KeyError("x")

        passes = (broken_pass, name_tensors)
        monkeypatch.setattr("trtcompile.lowering.pipeline.PIPELINE", passes)
        with pytest.raises(LoweringError, match="broken_pass failed"):
            compile_(net(), [IMAGE])

    def test_the_device_is_checked_before_the_model_is_looked_at(self) -> None:
        class Never(nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                raise AssertionError("traced")

        with pytest.raises(SettingsError):
            trtcompile.compile(Never(), [IMAGE], device=Device(compute_capability="1.0"))


@pytest.mark.usefixtures("oracle")
class TestAutograd:
    def test_an_input_that_requires_gradients(self) -> None:
        compiled = compile_(net(), [IMAGE])
        x = torch.randn(2, 3, 8, 8, requires_grad=True)
        with pytest.raises(AutogradError, match=r"requires gradients.*no_grad"):
            compiled(x)
        with torch.no_grad():
            assert not compiled(x).requires_grad
        with torch.inference_mode():
            compiled(torch.randn(2, 3, 8, 8))
