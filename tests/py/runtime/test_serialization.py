"""``save`` and ``load``: a loaded module is the saved one."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_compiled import (
    DYNAMIC,
    IMAGE,
    MANY_KINDS_INPUTS,
    MANY_KINDS_OPTIONS,
    ConvNet,
    ManyKinds,
    hand_compile,
    random_arguments,
    simulate,
)
from loaded_modules import assert_same, saved_and_loaded
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import trtcompile
from trtcompile import CompileSpec, Device, Dim, Input, TRTModule, _tensorrt
from trtcompile.errors import (
    CalibrationError,
    EngineLoadError,
    InputMismatchError,
)
from trtcompile.ptq import CacheCalibrator, CalibrationAlgo, CalibrationTable, DataLoaderCalibrator
from trtcompile.ptq.table import Provenance
from trtcompile.runtime.serialization import load, save
from trtcompile.runtime.serialization.settings_json import (
    SavedCalibrator,
    settings_from_json,
    settings_to_json,
)


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about files: on a GPU machine the same ones must load as elsewhere."""
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: None)


@pytest.fixture(scope="module")
def conv_net() -> TRTModule:
    """A module of one engine, for tests that leave it as it is."""
    module, _ = hand_compile(ConvNet(), [IMAGE])
    return module


def needs_ahead_of_time_builds() -> None:
    if not _tensorrt.load().builds_ahead_of_time:
        pytest.skip("compiles without a GPU: needs tensorrt-rtx, and no tensorrt beside it")


# Modules whose plans are random bytes: all but NVIDIA's builder is as in a compilation.


@pytest.mark.parametrize(
    ("model", "inputs", "options"),
    [
        pytest.param(ConvNet, [IMAGE], {}, id="one engine"),
        pytest.param(ConvNet, [DYNAMIC], {}, id="dynamic batch"),
        pytest.param(ConvNet, [IMAGE], {"torch_executed_ops": {"aten.relu"}}, id="fallbacks"),
        pytest.param(
            ConvNet,
            [DYNAMIC],
            {"torch_executed_ops": {"aten.relu.default"}, "use_cuda_graphs": True},
            id="dynamic fallbacks",
        ),
        pytest.param(ManyKinds, MANY_KINDS_INPUTS, MANY_KINDS_OPTIONS, id="many kinds"),
    ],
)
def test_a_loaded_module_computes_the_same(
    model: type[nn.Module], inputs: Any, options: Any, tmp_path: Path
) -> None:
    original_model = model().eval()
    module, stand_ins = hand_compile(original_model, inputs, **options)
    loaded = saved_and_loaded(module, tmp_path / "module")
    assert_same(loaded, module)
    arguments = random_arguments(module)
    with torch.no_grad():
        expected = original_model(*arguments)
    for compiled in (module, loaded):
        outputs = simulate(compiled, stand_ins, *arguments)
        assert pytree.tree_structure(outputs) == pytree.tree_structure(expected)
        for output, value in zip(
            pytree.tree_leaves(outputs), pytree.tree_leaves(expected), strict=True
        ):
            if isinstance(value, Tensor):
                torch.testing.assert_close(output, value)
            else:
                assert (type(output), output) == (type(value), value)


def test_the_many_kinds_are_all_in_the_remainder(tmp_path: Path) -> None:
    """Otherwise the test above would compare less than it says."""
    module, _ = hand_compile(ManyKinds(), MANY_KINDS_INPUTS, **MANY_KINDS_OPTIONS)
    loaded = saved_and_loaded(module, tmp_path / "module")
    constants = {
        (tensor.dtype, tensor.dim())
        for node in loaded.executor.graph.nodes
        if node.op == "get_attr"
        and isinstance(tensor := getattr(loaded.executor, node.target), Tensor)
    }
    assert constants >= {
        (torch.bfloat16, 2),
        (torch.int64, 1),
        (torch.bool, 3),
        (torch.float64, 0),
        (torch.float32, 4),
    }
    assert loaded.engines


