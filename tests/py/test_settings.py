"""``CompileSpec`` and ``Device``: what they accept, what they refuse, and what each option does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from checks import build_device
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import trtcompile
from trtcompile import CompileSpec, Device, DeviceType, Input, SettingsError, _tensorrt
from trtcompile.ptq import CacheCalibrator, DataLoaderCalibrator

OPTIONS = CompileSpec.option_names()
DEVICE_FIELDS = tuple(field.name for field in dataclasses.fields(Device))


def typos(name: str) -> st.SearchStrategy[str]:
    """The name with one letter missing, doubled, or swapped with the next."""
    index = st.integers(0, len(name) - 2)
    return st.one_of(
        index.map(lambda i: name[:i] + name[i + 1 :]),
        index.map(lambda i: name[: i + 1] + name[i:]),
        index.map(lambda i: name[:i] + name[i + 1] + name[i] + name[i + 2 :]),
    ).filter(lambda typo: typo != name)


class TestNames:
    @given(st.data(), st.sampled_from(OPTIONS))
    def test_a_misspelt_option_offers_the_right_one(self, data: st.DataObject, name: str) -> None:
        typo = data.draw(typos(name))
        with pytest.raises(SettingsError) as caught:
            CompileSpec.from_options({typo: 1})
        assert repr(typo) in str(caught.value)
        assert f"Did you mean {name!r}?" in str(caught.value)

    @given(st.data(), st.sampled_from(DEVICE_FIELDS))
    def test_a_misspelt_device_field_offers_the_right_one(
        self, data: st.DataObject, name: str
    ) -> None:
        typo = data.draw(typos(name))
        with pytest.raises(SettingsError, match=f"Did you mean '{name}'"):
            Device.from_any({typo: 1})

    def test_a_name_like_no_other_lists_all(self) -> None:
        with pytest.raises(SettingsError) as caught:
            CompileSpec.from_options({"qqqqqqqq": 1})
        assert all(name in str(caught.value) for name in OPTIONS)

    @pytest.mark.parametrize("key", [3, None, ("device",)])
    def test_a_name_that_is_no_string(self, key: Any) -> None:
        with pytest.raises(SettingsError, match="has no option"):
            CompileSpec.from_options({key: 1})

    def test_compile_refuses_before_it_looks_at_the_model(self) -> None:
        with pytest.raises(SettingsError, match="Did you mean 'min_block_size'"):
            trtcompile.compile(None, None, min_blocksize=3)  # type: ignore[arg-type]

    @pytest.mark.parametrize("name", ["dla_core", "allow_gpu_fallback", "disable_tf32", "gpu_id"])
    def test_device_fields_are_no_options(self, name: str) -> None:
        with pytest.raises(SettingsError, match=f"has no option '{name}'"):
            CompileSpec.from_options({name: 0})


class TestDevice:
    def test_classic_dictionary(self) -> None:
        device = Device.from_any(
            {
                "device_type": DeviceType.GPU,
                "gpu_id": 0,
                "dla_core": 0,
                "allow_gpu_fallback": False,
                "disable_tf32": False,
            }
        )
        assert device == Device()

    @pytest.mark.parametrize(
        ("given_", "gpu_id"),
        [
            (None, 0),
            ("cuda", 0),
            ("cuda:3", 3),
            ("gpu:2", 2),
            (torch.device("cuda"), 0),
            (torch.device("cuda:1"), 1),
            (4, 4),
            ({"gpu_id": 5}, 5),
            ({}, 0),
            (Device(gpu_id=6), 6),
        ],
    )
    def test_forms(self, given_: Any, gpu_id: int) -> None:
        device = Device.from_any(given_)
        assert device == Device(gpu_id=gpu_id)
        assert device.torch_device == torch.device("cuda", gpu_id)
        assert CompileSpec(device=given_).device == device

    @pytest.mark.parametrize(
        ("given_", "said"),
        [
            ("cpu", "'cpu'.*CUDA GPUs.*compute_capability"),
            (torch.device("cpu"), "CUDA GPUs"),
            ("nonsense", "'nonsense' is not a device name"),
            ("cuda:x", "not a device name"),
            (True, "is a bool"),
            (1.0, "is a float"),
            ([0], "is a list"),
            (-1, "gpu_id is -1, out of range"),
        ],
    )
    def test_refused_forms(self, given_: Any, said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            Device.from_any(given_)

    @pytest.mark.parametrize(
        ("fields", "said"),
        [
            ({"device_type": DeviceType.DLA}, "cannot build for yet"),
            ({"device_type": DeviceType.DLA, "dla_core": 1}, "cannot build for yet"),
            ({"device_type": "gpu"}, "not a DeviceType"),
            ({"dla_core": 1}, "dla_core is 1"),
            ({"dla_core": -1}, "out of range"),
            ({"allow_gpu_fallback": True}, "allow_gpu_fallback is True"),
            ({"allow_gpu_fallback": 0}, "not a bool"),
            ({"disable_tf32": 1}, "not a bool"),
            ({"gpu_id": True}, "not an integer"),
            ({"gpu_id": "0"}, "not an integer"),
            ({"compute_capability": 8.9}, "8.9 is not a version"),
            ({"compute_capability": "89"}, "'89' is not a version"),
            ({"compute_capability": ""}, "is not a version"),
            ({"compute_capability": ()}, "is empty"),
            ({"compute_capability": ("8.9", "8.9")}, "repeats"),
            ({"compute_capability": ("8.9", 8)}, "8 is not a version"),
        ],
    )
    def test_refused_fields(self, fields: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            Device(**fields)
        with pytest.raises(SettingsError, match=said):
            Device.from_any(fields)

    def test_every_field_is_honoured_or_refused(self) -> None:
        """Each field, changed from its default, changes the device or raises."""
        changed: dict[str, Any] = {
            "device_type": DeviceType.DLA,
            "gpu_id": 1,
            "dla_core": 1,
            "allow_gpu_fallback": True,
            "disable_tf32": True,
            "compute_capability": "8.6",
        }
        assert set(changed) == set(DEVICE_FIELDS)
        refused = set()
        for name, value in changed.items():
            try:
                assert Device.from_any({name: value}) != Device(), name
            except SettingsError:
                refused.add(name)
        assert refused == {"device_type", "dla_core", "allow_gpu_fallback"}

    def test_capabilities(self) -> None:
        assert Device().compute_capabilities == ()
        assert Device(compute_capability="8.9").compute_capabilities == ("8.9",)
        assert Device(compute_capability=["8.6", "12.0"]).compute_capabilities == ("8.6", "12.0")  # type: ignore[arg-type]
        assert Device(compute_capability="8.9") == Device(compute_capability=("8.9",))

    def test_frozen_and_hashable(self) -> None:
        device = Device(gpu_id=1, compute_capability=["8.9"])  # type: ignore[arg-type]
        assert hash(device) == hash(Device(gpu_id=1, compute_capability="8.9"))
        with pytest.raises(dataclasses.FrozenInstanceError):
            device.gpu_id = 0  # type: ignore[misc]


class Scales:
    """The least that a calibrator is."""

    def calibrate(self, request: Any) -> Any:
        raise NotImplementedError


VALID: dict[str, st.SearchStrategy[Any]] = {
    "enabled_precisions": st.sets(st.sampled_from([torch.float32, torch.float16]), min_size=1),
    "device": st.sampled_from([None, "cuda:1", Device(compute_capability="8.9"), {"gpu_id": 2}]),
    "weight_only": st.sampled_from([None, "int8", "int4"]),
    "min_block_size": st.integers(1, 1000),
    "torch_executed_ops": st.sets(
        st.sampled_from(
            ["aten.relu", "aten.relu.default", torch.ops.aten.add, torch.ops.aten.add.Tensor]
        ),
    ),
    "torch_executed_modules": st.sets(st.sampled_from(["encoder", "*.attention", "layers.0.*"])),
    "torch_executed_nodes": st.sets(st.sampled_from(["relu_3", "linear"])),
    "require_full_compilation": st.booleans(),
    "keep_lowered": st.booleans(),
    "workspace_size": st.none() | st.integers(1, 2**40),
    "optimization_level": st.none() | st.integers(0, 5),
    "num_avg_timing_iters": st.none() | st.integers(1, 16),
    "max_aux_streams": st.none() | st.integers(0, 7),
    "timing_cache_file": st.none() | st.sampled_from(["a.timing", Path("b/c.timing")]),
    "use_cuda_graphs": st.booleans(),
    "optimization_profiles": st.none()
    | st.lists(
        st.dictionaries(
            st.sampled_from(["batch", "length"]),
            st.tuples(*[st.integers(0, 9)] * 3).map(lambda sizes: tuple(sorted(sizes))),
        ),
        min_size=1,
        max_size=3,
    ),
}

#: Options that INT8 alone has.
PLACEMENT: dict[str, st.SearchStrategy[Any]] = {
    "int8_excluded_ops": VALID["torch_executed_ops"],
    "int8_excluded_modules": VALID["torch_executed_modules"],
    "int8_excluded_nodes": VALID["torch_executed_nodes"],
    "int8_first_layer": st.booleans(),
    "int8_last_layer": st.booleans(),
    "int8_only_where_faster": st.booleans(),
}

anything = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-10, 10),
    st.floats(allow_nan=False),
    st.text(max_size=3),
    st.lists(st.integers(0, 3), max_size=2),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([torch.float32, torch.int32, torch.device("cpu"), nn.ReLU, np.int64(3)]),
)


class TestValues:
    def test_every_option_is_here(self) -> None:
        with_int8_alone = {"calibrator", "smooth_quant"}
        assert set(VALID) | set(PLACEMENT) | with_int8_alone == set(OPTIONS)

    @given(st.fixed_dictionaries({}, optional=VALID))
    def test_valid_options_are_kept(self, options: dict[str, Any]) -> None:
        spec = CompileSpec.from_options(options)
        assert hash(spec) == hash(CompileSpec(**options))
        assert spec == CompileSpec(**options)
        assert spec == CompileSpec.from_options(options, spec=CompileSpec())
        defaults = CompileSpec()
        for name in set(OPTIONS) - set(options):
            assert getattr(spec, name) == getattr(defaults, name)
        for name in {
            "min_block_size",
            "workspace_size",
            "optimization_level",
            "num_avg_timing_iters",
            "max_aux_streams",
            "keep_lowered",
        } & set(options):
            assert getattr(spec, name) == options[name]

    @given(st.fixed_dictionaries({}, optional=PLACEMENT))
    def test_placement_options_are_kept_and_need_int8(self, options: dict[str, Any]) -> None:
        spec = CompileSpec(enabled_precisions={torch.int8}, **options)
        changed = [n for n in options if getattr(spec, n) != getattr(CompileSpec(), n)]
        assert set(spec.placement_options) == set(changed)
        described = spec.describe()
        assert described["int8_first_layer"] == options.get("int8_first_layer", True)
        assert described["int8_excluded_nodes"] == sorted(options.get("int8_excluded_nodes", ()))
        if changed:
            with pytest.raises(SettingsError, match=rf"{changed[0]}.* no torch.int8"):
                CompileSpec(**options)
        else:
            CompileSpec(**options)

    @given(st.sampled_from(OPTIONS), anything)
    def test_any_value_is_accepted_or_a_settings_error(self, name: str, value: Any) -> None:
        """Nothing but ``SettingsError``, and its message names the option."""
        problem = ""
        try:
            hash(CompileSpec.from_options({name: value}))
        except SettingsError as error:
            problem = str(error)
        words = {
            "device": ("device", "gpu_id", "has no option"),
            "enabled_precisions": ("enabled_precisions", "calibrator"),
        }
        if problem:
            assert any(word in problem for word in words.get(name, (name,)))
            assert problem.count(".") >= 2  # what is wrong, and what to do

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"enabled_precisions": set()}, "is empty"),
            ({"enabled_precisions": {torch.bfloat16}}, "has torch.bfloat16"),
            ({"enabled_precisions": {"int8"}}, "has 'int8'"),
            ({"enabled_precisions": 3}, "enabled_precisions is 3"),
            ({"enabled_precisions": {torch.int8, torch.float8_e4m3fn}}, "has both"),
            ({"weight_only": "fp8"}, "weight_only is 'fp8'"),
            ({"weight_only": ["int8"]}, "weight_only is"),
            ({"min_block_size": 0}, "min_block_size is 0, out of range"),
            ({"min_block_size": True}, "not an integer"),
            ({"optimization_level": 6}, "from 0 to 5"),
            ({"num_avg_timing_iters": 0}, "num_avg_timing_iters is 0"),
            ({"max_aux_streams": -1}, "max_aux_streams is -1"),
            ({"workspace_size": 0}, "at least 1"),
            ({"workspace_size": 1.5}, "not an integer"),
            ({"keep_lowered": 1}, "not a bool"),
            ({"use_cuda_graphs": None}, "not a bool"),
            ({"require_full_compilation": "yes"}, "not a bool"),
            ({"timing_cache_file": 3}, "timing_cache_file is 3"),
            ({"timing_cache_file": ""}, "timing_cache_file is ''"),
            ({"optimization_profiles": []}, r"optimization_profiles is \[\]"),
            ({"optimization_profiles": {"batch": (1, 1, 1)}}, "Use a list of dictionaries"),
            ({"optimization_profiles": [{3: (1, 1, 1)}]}, "Use a list of dictionaries"),
            ({"optimization_profiles": [{"batch": 3}]}, "has 3 for 'batch'"),
            ({"optimization_profiles": [{"batch": (1, 2)}]}, r"has \(1, 2\) for 'batch'"),
            ({"optimization_profiles": [{"batch": (2, 1, 3)}]}, "min <= opt <= max"),
            ({"optimization_profiles": [{"batch": (1, 2.0, 3)}]}, "whole numbers"),
            ({"torch_executed_ops": "aten.relu"}, "Use a set of operators"),
            ({"torch_executed_ops": {"relu"}}, "'relu', which is no operator"),
            ({"torch_executed_ops": {"aten.rellu"}}, "PyTorch does not define"),
            ({"torch_executed_ops": {"aten.relu.nonsense"}}, "PyTorch does not define"),
            ({"torch_executed_ops": {torch.relu}}, "which is no operator"),
            ({"torch_executed_ops": {nn.ReLU}}, "which is no operator"),
            ({"int8_excluded_ops": {"relu"}}, "int8_excluded_ops has 'relu', which is no operator"),
            ({"int8_excluded_ops": "aten.add"}, "int8_excluded_ops is 'aten.add'"),
            ({"int8_excluded_modules": "head"}, "int8_excluded_modules is 'head'"),
            ({"int8_excluded_nodes": {3}}, r"int8_excluded_nodes is \{3\}"),
            ({"int8_first_layer": 0}, "int8_first_layer is 0, not a bool"),
            ({"int8_last_layer": None}, "int8_last_layer is None, not a bool"),
        ],
    )
    def test_refused(self, options: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            CompileSpec(**options)

    def test_precision_aliases(self) -> None:
        spec = CompileSpec(enabled_precisions={torch.float, torch.half})
        assert spec.enabled_precisions == {torch.float32, torch.float16}
        assert spec.uses_fp16 and not spec.uses_int8
        assert CompileSpec(enabled_precisions=torch.half).uses_fp16  # type: ignore[arg-type]
        assert CompileSpec().enabled_precisions == {torch.float32}

    def test_operators_by_any_name(self) -> None:
        spec = CompileSpec(
            torch_executed_ops={
                torch.ops.aten.relu,
                torch.ops.aten.add.Tensor,
                "torch.ops.aten.mul",
                "aten.sub.Tensor",
            }
        )
        assert spec.torch_executed_ops == {
            "aten.relu",
            "aten.add.Tensor",
            "aten.mul",
            "aten.sub.Tensor",
        }


class TestCalibrator:
    def test_int8_needs_none_yet(self) -> None:
        # The model may come quantized, which only its graph shows.
        assert CompileSpec(enabled_precisions={torch.int8}).uses_int8

    def test_one_without_int8(self) -> None:
        with pytest.raises(SettingsError, match="would have no effect"):
            CompileSpec(calibrator=CacheCalibrator("x"))

    def test_a_loader_is_none(self) -> None:
        loader = torch.utils.data.DataLoader([torch.zeros(3)])
        with pytest.raises(
            SettingsError, match=r"is a DataLoader.*DataLoaderCalibrator\(dataloader\)"
        ):
            CompileSpec(enabled_precisions={torch.int8}, calibrator=loader)

    @pytest.mark.parametrize(
        "calibrator",
        [DataLoaderCalibrator([torch.zeros(1)]), CacheCalibrator("x"), Scales()],
        ids=lambda calibrator: type(calibrator).__name__,
    )
    def test_calibrators(self, calibrator: Any) -> None:
        spec = CompileSpec(enabled_precisions={torch.int8}, calibrator=calibrator)
        assert spec.calibrator is calibrator
        hash(spec)

    def test_a_class_is_no_calibrator(self) -> None:
        with pytest.raises(SettingsError, match=r"is the class CacheCalibrator, .* Make one"):
            CompileSpec(enabled_precisions={torch.int8}, calibrator=CacheCalibrator)


class TestSpec:
    def test_options_on_top_of_a_spec(self) -> None:
        base = CompileSpec(min_block_size=2, optimization_level=1)
        spec = CompileSpec.from_options({"min_block_size": 9}, spec=base)
        assert (spec.min_block_size, spec.optimization_level) == (9, 1)
        assert base.min_block_size == 2

    def test_options_are_checked_against_the_spec(self) -> None:
        base = CompileSpec(enabled_precisions={torch.int8}, calibrator=Scales())
        with pytest.raises(SettingsError, match="would have no effect"):
            CompileSpec.from_options({"enabled_precisions": {torch.half}}, spec=base)

    def test_something_else_for_a_spec(self) -> None:
        with pytest.raises(SettingsError, match="spec is a dict"):
            CompileSpec.from_options({}, spec={"min_block_size": 3})  # type: ignore[arg-type]

    def test_frozen(self) -> None:
        with pytest.raises(dataclasses.FrozenInstanceError):
            CompileSpec().min_block_size = 3  # type: ignore[misc]

    def test_positional_arguments_are_refused(self) -> None:
        with pytest.raises(TypeError):
            CompileSpec({torch.float32})  # type: ignore[misc]


class ConfigSpy:
    """Records what is done with a builder configuration, and does it."""

    def __init__(self, config: Any, calls: list[tuple[str, Any]]) -> None:
        self.__dict__.update(config=config, calls=calls)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.config, name)
        if not callable(value):
            return value

        def called(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args))
            return value(*args, **kwargs)

        return called

    def __setattr__(self, name: str, value: Any) -> None:
        self.calls.append((name, value))
        setattr(self.config, name, value)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Compiles a small model and returns the calls on its builder configuration, and the configuration."""
    from trtcompile import engine

    def compile_with(**options: Any) -> tuple[list[tuple[str, Any]], Any]:
        calls: list[tuple[str, Any]] = []
        configs: list[Any] = []
        configure = engine._configure

        def spying(config: Any, *args: Any) -> None:
            configs.append(config)
            configure(ConfigSpy(config, calls), *args)

        monkeypatch.setattr(engine, "_configure", spying)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU())
        trtcompile.compile(
            model.eval(), [Input((1, 3, 8, 8))], **{"device": build_device(), **options}
        )
        monkeypatch.setattr(engine, "_configure", configure)
        assert len(configs) == 1
        return calls, configs[0]

    return compile_with


