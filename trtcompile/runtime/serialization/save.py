"""Writes a compiled module to a file."""

from __future__ import annotations

import importlib.metadata
import os
from pathlib import Path
from typing import Any

import torch

from trtcompile.atomic_files import replacing
from trtcompile.errors import SettingsError, UnsupportedGraphError
from trtcompile.ptq import CalibrationTable
from trtcompile.runtime.module import TRTModule
from trtcompile.runtime.serialization.archive import LARGEST_JSON, Buffer, write_archive
from trtcompile.runtime.serialization.graph_json import graph_to_json
from trtcompile.runtime.serialization.json_values import dump, record_to_json
from trtcompile.runtime.serialization.members import (
    CALIBRATION,
    CONSTANT,
    ENGINES,
    EXECUTOR,
    PLAN,
    REPORT,
    SIGNATURE,
)
from trtcompile.runtime.serialization.records import (
    argument_to_json,
    engine_to_json,
    report_to_json,
    table_to_json,
)
from trtcompile.runtime.serialization.settings_json import settings_to_json
from trtcompile.runtime.serialization.tensors import bytes_of, tensor_to_json
from trtcompile.runtime.serialization.trees import (
    UnsavableError,
    tree_to_json,
    treespec_to_json,
)


def save(compiled: TRTModule, path: str | os.PathLike[str]) -> None:
    """Writes a compiled module to one file, from which ``load`` makes it again.

    The file has the engines, the PyTorch remainder with its constants, inputs and outputs, settings, report,
    calibration table, and what built it. It has no lowered graph. It is a zip of JSON and raw bytes; nothing in it
    is pickled. An existing file is replaced in one step, and only when the new one is complete.

    Args:
        compiled: what ``trtcompile.compile`` or ``load`` returned.
        path: the file to write.

    Raises:
        SettingsError: ``compiled`` is no compiled module, or ``path`` no path.
        UnsupportedGraphError: the module has something that files do not hold, such as an output of a class that is
            no registered dataclass, an operator that works by side effects, or ``torch.cond``.
        OSError: the file cannot be written.
    """
    if not isinstance(compiled, TRTModule):
        raise SettingsError(
            f"compiled is a {type(compiled).__name__}, not a TRTModule. Give what trtcompile.compile returns."
        )
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise SettingsError(f"path is {path!r}. Give the path of a file.")
    try:
        members = _members(compiled)
    except UnsavableError as error:
        raise UnsupportedGraphError(
            f"the compiled module cannot be saved: it has {error}. Return tuples, lists, dictionaries, and registered "
            "dataclasses of tensors, and leave out operators that have side effects or, like torch.cond, graphs of "
            "their own.",
            compiled.report,
        ) from error
    with replacing(Path(path)) as file:
        write_archive(file, _provenance(compiled), members)


def _provenance(compiled: TRTModule) -> dict[str, Any]:
    """The manifest's entries: what one would want to know of a file before loading it."""
    builders = {engine.provenance: None for engine in compiled.engines}
    return {
        "versions": {"trtcompile": _own_version(), "torch": str(torch.__version__)},
        "built_by": [record_to_json(provenance) for provenance in builders],
        "graph_hash": compiled.graph_hash,
        "settings": settings_to_json(compiled.spec),
    }


def _own_version() -> str:
    try:
        return importlib.metadata.version("trtcompile")
    except importlib.metadata.PackageNotFoundError:
        return "unknown (not installed)"


def _members(compiled: TRTModule) -> dict[str, Buffer]:
    nodes = graph_to_json(compiled.executor.graph)
    constants = _constants(compiled)
    described = {name: tensor_to_json(tensor) for name, tensor in constants.items()}
    report = compiled.report
    members: dict[str, Buffer] = {
        SIGNATURE: dump(_signature(compiled)),
        CALIBRATION: dump(_table(compiled)),
        REPORT: dump(None if report is None else report_to_json(report)),
        ENGINES: dump([engine_to_json(engine) for engine in compiled.engines]),
        EXECUTOR: dump({"constants": described, "nodes": nodes}),
    }
    for name, data in members.items():
        if memoryview(data).nbytes > LARGEST_JSON:
            raise UnsavableError(f"{memoryview(data).nbytes} bytes of JSON for {name}")
    for index, engine in enumerate(compiled.engines):
        members[PLAN.format(index)] = engine.plan
    for index, tensor in enumerate(constants.values()):
        members[CONSTANT.format(index)] = bytes_of(tensor)
    return members


def _signature(compiled: TRTModule) -> dict[str, Any]:
    return {
        "arguments": tree_to_json(compiled.arguments, argument_to_json),
        "argument_names": list(compiled.argument_names),
        "keywords": compiled.keywords,
        "in_spec": treespec_to_json(compiled.in_spec),
        "out_spec": treespec_to_json(compiled.out_spec),
    }


def _table(compiled: TRTModule) -> dict[str, Any] | None:
    table = compiled.calibration_table
    if table is None:
        return None
    if not isinstance(table, CalibrationTable):
        raise UnsavableError(f"a {type(table).__name__} for a CalibrationTable")
    return table_to_json(table)


def _constants(compiled: TRTModule) -> dict[str, torch.Tensor]:
    """The tensors that the executor refers to, by name, in order of use."""
    executor = compiled.executor
    names = (str(node.target) for node in executor.graph.nodes if node.op == "get_attr")
    return {name: getattr(executor, name) for name in dict.fromkeys(names)}
