"""``torch.compile(backend="trt")``: its engines are run by the oracle, all else as it is."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn
from torch.fx import traceback

import trtcompile
from trtcompile import (
    AutogradError,
    CalibrationError,
    EngineLoadError,
    SettingsError,
    StaleWeightsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.backend import compiled_graph
from trtcompile.ptq import CacheCalibrator, DataLoaderCalibrator
from trtcompile.runtime import TRTModule

pytestmark = pytest.mark.usefixtures("oracle")

Compiled = list[TRTModule]


@pytest.fixture
def oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiled]:
    """What the backend compiled, in order."""
    torch._dynamo.reset()
    made: Compiled = []
    compile_captured = compiled_graph.compile_captured

    def remembering(*args: Any, **kwargs: Any) -> TRTModule:
        made.append(compile_captured(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(compiled_graph, "compile_captured", remembering)
    yield made
    torch._dynamo.reset()


def trt(
    function: Any, *, fullgraph: bool = False, dynamic: bool | None = None, **options: Any
) -> Any:
    options = {"device": build_device(), "min_block_size": 1, **options}
    return torch.compile(
        function, backend="trt", fullgraph=fullgraph, dynamic=dynamic, options=options
    )


def assert_matches(compiled: Any, function: Any, *args: Any, **kwargs: Any) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            compiled(*args, **kwargs), function(*args, **kwargs), rtol=1e-4, atol=1e-5
        )


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.conv(x))))


def net() -> Net:
    model = Net()
    randomize(model, 0)
    return model


def image(batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, 8, 8)


def engines(modules: Compiled) -> list[int]:
    return [len(module.engines) for module in modules]


def test_a_call_outlives_an_export_in_another_thread(
    modules: Compiled, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tracing notes of a node is the process's, and an export that ends puts back what it was before."""
    model, data = net(), image()
    fast = trt(model)
    with torch.no_grad():
        expected = fast(data)
        call = compiled_graph.CompiledGraph.__call__

        def while_the_export_ends(self: Any, *values: Any) -> Any:
            monkeypatch.setattr(traceback, "current_meta", {})
            return call(self, *values)

        monkeypatch.setattr(compiled_graph.CompiledGraph, "__call__", while_the_export_ends)
        monkeypatch.setattr(torch.compiler, "_is_exporting_flag", True)
        assert torch.compiler.is_exporting()
        assert torch.equal(fast(data), expected)


def test_threads_that_call_at_once(modules: Compiled) -> None:
    model, data = net(), image()
    with torch.no_grad():
        expected = model(data)
        with torch._subclasses.FakeTensorMode():
            torch.empty(1)  # PyTorch wants the main thread to be the first that traces
    fast = trt(model)

    def run(_: int) -> torch.Tensor:
        with torch.no_grad():
            result: torch.Tensor = fast(data)
        return result

    with ThreadPoolExecutor(4) as pool:
        for result in pool.map(run, range(8)):
            torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    # Threads that come before the first graph is ready make dynamo capture graphs of their own.
    assert set(engines(modules)) == {1}


class TestFound:
    def test_without_importing_trtcompile_first(self) -> None:
        code = (
            "import sys, torch\n"
            "assert 'trt' in torch._dynamo.list_backends()\n"
            "assert 'trtcompile' not in sys.modules\n"
            "compiled = torch.compile(torch.relu, backend='trt', options={'min_blok_size': 1})\n"
            "try: compiled(torch.randn(3))\n"
            "except ValueError as error: print(type(error).__name__, error)\n"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code],
            capture_output=True,
            text=True,
            check=True,
            cwd="/",
        )
        assert done.stdout.startswith("SettingsError trtcompile has no option 'min_blok_size'.")
        assert "Did you mean 'min_block_size'?" in done.stdout


