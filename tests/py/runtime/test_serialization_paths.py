"""``save`` leaves files as they were until the new one is complete, and both functions check their arguments."""

from __future__ import annotations

import os
import resource
import stat
from pathlib import Path
from typing import Any

import pytest
from hand_compiled import IMAGE, ConvNet, hand_compile
from loaded_modules import assert_same, saved_and_loaded

from trtcompile import TRTModule, _tensorrt
from trtcompile.errors import EngineLoadError, SettingsError, UnsupportedGraphError
from trtcompile.runtime.serialization import load, save


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about files: on a GPU machine the same ones must load as elsewhere."""
    monkeypatch.setattr(_tensorrt, "gpu_capability", lambda gpu_id: None)


@pytest.fixture(scope="module")
def conv_net() -> TRTModule:
    """A module of one engine, for tests that leave it as it is."""
    module, _ = hand_compile(ConvNet(), [IMAGE])
    return module


def test_a_failed_save_leaves_the_old_file(conv_net: TRTModule, tmp_path: Path) -> None:
    path = tmp_path / "module"
    path.write_bytes(b"what was there")

    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (4000, unlimited[1])
        )  # as on a disk that fills up
        with pytest.raises(OSError, match="File too large"):
            save(conv_net, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert path.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["module"]


def test_a_module_that_cannot_be_saved_leaves_the_old_file(
    conv_net: TRTModule, tmp_path: Path
) -> None:
    module = saved_and_loaded(conv_net, tmp_path / "module")
    output = next(iter(reversed(module.executor.graph.nodes)))
    with module.executor.graph.inserting_before(output):
        module.executor.graph.call_function(print, ("hello",))
    path = tmp_path / "module"
    path.write_bytes(b"what was there")
    with pytest.raises(UnsupportedGraphError, match=r"it has a call of .*print") as caught:
        save(module, path)
    assert caught.value.report is module.report
    assert path.read_bytes() == b"what was there"
    assert [p.name for p in tmp_path.iterdir()] == ["module"]


def test_saving_replaces_a_file_and_keeps_link_and_mode(
    conv_net: TRTModule, tmp_path: Path
) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"what was there")
    target.chmod(0o640)
    link.symlink_to(target)
    assert_same(saved_and_loaded(conv_net, link), conv_net)
    assert link.is_symlink()
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    assert {p.name for p in tmp_path.iterdir()} == {"target", "link"}


def test_paths_may_be_strings(conv_net: TRTModule, tmp_path: Path) -> None:
    assert_same(saved_and_loaded(conv_net, os.fspath(tmp_path / "module")), conv_net)  # type: ignore[arg-type]


@pytest.mark.parametrize("path", ["no folder/module", "."])
def test_a_path_that_cannot_be_written(
    conv_net: TRTModule, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match=r"no folder|'\.'"):
        save(conv_net, path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [None, 3, "", b"module"])
def test_what_is_no_path_is_refused(conv_net: TRTModule, path: Any) -> None:
    with pytest.raises(SettingsError, match="path is"):
        save(conv_net, path)
    with pytest.raises(SettingsError, match="path is"):
        load(path)


def test_what_is_no_compiled_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="compiled is a ConvNet, not a TRTModule"):
        save(ConvNet(), tmp_path / "module")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["missing", "."])
def test_a_path_that_cannot_be_read(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineLoadError, match=rf"'{path}' cannot be read: .*\. Give the path"):
        load(path)