def effect_of(run: Any, **options: Any) -> list[tuple[str, Any]]:
    """The calls that are made with the options and not without them."""
    without, _ = run()
    with_, _ = run(**options)
    return [call for call in with_ if repr(call) not in map(repr, without)]


class TestBuilderOptions:
    def test_disable_tf32(self, configured: Any) -> None:
        trt = _tensorrt.load().trt
        _, config = configured(device=build_device(disable_tf32=True))
        assert not config.get_flag(trt.BuilderFlag.TF32)
        _, config = configured()
        assert config.get_flag(trt.BuilderFlag.TF32)

    def test_workspace_size(self, configured: Any) -> None:
        trt = _tensorrt.load().trt
        _, config = configured(workspace_size=64 * 2**20)
        assert config.get_memory_pool_limit(trt.MemoryPoolType.WORKSPACE) == 64 * 2**20
        effect = effect_of(configured, workspace_size=64 * 2**20)
        assert effect == [("set_memory_pool_limit", (trt.MemoryPoolType.WORKSPACE, 64 * 2**20))]

    @pytest.mark.parametrize("level", [0, 5])
    def test_optimization_level(self, configured: Any, level: int) -> None:
        _, config = configured(optimization_level=level)
        assert config.builder_optimization_level == level
        assert effect_of(configured, optimization_level=level) == [
            ("builder_optimization_level", level)
        ]

    @pytest.mark.parametrize("streams", [0, 2])
    def test_max_aux_streams(self, configured: Any, streams: int) -> None:
        _, config = configured(max_aux_streams=streams)
        assert config.max_aux_streams == streams
        assert effect_of(configured, max_aux_streams=streams) == [("max_aux_streams", streams)]

    def test_num_avg_timing_iters(self, configured: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        # A flavour that times nothing takes the setting as well, and does nothing with it.
        monkeypatch.setattr(_tensorrt.Flavour, "measures_kernels", True)
        _, config = configured(num_avg_timing_iters=3)
        assert config.avg_timing_iterations == 3
        assert effect_of(configured, num_avg_timing_iters=3) == [("avg_timing_iterations", 3)]
        assert configured()[1].avg_timing_iterations == 8  # as trtexec
        assert configured()[1].max_aux_streams == 1

    def test_compute_capability(self, configured: Any) -> None:
        if not _tensorrt.load().builds_ahead_of_time:
            pytest.skip("this TensorRT builds for its own GPU only: pip install 'trtcompile[rtx]'")
        trt = _tensorrt.load().trt
        _, config = configured(device=Device(compute_capability=("8.6", "12.0")))
        assert config.num_compute_capabilities == 2
        found = [config.get_compute_capability(i) for i in range(2)]
        assert found == [trt.ComputeCapability.SM86, trt.ComputeCapability.SM120]


class TestTimingCache:
    def test_a_flavour_that_times_nothing_refuses_it(self, tmp_path: Path) -> None:
        if _tensorrt.load().measures_kernels:
            pytest.skip(
                "this TensorRT keeps timings: pip install 'trtcompile[rtx]' for one that does not"
            )
        path = tmp_path / "cache.timing"
        path.write_bytes(b"the user's own")
        for options in ({"timing_cache_file": path}, {"num_avg_timing_iters": 2}):
            with pytest.raises(SettingsError, match=rf"{next(iter(options))}.*times no kernels"):
                trtcompile.compile(nn.ReLU(), [Input((1, 3))], device=build_device(), **options)
        assert path.read_bytes() == b"the user's own"

    @pytest.mark.parametrize("where", ["", "missing/x.timing"])
    def test_a_place_where_no_file_can_be(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_tensorrt.Flavour, "measures_kernels", True)
        with pytest.raises(SettingsError, match="folder"):
            trtcompile.compile(
                nn.ReLU(),
                [Input((1, 3))],
                device=build_device(),
                timing_cache_file=tmp_path / where,
            )
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.gpu
    def test_written_and_reused(self, tmp_path: Path) -> None:
        path = tmp_path / "cache.timing"
        model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
        inputs = [Input((1, 3, 16, 16))]
        trtcompile.compile(model, inputs, timing_cache_file=path)
        first = path.read_bytes()
        trtcompile.compile(model, inputs, timing_cache_file=path)
        assert len(first) > 200
        assert len(path.read_bytes()) == len(first)

    @pytest.mark.gpu
    @pytest.mark.parametrize("content", [b"hello world" * 20, b"ptrt", b"\0" * 500])
    def test_a_foreign_file_is_refused_and_untouched(self, content: bytes, tmp_path: Path) -> None:
        path = tmp_path / "cache.timing"
        path.write_bytes(content)
        with pytest.raises(SettingsError, match="was not written by this TensorRT"):
            trtcompile.compile(nn.ReLU(), [Input((1, 3))], timing_cache_file=path)
        assert path.read_bytes() == content