class TestSettings:
    def test_misspelt_option(self) -> None:
        with pytest.raises(SettingsError, match="Did you mean 'enabled_precisions'"):
            trt(net(), enabled_precision={torch.half})(image())

    def test_refused_value(self) -> None:
        with pytest.raises(SettingsError, match="optimization_level is 9"):
            trt(net(), optimization_level=9)(image())

    def test_int8_needs_a_calibrator(self) -> None:
        with pytest.raises(SettingsError, match="no calibrator"):
            trt(net(), enabled_precisions={torch.int8})(image())

    def test_a_mode_is_refused(self) -> None:
        with pytest.raises(SettingsError, match=r"mode is 'reduce-overhead'.*options="):
            torch.compile(net(), backend="trt", mode="reduce-overhead")(image())

    def test_no_options(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(trtcompile._tensorrt, "gpu_capability", lambda _: None)
        with pytest.raises(SettingsError, match="this machine has no such GPU"):
            torch.compile(net(), backend="trt")(image())

    def test_errors_are_not_swallowed(self) -> None:
        with torch._dynamo.config.patch(suppress_errors=True), pytest.raises(SettingsError):
            trt(net(), nonsense=1)(image())

    def test_the_call_after_a_failed_one_tries_again(self, monkeypatch: pytest.MonkeyPatch) -> None:
        model = net()
        compiled = trt(model)
        with monkeypatch.context() as patch:
            patch.setattr(compiled_graph, "capture", _interrupted)
            with pytest.raises(KeyboardInterrupt):
                compiled(image())
        assert_matches(compiled, model, image())

    def test_torch_executed_ops(self, modules: Compiled) -> None:
        model = net()
        assert_matches(trt(model, torch_executed_ops={"aten.relu"}), model, image())
        assert engines(modules) == [2]

    def test_require_full_compilation(self) -> None:
        compiled = trt(net(), torch_executed_ops={"aten.relu"}, require_full_compilation=True)
        with pytest.raises(UnsupportedGraphError, match="require_full_compilation"):
            compiled(image())


def _interrupted(*args: Any, **kwargs: Any) -> Any:
    raise KeyboardInterrupt


class TestResults:
    @pytest.mark.parametrize("fullgraph", [False, True])
    def test_a_module(self, modules: Compiled, fullgraph: bool) -> None:
        model = net()
        compiled = trt(model, fullgraph=fullgraph)
        assert_matches(compiled, model, image())
        assert_matches(compiled, model, image())
        assert engines(modules) == [1]
        assert not modules[0].report.fallbacks  # type: ignore[union-attr]

    def test_source_lines_are_the_users(self, modules: Compiled) -> None:
        trt(net())(image())
        (row,) = [r for r in modules[0].report.rows if r.operator == "aten.relu.default"]  # type: ignore[union-attr]
        assert Path(__file__).name in row.source and "torch.relu" in row.source

    def test_a_function(self, modules: Compiled) -> None:
        weight = torch.randn(4, 3)

        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x @ weight.T).relu() - y

        assert_matches(trt(function), function, torch.randn(2, 3), torch.randn(2, 4))
        assert engines(modules) == [1]

    def test_a_torch_container(self, modules: Compiled) -> None:
        model = nn.Sequential(net(), nn.ReLU()).eval()
        assert_matches(trt(model), model, image())
        assert engines(modules) == [1]

    def test_dictionaries(self, modules: Compiled) -> None:
        def function(batch: dict[str, Any], flag: bool = True) -> dict[str, Any]:
            x = batch["x"].relu() if flag else batch["x"]
            return {"sum": x + batch["more"][0], "flag": flag, "none": None, "all": [x, (x * 2,)]}

        batch = {"x": torch.randn(2, 3), "more": [torch.randn(3)]}
        compiled = trt(function)
        got = compiled(batch)
        expected = function(batch)
        assert list(got) == list(expected) and got["flag"] is True and got["none"] is None
        torch.testing.assert_close((got["sum"], got["all"]), (expected["sum"], expected["all"]))
        assert engines(modules) == [1]

    def test_numbers_none_and_flags(self) -> None:
        def function(
            x: torch.Tensor, times: int, mask: torch.Tensor | None, negate: bool, scale: float = 1.0
        ) -> torch.Tensor:
            for _ in range(times):
                x = x.relu() + times * scale
            if mask is not None:
                x = x * mask
            return -x if negate else x

        compiled = trt(function)
        x, mask = torch.randn(2, 3), torch.tensor([True, False, True])
        for args in [(1, None, False), (2, None, False), (3, mask, True), (4, mask, False)]:
            assert_matches(compiled, function, x, *args)
        for scale in (0.5, 0.25, -3.0):
            assert_matches(compiled, function, x, 1, None, False, scale)

    def test_numpy_arrays(self) -> None:
        def function(x: torch.Tensor, y: np.ndarray) -> torch.Tensor:
            return x.relu() + torch.from_numpy(y * 2)

        compiled = trt(function)
        for _ in range(2):
            array = np.random.default_rng(0).standard_normal((2, 3)).astype(np.float32)
            assert_matches(compiled, function, torch.randn(2, 3), array)

    def test_keywords(self) -> None:
        model = net()
        compiled = trt(model)
        with torch.no_grad():
            x = image()
            torch.testing.assert_close(compiled(x=x), model(x), rtol=1e-4, atol=1e-5)

    def test_arguments_used_in_another_order(self, modules: Compiled) -> None:
        def function(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return c.relu() - b * a

        args = torch.randn(3), torch.randn(2, 3), torch.randn(2, 3)
        assert_matches(trt(function), function, *args)
        assert engines(modules) == [1]

    def test_an_unused_argument(self) -> None:
        def function(unused: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return x.relu() + 1

        assert_matches(trt(function), function, torch.randn(3), torch.randn(2, 3))

    def test_the_same_tensor_twice(self) -> None:
        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.relu() - y

        compiled, x = trt(function), torch.randn(2, 3)
        assert_matches(compiled, function, x, x)
        assert_matches(compiled, function, x, x + 1)

    def test_other_batch_sizes(self, modules: Compiled) -> None:
        """Dynamo captures the second size with symbolic sizes; each size gets an engine."""
        model = net()
        compiled = trt(model)
        for batch in (2, 5, 3, 5, 2):
            assert_matches(compiled, model, image(batch))
        # Dynamo asks its latest graph, which takes any size, before the first one.
        assert [m.engines[0].inputs[0].shape[0] for m in modules] == [2, 5, 3, 2]

    def test_sizes_in_the_computation(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return (x * x.shape[0]).reshape(x.shape[0] // 2, -1).relu() + x.shape[1]

        compiled = trt(function)
        for rows in (4, 6, 10):
            assert_matches(compiled, function, torch.randn(rows, 3))

    def test_marked_dynamic(self) -> None:
        model = net()
        compiled = trt(model, dynamic=True)
        for batch in (4, 3):
            assert_matches(compiled, model, image(batch))

    def test_channels_last_and_strided(self) -> None:
        model = net().to(memory_format=torch.channels_last)
        compiled = trt(model)
        assert_matches(compiled, model, image().to(memory_format=torch.channels_last))
        assert_matches(compiled, model, image(4)[::2].transpose(2, 3))

    @pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
    def test_a_grad_context_inside(self, context: Callable[[], Any]) -> None:
        model = net()

        def function(x: torch.Tensor) -> torch.Tensor:
            with context():
                return model(x).relu()

        assert_matches(trt(function), function, image())

    def test_in_inference_mode(self) -> None:
        with torch.inference_mode():
            model = net()
            compiled = trt(model)
            assert_matches(compiled, model, image())
            assert_matches(compiled, model, image())

    def test_random_states_are_left_alone(self) -> None:
        model = net()
        x = image()
        before = torch.get_rng_state()
        trt(model)(x)
        assert torch.equal(torch.get_rng_state(), before)


class Breaks(nn.Module):
    """Ends dynamo's graph at one place."""

    def __init__(self, where: str) -> None:
        super().__init__()
        self.where = where
        self.first = nn.Conv2d(3, 4, 3)
        self.inner = BreaksInside() if where == "submodule" else Plain()
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.where == "start":
            torch._dynamo.graph_break()
        y = self.first(x)
        if self.where == "middle":
            torch._dynamo.graph_break()
        if self.where == "print":
            print("a line")
        if self.where == "with":
            with torch.no_grad():
                torch._dynamo.graph_break()
                y = y.relu()
        if self.where == "disabled":
            y = disabled(y)
        if self.where == "data":
            y = y + 1 if y.sum() > 0 else y - 1
        y = self.last(self.inner(y))
        if self.where == "end":
            torch._dynamo.graph_break()
        return y


class Plain(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x)


class BreaksInside(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(x)
        torch._dynamo.graph_break()
        return x * 2


class Tries(nn.Module):
    """A break inside of ``try`` makes dynamo run the whole function in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.net = net()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            torch._dynamo.graph_break()
            return self.net(x)
        except ValueError:
            return x


@torch._dynamo.disable
def disabled(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


class StartsInside(nn.Module):
    """The first thing that a container of PyTorch's calls breaks before any operator."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        torch._dynamo.graph_break()
        return x * 2


class Wraps(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x)


PLACES = ("start", "middle", "print", "with", "disabled", "data", "submodule", "end")


class TestGraphBreaks:
    @pytest.mark.parametrize("where", PLACES)
    def test_results(self, where: str, modules: Compiled) -> None:
        model = Breaks(where).eval()
        assert_matches(trt(model), model, image())
        assert sum(engines(modules)) >= 1

    def test_a_function_that_python_runs(self, modules: Compiled) -> None:
        model = Tries().eval()
        assert_matches(trt(model), model, image())
        assert engines(modules) == [1]

    def test_numbers_cross_a_break(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            rows, y = x.shape[0] * 2, x.relu()
            torch._dynamo.graph_break()
            return y * rows + x.shape[0]

        compiled = trt(function)
        for size in (2, 5, 7):
            assert_matches(compiled, function, torch.randn(size, 3))

    def test_fullgraph_refuses_a_break(self) -> None:
        with pytest.raises(torch._dynamo.exc.Unsupported):
            trt(Breaks("middle").eval(), fullgraph=True)(image())

    def test_unsupported_operators_run_in_pytorch(self, modules: Compiled) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return torch.relu(torch.linalg.qr(x.relu() + 1)[1] * 2) + torch.arange(3)

        assert_matches(trt(function), function, torch.randn(3, 3))
        (module,) = modules
        assert len(module.engines) >= 1 and module.report.fallbacks  # type: ignore[union-attr]

    def test_a_graph_without_anything_for_tensorrt(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.qr(x)[1]

        assert_matches(trt(function), function, torch.randn(3, 3))

    def test_a_graph_that_writes_its_input_stays_in_pytorch(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            x.add_(1)
            return x.relu()

        compiled, x = trt(function), torch.randn(2, 3)
        expected = function(x.clone())
        with pytest.warns(TRTCompileWarning, match="a graph stays in PyTorch.*writes to"):
            result = compiled(x)
        assert torch.equal(result, expected) and torch.equal(x.relu(), expected)

    def test_a_graph_that_pytorch_runs_has_live_weights_and_gradients(self) -> None:
        model = nn.Linear(3, 3, dtype=torch.float64)
        compiled, x = trt(model), torch.randn(2, 3, dtype=torch.float64)
        compiled(x).sum().backward()
        assert model.weight.grad is not None
        with torch.no_grad():
            model.weight.mul_(2)
        assert_matches(compiled, model, x)


class TestTraining:
    def test_train_mode_warns_and_works(self) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
        reference = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()).train()
        reference.load_state_dict(model.state_dict())
        compiled, x = trt(model), image()
        with pytest.warns(TRTCompileWarning) as caught:
            first = compiled(x)
        assert any("train mode: batch_norm" in str(w.message) for w in caught)
        torch.testing.assert_close(first, reference(x))
        torch.testing.assert_close(compiled(x), reference(x))
        torch.testing.assert_close(model[1].running_mean, reference[1].running_mean)

    def test_dropout_in_train_mode(self, modules: Compiled) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5), nn.Conv2d(4, 2, 3)).train()
        with pytest.warns(TRTCompileWarning, match="train mode: dropout behave as in training"):
            first = trt(model)(image())
        assert first.shape == (2, 2, 4, 4)
        fallbacks = modules[0].report.fallbacks  # type: ignore[union-attr]
        assert fallbacks and not any("convolution" in row.operator for row in fallbacks)

    def test_int8_in_train_mode_is_refused(self, modules: Compiled) -> None:
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Dropout(0.5)).train()
        with pytest.raises(CalibrationError, match=r"train mode.*model.eval\(\)"):
            trt(model, **int8([image()]))(image())
        assert not modules

    def test_an_input_that_requires_gradients(self) -> None:
        compiled = trt(net())
        with pytest.raises(AutogradError, match="requires gradients"):
            compiled(image().requires_grad_())
        assert not compiled(image()).requires_grad


def _in_place(model: Net) -> None:
    with torch.no_grad():
        model.conv.weight.mul_(1.5)


def _load(model: Net) -> None:
    model.load_state_dict({k: v * 2 for k, v in model.state_dict().items()})


def _assign_data(model: Net) -> None:
    model.conv.weight.data = model.conv.weight.data * 2


def _step(model: Net) -> None:
    model.zero_grad()
    model(image()).sum().backward()
    torch.optim.SGD(model.parameters(), lr=0.1).step()


def _buffer(model: Net) -> None:
    model.norm.running_mean += 1  # type: ignore[operator]


class TestChangedWeights:
    @pytest.mark.parametrize("change", [_in_place, _load, _assign_data, _step, _buffer])
    def test_raises_and_can_be_rebuilt(self, change: Callable[[Net], None]) -> None:
        model = net()
        compiled, x = trt(model), image()
        assert_matches(compiled, model, x)
        change(model)
        for _ in range(2):
            with (
                pytest.raises(StaleWeightsError, match=r"torch._dynamo.reset\(\)"),
                torch.no_grad(),
            ):
                compiled(x)
        torch._dynamo.reset()
        assert_matches(compiled, model, x)

    def test_another_batch_size_does_not_hide_it(self) -> None:
        model = net()
        compiled = trt(model, dynamic=True)
        assert_matches(compiled, model, image(4))
        _in_place(model)
        with pytest.raises(StaleWeightsError), torch.no_grad():
            compiled(image(3))

    def test_a_new_parameter(self) -> None:
        model = net()
        compiled, x = trt(model), image()
        assert_matches(compiled, model, x)
        model.conv.weight = nn.Parameter(model.conv.weight * 3)
        with pytest.raises(StaleWeightsError), torch.no_grad():
            compiled(x)

    def test_tensors_that_are_no_parameters_may_change(self) -> None:
        class Shifts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.shift = torch.randn(3)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.relu() + self.shift

        model = Shifts()
        compiled, x = trt(model), torch.randn(2, 3)
        assert_matches(compiled, model, x)
        model.shift += 1
        assert_matches(compiled, model, x)


def marked(tensor: torch.Tensor, dim: int = 0, low: int = 2, high: int = 15) -> torch.Tensor:
    torch._dynamo.mark_dynamic(tensor, dim, min=low, max=high)
    return tensor


def graphs() -> int:
    """How many graphs dynamo captured."""
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


class TestRanges:
    """``mark_dynamic`` with a max: one engine for all sizes."""

    @pytest.fixture(autouse=True)
    def _no_counts(self) -> None:
        torch._dynamo.utils.counters.clear()

    def test_one_engine(self, modules: Compiled) -> None:
        model = net()
        compiled = trt(model)
        for batch in (4, 2, 15, 7):
            assert_matches(compiled, model, marked(image(batch)))
        assert_matches(compiled, model, image(9))  # that is not marked
        assert (len(modules), graphs()) == (1, 1)
        (spec,) = modules[0].arguments
        assert (spec.min_shape[0], spec.opt_shape[0], spec.max_shape[0]) == (2, 4, 15)
        assert modules[0].engines[0].profiles == ((((2, 3, 8, 8), (4, 3, 8, 8), (15, 3, 8, 8)),),)
        assert not modules[0].report.fallbacks  # type: ignore[union-attr]

    def test_sizes_that_have_to_be_equal(self, modules: Compiled) -> None:
        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return (x + y).reshape(x.shape[0], -1, 1).relu() * y.shape[0]

        compiled = trt(function)
        for rows in (4, 15, 2):
            assert_matches(
                compiled, function, marked(torch.randn(rows, 3)), marked(torch.randn(rows, 3))
            )
        assert (len(modules), graphs()) == (1, 1)
        first, second = modules[0].arguments
        assert first.dims == second.dims and list(first.dims) == [0]

    def test_guards_that_two_sizes_are_equal_are_kept(self, modules: Compiled) -> None:
        """Dynamo took two sizes for one; where they differ, it captures again."""

        def function(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.relu().sum(0) - y.tanh().sum(0)

        compiled = trt(function)
        for rows in ((4, 4), (6, 6), (5, 7), (3, 2)):
            x, y = (marked(torch.randn(r, 3)) for r in rows)
            assert_matches(compiled, function, x, y)
        assert len(modules) == graphs() <= 2

    def test_other_ranges_are_kept(self, modules: Compiled) -> None:
        """A size out of the range is not the engine's."""
        model = nn.Sequential(nn.Linear(3, 4), nn.ReLU()).eval()
        compiled = trt(model)
        assert_matches(compiled, model, marked(torch.randn(4, 3)))
        for rows in (1, 40):
            assert_matches(compiled, model, torch.randn(rows, 3))
        assert modules[0].engines[0].profiles[0][0][2] == (15, 3)
        assert len(modules) == graphs() == 3

    def test_two_ranges_and_a_size_in_the_computation(self, modules: Compiled) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return (x * x.shape[0]).relu().reshape(-1, 3) + x.shape[1] * x.shape[0]

        compiled = trt(function)
        for rows, columns in ((4, 6), (3, 2), (15, 9)):
            x = marked(marked(torch.randn(rows, columns, 3)), 1, 2, 9)
            assert_matches(compiled, function, x)
        assert (len(modules), graphs()) == (1, 1)

    def test_integers_beside_a_range(self, modules: Compiled) -> None:
        """Dynamo makes a symbol of an integer that changes: each value is compiled in, sizes stay of a range."""

        def function(x: torch.Tensor, times: int) -> torch.Tensor:
            return x.relu() * times + x.shape[0]

        compiled = trt(function)
        for rows, times in ((4, 3), (6, 3), (7, 5), (9, 6), (2, 6), (15, 5), (3, 3)):
            assert_matches(compiled, function, marked(torch.randn(rows, 3)), times)
        assert graphs() == 2
        assert len(modules) == 4  # 3 in its own graph; 5, 6, and 3 in one that takes any

    def test_a_dimension_without_a_bound_beside_one_with(self, modules: Compiled) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x.relu() * 2

        compiled = trt(function)
        for rows, columns in ((4, 3), (6, 3), (7, 5), (9, 5)):
            x = marked(torch.randn(rows, columns))
            torch._dynamo.mark_dynamic(x, 1)
            assert_matches(compiled, function, x)
        assert graphs() == 1
        assert [m.engines[0].inputs[0].shape for m in modules] == [(-1, 3), (-1, 5)]

    @pytest.mark.parametrize("mark", ["mark_dynamic", "maybe_mark_dynamic"])
    def test_marks_without_a_bound(self, modules: Compiled, mark: str) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x.relu() * 2

        compiled = trt(function)
        for rows in (4, 6, 4):
            x = torch.randn(rows, 3)
            getattr(torch._dynamo, mark)(x, 0)
            assert_matches(compiled, function, x)
        assert graphs() == 1
        assert [m.engines[0].inputs[0].shape for m in modules] == [(4, 3), (6, 3)]

    def test_bounds_that_dynamo_finds_are_nobodys_wish(self, modules: Compiled) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x.relu() * 2 if x.shape[0] < 100 else x

        compiled = trt(function, dynamic=True)
        for rows in (4, 6):
            assert_matches(compiled, function, torch.randn(rows, 3))
        assert graphs() == 1
        assert [m.engines[0].inputs[0].shape for m in modules] == [(4, 3), (6, 3)]

    def test_a_graph_that_cannot_have_a_range(
        self, modules: Compiled, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        capture = compiled_graph.capture

        def fixed_sizes_only(model: Any, arguments: Any, **options: Any) -> Any:
            if any(spec.is_dynamic for spec in arguments):
                raise UnsupportedGraphError("not with a range.")
            return capture(model, arguments, **options)

        monkeypatch.setattr(compiled_graph, "capture", fixed_sizes_only)
        model = net()
        compiled = trt(model)
        with pytest.warns(TRTCompileWarning, match="each set of input shapes.*not with a range"):
            assert_matches(compiled, model, marked(image(4)))
        for batch in (6, 4, 6):
            assert_matches(compiled, model, marked(image(batch)))
        assert graphs() == 1
        assert [m.engines[0].inputs[0].shape[0] for m in modules] == [4, 6]

    def test_changed_weights_are_noticed_at_any_size(self) -> None:
        model = net()
        compiled = trt(model)
        assert_matches(compiled, model, marked(image(4)))
        _in_place(model)
        with pytest.raises(StaleWeightsError), torch.no_grad():
            compiled(image(3))

    def test_int8(self, modules: Compiled) -> None:
        model = net()
        compiled = trt(model, **int8([image(5)]))
        for batch in (4, 15):
            compiled(marked(image(batch)))
        assert len(modules) == 1
        assert modules[0].report.multiply_add_share("INT8") == 1.0  # type: ignore[union-attr]

    def test_many_sizes_without_a_range_are_worth_a_hint(self) -> None:
        def function(x: torch.Tensor) -> torch.Tensor:
            return x.relu() * 2

        compiled = trt(function, dynamic=True)
        for rows in range(2, 10):
            assert_matches(compiled, function, torch.randn(rows, 20))
        with pytest.warns(TRTCompileWarning, match=r"9 sets of input shapes.*mark_dynamic"):
            assert_matches(compiled, function, torch.randn(10, 20))
        for rows in (11, 12):  # once
            assert_matches(compiled, function, torch.randn(rows, 20))

    def test_many_numbers_are_not(self) -> None:
        def function(x: torch.Tensor, times: int) -> torch.Tensor:
            return x.relu() * times

        compiled, x = trt(function, dynamic=True), torch.randn(2, 3)
        for times in range(2, 13):
            assert_matches(compiled, function, x, times)

    def test_optimization_profiles_are_refused(self) -> None:
        compiled = trt(net(), optimization_profiles=[{"batch": (1, 1, 1)}])
        with pytest.raises(SettingsError, match=r"optimization_profiles.*trtcompile\.Dim"):
            compiled(image())


def int8(batches: Any, **arguments: Any) -> dict[str, Any]:
    return {
        "enabled_precisions": {torch.int8},
        "calibrator": DataLoaderCalibrator(batches, **arguments),
    }


class TestInt8:
    def test_what_int8_leaves_out(self, modules: Compiled) -> None:
        model = net()
        trt(model, **int8([image(5)]), int8_excluded_modules={"last"})(image(5))
        (left_out,) = (row for row in modules[0].report.placement if row.value is None)  # type: ignore[union-attr]
        assert (left_out.rule, left_out.reason) == (
            "excluded module",
            "int8_excluded_modules has last",
        )

    def test_the_table_of_compile(self, modules: Compiled) -> None:
        """The same names, and bit-identical scales."""
        model, x = net(), image()
        batches = [(image(4), torch.randint(0, 9, (4,))) for _ in range(3)]  # with labels
        for wrapped in (model, nn.Sequential(model, nn.ReLU())):
            wrapped.eval()
            torch._dynamo.reset()
            modules.clear()
            options = {"device": build_device(), "min_block_size": 1, **int8(batches)}
            reference = trtcompile.compile(wrapped, [x], **options)
            result = trt(wrapped, **int8(batches))(x)
            (module,) = modules
            assert module.calibration_table == reference.calibration_table
            assert list(module.calibration_table) == list(reference.calibration_table)  # type: ignore[arg-type]
            assert module.graph_hash == reference.graph_hash
            torch.testing.assert_close(result, reference(x), rtol=1e-5, atol=1e-5)
            assert reference.report.multiply_add_share("INT8") == 1.0  # type: ignore[union-attr]

    def test_dictionaries_of_data_are_read_by_the_names_of_arguments(
        self, modules: Compiled
    ) -> None:
        class Weighted(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(20, 20)

            def forward(self, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
                return self.linear(torch.relu(x * weight))

        model, x = randomize(Weighted(), 3), torch.randn(4, 20)
        for batch in ((x, x / 9), {"weight": x / 9, "x": x}):
            torch._dynamo.reset()
            trt(model, **int8([batch]))(x, x)
        assert modules[0].calibration_table == modules[1].calibration_table

    def test_each_batch_size_gets_the_same_table(self, modules: Compiled) -> None:
        model = net()
        compiled = trt(model, **int8([image(4)]))
        for batch in (2, 5):
            compiled(image(batch))
        assert len(modules) == 2
        assert all(m.calibration_table == modules[0].calibration_table for m in modules)

    def test_a_cache_from_compile(self, tmp_path: Path, modules: Compiled) -> None:
        model, x, path = net(), image(), tmp_path / "calibration.cache"
        options = int8([image(4)], cache_file=path)
        trtcompile.compile(model, [x], device=build_device(), min_block_size=1, **options)
        trt(model, enabled_precisions={torch.int8}, calibrator=CacheCalibrator(path))(x)
        assert len(modules) == 1

    def test_inputs_meet_the_loaders_elements_by_argument(self, modules: Compiled) -> None:
        """The graph reads the second argument first."""

        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return self.b(y) - self.a(x)

        model, x, y = Two().eval(), torch.randn(8, 3), 100 * torch.randn(8, 3)
        options = int8([(x, y, "a label")])
        reference = trtcompile.compile(
            model, [x, y], device=build_device(), min_block_size=1, **options
        )
        assert_close_to = reference(x, y)
        result = trt(model, **options)(x, y)
        torch.testing.assert_close(result, assert_close_to, rtol=1e-5, atol=1e-4)
        ours, theirs = (sorted(m.calibration_table.values()) for m in (modules[0], reference))  # type: ignore[union-attr]
        assert ours == theirs

    def test_a_plain_tensor_of_the_module_is_a_constant(self, modules: Compiled) -> None:
        class Shifts(Net):
            def __init__(self) -> None:
                super().__init__()
                self.shift = torch.randn(3, 1, 1)

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return super().forward(x + self.shift)

        model = Shifts().eval()
        compiled = trt(model, **int8([image(4)]))
        compiled(image())
        assert engines(modules) == [1]
        model.shift += 1
        with pytest.raises(StaleWeightsError):
            compiled(image())

    @pytest.mark.parametrize("where", PLACES)
    def test_a_break_is_an_error_that_names_it(self, where: str, modules: Compiled) -> None:
        compiled = trt(Breaks(where).eval(), **int8([image(4)]))
        with pytest.raises(CalibrationError) as caught:
            compiled(image())
        assert f"{Path(__file__).name}:" in str(caught.value)
        assert "fullgraph=True" in str(caught.value)
        assert not modules

    @pytest.mark.parametrize(
        "model",
        [
            Tries(),
            Wraps(Tries()),
            nn.Sequential(StartsInside(), net()),
            nn.Sequential(nn.Sequential(StartsInside(), net())),
            Wraps(nn.Sequential(StartsInside(), net())),
            nn.Sequential(Tries()),
        ],
        ids=["try", "inner try", "container", "nested", "inner container", "try in container"],
    )
    def test_a_part_that_python_calls_is_never_calibrated_alone(
        self, model: nn.Module, modules: Compiled
    ) -> None:
        with pytest.raises(CalibrationError, match="dynamo captured only what"):
            trt(model.eval(), **int8([image(4)]))(image())
        assert not modules

    def test_a_model_inside_of_a_function_that_python_runs(self, modules: Compiled) -> None:
        """What was compiled is the inner model, whatever calls it."""
        compiled = trt(net(), **int8([image(4)]))

        def outer(x: torch.Tensor) -> torch.Tensor:
            return compiled(x) * 2

        assert outer(image()).shape == (2, 2, 4, 4)
        assert engines(modules) == [1]

    @pytest.mark.parametrize("kind", ["unused", "dictionary", "keyword only"])
    def test_inputs_that_cannot_be_matched(self, kind: str, modules: Compiled) -> None:
        model = net()

        def unused(a: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
            return model(x)

        def dictionary(batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return model(batch["x"])

        def keyword(*, x: torch.Tensor) -> torch.Tensor:
            return model(x)

        call: dict[str, Callable[[], Any]] = {
            "unused": lambda: trt(unused, **int8([image(4)]))(torch.randn(1), image()),
            "dictionary": lambda: trt(dictionary, **int8([image(4)]))({"x": image()}),
            "keyword only": lambda: trt(keyword, **int8([image(4)]))(x=image()),
        }
        with pytest.raises(CalibrationError, match=r"reads L\[.*are not the first arguments"):
            call[kind]()
        assert not modules

    def test_bad_data_reaches_the_caller(self, modules: Compiled) -> None:
        with pytest.raises(CalibrationError, match="no samples"):
            trt(net(), **int8([]))(image())
        assert not modules


@pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with no GPU is needed")
def test_without_a_gpu_the_engine_is_built_and_its_call_raises(
    monkeypatch: pytest.MonkeyPatch, modules: Compiled
) -> None:
    monkeypatch.undo()
    with pytest.raises(EngineLoadError, match="no GPU cuda:0"):
        trt(net())(image())
