"""Files that ``load`` refuses, and machines that cannot run what is in one: always an ``EngineLoadError``."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hand_compiled import DYNAMIC, ConvNet, hand_compile
from loaded_modules import saved_and_loaded

from trtcompile import Device, TRTModule, _tensorrt
from trtcompile.errors import EngineLoadError, SettingsError
from trtcompile.runtime.serialization import load, save
from trtcompile.runtime.serialization.archive import write_archive


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about files: on a GPU machine the same ones must load as elsewhere."""
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: None)


@pytest.fixture(scope="module")
def with_engines() -> TRTModule:
    module, _ = hand_compile(ConvNet(), [DYNAMIC], torch_executed_ops={"aten.relu"}, plan_size=100)
    return module


@pytest.fixture
def file(with_engines: TRTModule, tmp_path: Path) -> Path:
    save(with_engines, tmp_path / "module")
    return tmp_path / "module"


class Hostile:
    """Unpickling it creates a file."""

    def __init__(self, created: Path) -> None:
        self.created = created

    def __reduce__(self) -> Any:
        return Path.touch, (self.created,)


@pytest.fixture
def hostile_pickle(tmp_path: Path) -> tuple[bytes, Path]:
    """A pickle, and the file whose existence shows that it was unpickled."""
    created = tmp_path / "created"
    data = pickle.dumps(Hostile(created))
    pickle.loads(data)  # noqa: S301
    assert created.exists()
    created.unlink()
    return data, created


def refused(path: Path, match: str, **options: Any) -> str:
    with pytest.raises(EngineLoadError, match=match) as caught:
        load(path, **options)
    assert str(path) in str(caught.value)
    return str(caught.value)


def rewritten(path: Path, member: str, change: Callable[[Any], Any]) -> None:
    """Changes a JSON member, with hashes that are right again: damage finds nothing, only reading does."""
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json"))
    if member == "manifest.json":
        manifest = change(manifest)
    else:
        contents[member] = json.dumps(change(json.loads(contents[member]))).encode()
    for name in ("format", "format_version", "members"):
        manifest.pop(name, None)
    with path.open("w+b") as file:
        write_archive(file, manifest, contents)


def test_rewriting_alone_changes_nothing(file: Path) -> None:
    for member in ("manifest.json", "executor.json"):
        rewritten(file, member, lambda value: value)
        assert load(file).engines


# Pickles.


def test_a_hostile_pickle_is_not_unpickled(
    hostile_pickle: tuple[bytes, Path], tmp_path: Path
) -> None:
    data, created = hostile_pickle
    path = tmp_path / "module"
    path.write_bytes(data)
    refused(path, "Give the path of a file that trtcompile.save wrote")
    assert not created.exists()


def test_a_file_of_torch_save_is_not_unpickled(tmp_path: Path) -> None:
    created, path = tmp_path / "created", tmp_path / "module"
    torch.save(Hostile(created), path)
    refused(path, r"first member is 'module/data\.pkl' and not manifest\.json")
    assert not created.exists()


def test_a_zip_with_a_hostile_pickle_in_it_is_refused(
    hostile_pickle: tuple[bytes, Path], file: Path
) -> None:
    data, created = hostile_pickle
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("data.pkl", data)
    refused(file, "altered")
    assert not created.exists()