def test_saving_a_loaded_module_gives_the_same_bytes(tmp_path: Path) -> None:
    module, _ = hand_compile(ManyKinds(), MANY_KINDS_INPUTS, **MANY_KINDS_OPTIONS)
    first, second, third = (tmp_path / name for name in "abc")
    save(module, first)
    save(module, second)
    save(load(first), third)
    assert first.read_bytes() == second.read_bytes() == third.read_bytes()


def test_a_loaded_module_owns_its_constants(tmp_path: Path) -> None:
    module, _ = hand_compile(ManyKinds(), MANY_KINDS_INPUTS, **MANY_KINDS_OPTIONS)
    path = tmp_path / "module"
    loaded = saved_and_loaded(module, path)
    for buffer in loaded.executor.buffers():
        buffer.zero_()
    assert_same(load(path), module)


def test_a_module_without_engines(tmp_path: Path) -> None:
    class Cumulative(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cumsum(x, 0)

    module, _ = hand_compile(Cumulative(), [Input((3, 2))], torch_executed_ops={"aten.cumsum"})
    loaded = saved_and_loaded(module, tmp_path / "module")
    assert_same(loaded, module)
    x = torch.randn(3, 2)
    assert torch.equal(loaded.executor(x)[0], x.cumsum(0))


def test_a_report_may_be_missing(conv_net: TRTModule, tmp_path: Path) -> None:
    module = saved_and_loaded(conv_net, tmp_path / "module")
    module.report = None
    assert saved_and_loaded(module, tmp_path / "module").report is None


def test_a_loaded_report_prints_the_same(tmp_path: Path) -> None:
    module, _ = hand_compile(ConvNet(), [IMAGE], torch_executed_ops={"aten.relu"})
    assert str(saved_and_loaded(module, tmp_path / "module").report) == str(module.report)


TABLE = CalibrationTable(
    {"x": 0.1, "conv 1: a": 2.0**-126, "é": 3e38},
    algo=CalibrationAlgo.MINMAX_CALIBRATION,
    provenance=Provenance(
        graph_hash="abc",
        fingerprints={"x": "1", "conv 1: a": "2", "é": "3"},
        amax={"x": 12.7, "conv 1: a": 0.0, "é": 3.4e38},
        samples=77,
    ),
)


@pytest.mark.parametrize(
    "table",
    [TABLE, CalibrationTable({"x": 1 / 3}, algo=CalibrationAlgo.ENTROPY_CALIBRATION_2)],
    ids=["with provenance", "without"],
)
def test_a_calibration_table_comes_back(
    conv_net: TRTModule, table: CalibrationTable, tmp_path: Path
) -> None:
    module = saved_and_loaded(conv_net, tmp_path / "module")
    module.calibration_table = table
    loaded = saved_and_loaded(module, tmp_path / "module").calibration_table
    assert isinstance(loaded, CalibrationTable)
    assert loaded == table
    assert list(loaded.items()) == list(table.items())
    assert loaded.algo is table.algo
    assert loaded.provenance == table.provenance


def every_setting_changed(calibrator: Any) -> CompileSpec:
    return CompileSpec(
        enabled_precisions={torch.int8, torch.float16},
        calibrator=calibrator,
        smooth_quant=0.5,
        device=Device(gpu_id=2, disable_tf32=True, compute_capability=("8.6", "8.9")),
        min_block_size=3,
        torch_executed_ops={"aten.relu", torch.ops.aten.add.Tensor},
        torch_executed_modules={"encoder.*"},
        torch_executed_nodes={"relu_3"},
        require_full_compilation=True,
        keep_lowered=False,
        workspace_size=2**30,
        optimization_level=4,
        num_avg_timing_iters=2,
        max_aux_streams=1,
        timing_cache_file="x.timing",
        use_cuda_graphs=True,
        optimization_profiles=[{"batch": (1, 1, 1)}, {"batch": (2, 4, 8), "length": (1, 2, 3)}],
        int8_excluded_ops={"aten.add"},
        int8_excluded_modules={"head"},
        int8_excluded_nodes={"linear_2"},
        int8_first_layer=False,
        int8_last_layer=False,
        int8_only_where_faster=False,
    )


def test_settings_come_back() -> None:
    """All that ``describe`` has; what it leaves out leaves no trace in an engine."""
    spec = every_setting_changed(CacheCalibrator("no file"))
    for field in dataclasses.fields(spec):
        if field.name != "weight_only":  # it excludes a calibrator
            assert getattr(spec, field.name) != getattr(CompileSpec(), field.name)
    loaded = settings_from_json(json.loads(json.dumps(settings_to_json(spec))), TABLE)
    assert settings_to_json(loaded) == settings_to_json(spec) == spec.describe()
    assert isinstance(loaded.calibrator, SavedCalibrator)
    expected = dataclasses.replace(spec, calibrator=loaded.calibrator, timing_cache_file=None)
    assert loaded == expected
    assert set(CompileSpec.option_names()) - set(spec.describe()) == {
        "keep_lowered",
        "timing_cache_file",
    }


@pytest.mark.parametrize(
    "options",
    [
        {"weight_only": "int4", "enabled_precisions": {torch.float16}},
        {"enabled_precisions": {torch.float8_e4m3fn, torch.float16}},
    ],
    ids=["weight_only", "fp8"],
)
def test_settings_that_exclude_those_come_back(options: dict[str, Any]) -> None:
    spec = CompileSpec(**options)
    loaded = settings_from_json(json.loads(json.dumps(settings_to_json(spec))), TABLE)
    assert loaded == dataclasses.replace(spec, keep_lowered=False)


def test_the_file_says_what_built_it(conv_net: TRTModule, tmp_path: Path) -> None:
    save(conv_net, tmp_path / "module")
    with zipfile.ZipFile(tmp_path / "module") as archive:
        manifest = json.loads(archive.read("manifest.json"))
        plan = archive.read("plans/0.plan")
    assert plan == conv_net.engines[0].plan
    assert manifest["versions"]["torch"] == torch.__version__
    assert manifest["versions"]["trtcompile"]
    assert manifest["built_by"] == [
        {
            "flavour": "TensorRT-RTX",
            "version": "1.7.1",
            "compute_capabilities": ["8.9"],
            "gpu_name": None,
        }
    ]
    assert manifest["settings"] == conv_net.spec.describe()
    assert manifest["graph_hash"] == conv_net.graph_hash


def test_a_plan_is_in_memory_once(tmp_path: Path) -> None:
    size = 32 * 2**20
    module, _ = hand_compile(ConvNet(), [IMAGE], plan_size=size)
    tracemalloc.start()
    try:
        save(module, tmp_path / "module")
        saving = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        loaded = load(tmp_path / "module")
        loading = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert len(loaded.engines[0].plan) == size
    assert saving < 0.1 * size
    assert loading < 1.1 * size


def test_a_loaded_module_has_no_lowered_graph(conv_net: TRTModule, tmp_path: Path) -> None:
    loaded = saved_and_loaded(conv_net, tmp_path / "module")
    with pytest.raises(AttributeError, match=r"no lowered graph.*loaded from a file"):
        loaded.lowered  # noqa: B018
    assert not hasattr(loaded, "lowered")
    with pytest.raises(AttributeError, match="'TRTModule' object has no attribute 'lower'"):
        loaded.lower  # noqa: B018


def test_forward_of_a_loaded_module_raises_before_anything_runs(tmp_path: Path) -> None:
    """Without a GPU it can be looked into, but not run; and its inputs are checked first."""
    module, _ = hand_compile(ConvNet(), [DYNAMIC], torch_executed_ops={"aten.relu"})
    loaded = saved_and_loaded(module, tmp_path / "module")
    with pytest.raises(EngineLoadError, match=r"TensorRT-RTX 1\.7\.1 for compute capability 8\.9"):
        loaded(torch.randn(2, 3, 8, 8))
    with pytest.raises(InputMismatchError, match=r"min .* opt .* max"):
        loaded(torch.randn(5, 3, 8, 8))


# With NVIDIA's builder.


def test_an_ahead_of_time_build_comes_back(tmp_path: Path) -> None:
    needs_ahead_of_time_builds()
    model = ConvNet().eval()
    options = {"torch_executed_ops": {"aten.relu"}, "min_block_size": 1}
    device = Device(compute_capability=("8.6", "8.9"))
    compiled = trtcompile.compile(model, [DYNAMIC], device=device, **options)
    assert len(compiled.engines) == 3
    loaded = saved_and_loaded(compiled, tmp_path / "module")
    assert_same(loaded, compiled)
    assert loaded.argument_names == ("x",)
    assert loaded.spec.keep_lowered is False
    _, stand_ins = hand_compile(model, [DYNAMIC], **options)
    x = torch.randn(3, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(simulate(loaded, stand_ins, x), model(x))


def test_an_int8_build_comes_back_and_compiles_again_without_data(tmp_path: Path) -> None:
    needs_ahead_of_time_builds()
    calibrator = DataLoaderCalibrator([torch.randn(4, 3, 8, 8)])
    options = {"enabled_precisions": {torch.int8}, "calibrator": calibrator}
    device = Device(compute_capability="8.9")
    compiled = trtcompile.compile(ConvNet().eval(), [IMAGE], device=device, **options)
    loaded = saved_and_loaded(compiled, tmp_path / "module")
    assert_same(loaded, compiled)
    assert loaded.calibration_table
    assert repr(loaded.spec.calibrator) == f"SavedCalibrator({repr(calibrator)!r})"

    again = trtcompile.compile(
        ConvNet().eval(), [IMAGE], spec=loaded.spec, device=Device(compute_capability="8.6")
    )
    assert again.calibration_table == compiled.calibration_table
    assert again.report == compiled.report
    other = ConvNet().eval()
    other.blocks[0].weight.data *= -1
    with pytest.raises(CalibrationError, match=f"{compiled.graph_hash}.*Pass a calibrator"):
        trtcompile.compile(other, [IMAGE], spec=loaded.spec)


def test_another_process_loads_it_and_imports_no_tensorrt(tmp_path: Path) -> None:
    """Operators that compilation would have registered are there, and looking into a file needs no TensorRT."""
    module, _ = hand_compile(ManyKinds(), MANY_KINDS_INPUTS, **MANY_KINDS_OPTIONS)
    save(module, tmp_path / "module")
    code = (
        "import sys\n"
        "from trtcompile.runtime.serialization import load\n"
        "module = load(sys.argv[1])\n"
        "print(module.engines, module.report)\n"
        "print([m for m in sys.modules if m.startswith('tensorrt')])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "module")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert repr(module.engines) in done.stdout


def test_named_dimensions_and_profiles_come_back(tmp_path: Path) -> None:
    batch = Dim("batch", min=1, opt=2, max=4)
    module, _ = hand_compile(
        ConvNet(),
        [Input((batch, 3, 8, 8), name="x")],
        optimization_profiles=[{"batch": (1, 1, 1)}, {"batch": (3, 3, 4)}],
        torch_executed_ops={"aten.relu"},
    )
    loaded = saved_and_loaded(module, tmp_path / "module")
    assert_same(loaded, module)
    assert loaded.arguments[0].dims == {0: "batch"}
    assert [len(engine.profiles) for engine in loaded.engines] == [2, 2, 2]
    assert loaded.spec.optimization_profiles == module.spec.optimization_profiles
    with pytest.raises(InputMismatchError, match="batch min 1 opt 1 max 1; batch min 3"):
        loaded(torch.randn(2, 3, 8, 8))
    with pytest.raises(EngineLoadError):  # the shape is taken; there is no GPU
        loaded(torch.randn(3, 3, 8, 8))
