"""Saving and loading in tests, and what a loaded module must have of the saved one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from trtcompile import TRTModule
from trtcompile.runtime.serialization import load, save
from trtcompile.runtime.serialization.settings_json import settings_to_json


def saved_and_loaded(module: TRTModule, path: Path, **options: Any) -> TRTModule:
    save(module, path)
    return load(path, **options)


def assert_same(loaded: TRTModule, original: TRTModule) -> None:
    """Equal in everything that a file keeps."""
    assert loaded.engines == original.engines
    for old, new in zip(original.engine_modules, loaded.engine_modules, strict=True):
        assert (new._gpu_id, new._use_cuda_graphs) == (old._gpu_id, old._use_cuda_graphs)
    assert loaded.executor.code == original.executor.code
    for old, new in zip(original.executor.graph.nodes, loaded.executor.graph.nodes, strict=True):
        assert (old.op, old.name, old.target) == (new.op, new.name, new.target)
        assert repr((old.args, old.kwargs)) == repr((new.args, new.kwargs))
    constants = {n.target for n in original.executor.graph.nodes if n.op == "get_attr"}
    for name in constants:
        old, new = getattr(original.executor, name), getattr(loaded.executor, name)
        assert (old.dtype, old.shape) == (new.dtype, new.shape)
        assert torch.equal(old, new)
    assert loaded.arguments == original.arguments
    assert repr(loaded.arguments) == repr(original.arguments)
    assert loaded.argument_names == original.argument_names
    assert loaded.in_spec == original.in_spec
    assert loaded.out_spec == original.out_spec
    assert repr(loaded.out_spec) == repr(original.out_spec)
    assert loaded.report == original.report
    assert loaded.graph_hash == original.graph_hash
    assert loaded.calibration_table == original.calibration_table
    if original.calibration_table is not None:
        assert loaded.calibration_table.provenance == original.calibration_table.provenance
    assert settings_to_json(loaded.spec) == settings_to_json(original.spec)