@pytest.mark.parametrize("name", ["data/0.bin", "data/0.plan", "pickle.json"])
def test_a_hostile_pickle_as_a_further_member_is_refused(
    name: str, hostile_pickle: tuple[bytes, Path], file: Path
) -> None:
    """Here even the manifest lists it."""
    data, created = hostile_pickle
    with zipfile.ZipFile(file) as archive:
        contents = {n: archive.read(n) for n in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json"))
    with file.open("w+b") as stream:
        write_archive(
            stream, {k: manifest[k] for k in ("settings", "graph_hash")}, {**contents, name: data}
        )
    refused(file, rf"the members \['{name}'\], which no saved module has")
    assert not created.exists()


@pytest.mark.parametrize(
    "member", ["signature.json", "calibration.json", "report.json", "engines.json", "executor.json"]
)
def test_a_hostile_pickle_in_place_of_json_is_refused(
    member: str, hostile_pickle: tuple[bytes, Path], file: Path
) -> None:
    data, created = hostile_pickle
    with zipfile.ZipFile(file) as archive:
        contents = {n: archive.read(n) for n in archive.namelist()}
    manifest = json.loads(contents.pop("manifest.json"))
    with file.open("w+b") as stream:
        write_archive(
            stream,
            {k: manifest[k] for k in ("settings", "graph_hash")},
            {**contents, member: data},
        )
    refused(file, rf"{re.escape(member)} is malformed: it is no JSON")
    assert not created.exists()


# Damage.


def test_files_of_other_kinds_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "module"
    for content in (b"", b"P", b"text", b"\x7fELF" + bytes(100), b"PK\x05\x06" + bytes(18)):
        path.write_bytes(content)
        refused(path, "its first bytes are")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("manifest.json", '{"format": "something else"}')
    refused(path, r"manifest\.json says the format 'something else', not 'trtcompile module'")


def test_altered_bytes_are_found(file: Path) -> None:
    """The container's own test alters each byte; here every 97th, through ``load``."""
    data = file.read_bytes()
    for offset in range(0, len(data), 97):
        altered = bytearray(data)
        altered[offset] ^= 0x10
        file.write_bytes(bytes(altered))
        refused(file, r"altered|truncated|first bytes|first member|format")


def test_truncated_files_are_found(file: Path) -> None:
    data = file.read_bytes()
    for length in range(0, len(data), 97):
        file.write_bytes(data[:length])
        refused(file, r"altered|truncated|first bytes")


# Content that is not what `save` writes, under hashes that are right.


def at(*path: Any, value: Any) -> Callable[[Any], Any]:
    """A change of one value deep in JSON."""

    def change(content: Any) -> Any:
        parent = content
        for key in path[:-1]:
            parent = parent[key]
        parent[path[-1]] = value
        return content

    return change


@pytest.mark.parametrize(
    ("member", "change", "match"),
    [
        ("executor.json", at("nodes", 2, "target", value="os.system"), "it calls 'os.system'"),
        ("executor.json", at("nodes", 1, "target", value="engine_7"), "the engine 'engine_7'"),
        ("executor.json", at("nodes", 1, "args", value={"tuple": []}), "1 inputs and is called"),
        ("executor.json", lambda c: {**c, "nodes": c["nodes"][1:]}, "refers to no node"),
        ("executor.json", at("constants", value={"forward": {}}), "an object has"),
        (
            "executor.json",
            at("constants", value={"c": {"dtype": "float32", "shape": [2]}}),
            r"no member constants/0\.bin",
        ),
        ("executor.json", lambda _: [], "stands where an object should"),
        ("engines.json", lambda c: c[:-1], "the engine 'engine_2', which is not there"),
        ("engines.json", lambda c: [*c, c[0]], r"no member plans/3\.plan"),
        ("engines.json", at(1, "name", value="engine_0"), "share a name"),
        ("engines.json", at(0, "name", value="engine_7"), "the engine 'engine_0', which is not"),
        ("engines.json", at(0, "inputs", value=[]), "shape ranges"),
        ("engines.json", at(0, "inputs", 0, "dtype", value="float31"), "not the name of a dtype"),
        ("engines.json", at(0, "profiles", 0, 0, value=[[1], [1]]), "min, opt, and max"),
        ("engines.json", at(0, "profiles", value=[]), r"its profiles have \[\] shape ranges"),
        (
            "signature.json",
            at("arguments", "tuple", 0, "dims", value=[[0, "batch", 1]]),
            "a dimension and its name",
        ),
        (
            "signature.json",
            at("arguments", "tuple", 0, "dims", value=[[7, "batch"]]),
            "has 4 dimensions",
        ),
        ("engines.json", at(0, "provenance", "version", value=17), "17 stands where a string"),
        ("signature.json", at("arguments", value={"list": []}), "not a tuple"),
        ("signature.json", at("arguments", value={"tuple": []}), "0 inputs are described"),
        ("signature.json", at("arguments", value={"tuple": [{}]}), "an object has"),
        ("signature.json", at("out_spec", value={"list": ["*", "*"]}), "structure holds 2"),
        ("signature.json", at("in_spec", value={"eval": []}), "is not a container"),
        ("signature.json", at("argument_names", value="x"), "'x' stands where a list should"),
        ("report.json", at("rows", 0, "multiply_adds", value="many"), "'many' stands where"),
        ("report.json", at("rows", value={}), "stands where a list should"),
        (
            "calibration.json",
            lambda _: {"algorithm": "X", "scales": {}, "provenance": None},
            "'X' is not a valid CalibrationAlgo",
        ),
        (
            "calibration.json",
            lambda _: {"algorithm": "MinMaxCalibration", "scales": {"x": 0}, "provenance": None},
            "the scale 0 is not",
        ),
        ("manifest.json", at("settings", "min_block_size", value=0), "min_block_size is 0"),
        ("manifest.json", at("settings", "workspace", value=0), "no option 'workspace'"),
        ("manifest.json", at("settings", "device", "device_type", value="DLA"), "DLA"),
        ("manifest.json", at("settings", "device", "device_type", value="TPU"), "not a DeviceType"),
        ("manifest.json", at("settings", "torch_executed_ops", value=["aten.raloo"]), "aten.raloo"),
        (
            "manifest.json",
            at("settings", "optimization_profiles", value=[{"rows": [1, 1, 1]}]),
            "has the dimension 'rows'",
        ),
        ("manifest.json", at("settings", value=None), "an object should"),
        ("manifest.json", at("graph_hash", value=3), "3 stands where a string should"),
    ],
    ids=lambda value: value if isinstance(value, str) else "changed",
)
def test_malformed_content_is_refused_with_the_member(
    member: str, change: Callable[[Any], Any], match: str, file: Path
) -> None:
    rewritten(file, member, change)
    refused(file, rf"(?s)cannot be loaded: .*({match})")


def test_input_shapes_are_checked(file: Path) -> None:
    def change(content: Any) -> Any:
        content["arguments"]["tuple"][0]["min_shape"] = [9, 3, 8, 8]
        return content

    rewritten(file, "signature.json", change)
    refused(file, r"signature\.json is malformed: Input has min_shape \(9, 3, 8, 8\)")


# Machines.


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, *capabilities: str) -> None:
    by_id = dict(enumerate(capabilities))
    monkeypatch.setattr(_tensorrt, "gpu_capability", by_id.get)


def pretend_tensorrt(monkeypatch: pytest.MonkeyPatch, name: str, version: str) -> None:
    flavour = _tensorrt.Flavour(trt=None, name=name, version=version)
    monkeypatch.setattr(_tensorrt, "load", lambda: flavour)


def test_the_right_gpu_and_tensorrt_load(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, "8.9")
    pretend_tensorrt(monkeypatch, "TensorRT-RTX", "1.7.1")
    assert load(file).runnable is None


@pytest.mark.parametrize(
    ("gpu", "name", "version", "here"),
    [
        ("9.0", "TensorRT-RTX", "1.7.1", "cuda:0 of this machine has compute capability 9.0"),
        ("8.9", "TensorRT-RTX", "1.8.0", "this machine has TensorRT-RTX 1.8.0"),
        ("8.9", "TensorRT", "10.6.0", "this machine has TensorRT 10.6.0"),
    ],
)
def test_another_gpu_or_tensorrt_is_refused_naming_both_sides(
    gpu: str, name: str, version: str, here: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, gpu)
    pretend_tensorrt(monkeypatch, name, version)
    built = "built by TensorRT-RTX 1.7.1 for compute capability 8.9"
    refused(file, f"{re.escape(built)}.*{re.escape(here)}")


def test_without_a_gpu_another_tensorrt_is_no_obstacle(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There the file is looked into; running it is refused, naming both sides."""
    pretend_tensorrt(monkeypatch, "TensorRT", "10.6.0")
    loaded = load(file)
    assert loaded.engines
    with pytest.raises(EngineLoadError, match=r"TensorRT-RTX 1\.7\.1.*TensorRT 10\.6\.0"):
        loaded(torch.randn(2, 3, 8, 8))


def test_a_gpu_that_is_not_there_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_gpus(monkeypatch, "8.9")
    pretend_tensorrt(monkeypatch, "TensorRT-RTX", "1.7.1")
    refused(file, r"no GPU cuda:3\..*name another of its GPUs with device=", device="cuda:3")


@pytest.mark.parametrize(
    "device",
    [
        "cuda:1",
        1,
        torch.device("cuda", 1),
        {"gpu_id": 1},
        {"gpu_id": 1, "disable_tf32": False, "compute_capability": "8.9"},
        Device(gpu_id=1, compute_capability="8.9"),
    ],
    ids=str,
)
def test_another_gpu_of_the_machine_can_be_named(
    device: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend_gpus(monkeypatch, "9.0", "8.9")
    pretend_tensorrt(monkeypatch, "TensorRT-RTX", "1.7.1")
    refused(file, "cuda:0 of this machine has compute capability 9.0")
    loaded = load(file, device=device)
    assert loaded.spec.device == Device(gpu_id=1, compute_capability="8.9")
    assert loaded.spec.device.torch_device == torch.device("cuda", 1)
    assert loaded.runnable is None


@pytest.mark.parametrize(
    ("device", "match"),
    [
        (Device(compute_capability="8.6"), "compute_capability 8.6, but .* built for 8.9"),
        ({"compute_capability": ("8.9", "12.0")}, "8.9, 12.0, but"),
        (Device(disable_tf32=True), "disable_tf32=True, but .*disable_tf32=False"),
        ("cpu", "run on CUDA GPUs"),
        ("cude:0", "not a device name"),
        ({"gpu": 1}, "has no option 'gpu'"),
        (1.5, "device is a float"),
    ],
    ids=str,
)
def test_a_device_that_contradicts_the_file_is_refused(device: Any, match: str, file: Path) -> None:
    with pytest.raises(SettingsError, match=match):
        load(file, device=device)


def test_a_module_without_tf32_stays_without(tmp_path: Path) -> None:
    module, _ = hand_compile(
        ConvNet(), [DYNAMIC], device=Device(compute_capability="8.9", disable_tf32=True)
    )
    path = tmp_path / "module"
    loaded = saved_and_loaded(module, path, device=1)
    assert loaded.spec.device == Device(gpu_id=1, compute_capability="8.9", disable_tf32=True)
    with pytest.raises(SettingsError, match="disable_tf32=False, but"):
        load(path, device={"gpu_id": 1, "disable_tf32": False})


# Operators of other packages.


@torch.library.custom_op("trtcompile_saved::triple", mutates_args=())
def triple(x: torch.Tensor) -> torch.Tensor:
    return x * 3


@triple.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


def test_custom_operators_load_where_they_are_named(tmp_path: Path) -> None:
    class Custom(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return triple(torch.relu(x))

    module, _ = hand_compile(Custom(), [DYNAMIC])
    path = tmp_path / "module"
    save(module, path)
    refused(path, r"pass operator_namespaces=\{'trtcompile_saved'\}")
    loaded = load(path, operator_namespaces={"trtcompile_saved"})
    assert loaded.executor.code == module.executor.code


@pytest.mark.parametrize("namespaces", ["aten", 3, [3], ["torch.ops.aten"], [""]], ids=str)
def test_what_is_no_namespace_is_refused(namespaces: Any, file: Path) -> None:
    with pytest.raises(SettingsError, match="operator_namespaces"):
        load(file, operator_namespaces=namespaces)
