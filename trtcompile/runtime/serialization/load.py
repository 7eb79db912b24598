"""Reads a compiled module from a file."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from trtcompile import _tensorrt
from trtcompile.engine import Engine
from trtcompile.errors import EngineLoadError, SettingsError, TRTCompileError
from trtcompile.inputs import flat_inputs
from trtcompile.profiles import resolve_profiles
from trtcompile.runtime.engine_module import EngineModule
from trtcompile.runtime.module import TRTModule
from trtcompile.runtime.serialization.archive import MANIFEST, ArchiveError, ArchiveReader
from trtcompile.runtime.serialization.graph_json import graph_from_json
from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_int,
    as_list,
    as_mapping,
    as_text,
    fields,
)
from trtcompile.runtime.serialization.members import (
    CALIBRATION,
    CONSTANT,
    ENGINES,
    EXECUTOR,
    PLAN,
    REPORT,
    SIGNATURE,
)
from trtcompile.runtime.serialization.operators import OPERATOR_NAMESPACES
from trtcompile.runtime.serialization.records import (
    argument_from_json,
    engine_from_json,
    report_from_json,
    table_from_json,
)
from trtcompile.runtime.serialization.settings_json import placed_on, settings_from_json
from trtcompile.runtime.serialization.tensors import tensor_from_archive
from trtcompile.runtime.serialization.trees import tree_from_json, treespec_from_json
from trtcompile.settings import CompileSpec

# What PyTorch and this package raise for values of the right type that make no sense.
_WRONG_CONTENT = (
    TRTCompileError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
)


def load(
    path: str | os.PathLike[str],
    *,
    device: Any = None,
    operator_namespaces: Collection[str] = (),
) -> TRTModule:
    """Makes the module again that ``save`` wrote.

    Where this machine has a GPU, the file must fit it and the TensorRT here. Where it has none, the module can still
    be looked into (``report``, ``engines``, ``calibration_table``, ``spec``), and its ``forward`` raises
    ``EngineLoadError`` before anything is launched. A loaded module has no lowered graph. Where the model returns a
    dataclass, the module that defines and registers it has to be imported first.

    Every byte is checked against a hash before it is used, so damage is found. Nothing in a file is unpickled or
    imported, and its graph can only call operators that compute. Its engines, though, are programs that TensorRT
    runs as they are: load files only from where you would take programs from.

    Args:
        path: the file.
        device: the GPU to run on, as anything that ``Device.from_any`` reads; None for the one that was saved. What
            it says beside ``gpu_id`` must agree with what was saved.
        operator_namespaces: namespaces of ``torch.ops`` that the PyTorch remainder may use beside PyTorch's and
            torchvision's own, for models with custom operators.

    Raises:
        EngineLoadError: the file is missing, not one of ``save``, of another format version, truncated, altered, or
            malformed, or calls what it may not; or this machine's GPU or TensorRT cannot run it.
        SettingsError: an argument is malformed, or ``device`` contradicts what was saved.
    """
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise SettingsError(f"path is {path!r}. Give the path of a file.")
    namespaces = OPERATOR_NAMESPACES | _checked_namespaces(operator_namespaces)
    try:
        with Path(path).open("rb") as file:
            module = _read(ArchiveReader(file), device, namespaces)
    except OSError as error:
        raise EngineLoadError(
            f"{os.fspath(path)!r} cannot be read: {error.strerror or error}. Give the path of a file that "
            "trtcompile.save wrote."
        ) from error
    except MalformedError as error:
        raise EngineLoadError(
            f"{os.fspath(path)!r} cannot be loaded: {error.problem}. {error.advice}"
        ) from error
    has_gpu = _tensorrt.gpu_capability(0) is not None
    if has_gpu and (reason := module.runnable) is not None:
        raise EngineLoadError(
            f"{os.fspath(path)!r} cannot run on {module.spec.device.torch_device}: {reason}. Compile the model on the "
            "machine that is to run it, or name another of its GPUs with device=."
        )
    return module


def _checked_namespaces(namespaces: object) -> frozenset[str]:
    if isinstance(namespaces, str) or not isinstance(namespaces, Collection):
        raise SettingsError(
            f"operator_namespaces is {namespaces!r}. Use a set of names such as {{'mylib'}}."
        )
    for name in namespaces:
        if not isinstance(name, str) or not name.isidentifier():
            raise SettingsError(
                f"operator_namespaces has {name!r}. Use the part after torch.ops., such as 'mylib'."
            )
    return frozenset(namespaces)


def _read(archive: ArchiveReader, device: Any, namespaces: Collection[str]) -> TRTModule:
    with _content_of(CALIBRATION):
        content = archive.read_json(CALIBRATION)
        table = None if content is None else table_from_json(content)
    with _content_of(REPORT):
        content = archive.read_json(REPORT)
        report = None if content is None else report_from_json(content)
    with _content_of(SIGNATURE):
        arguments, names, keywords, in_spec, out_spec = _signature(archive.read_json(SIGNATURE))
    with _content_of(ENGINES):
        engines = [
            engine_from_json(engine, archive.read(PLAN.format(index)))
            for index, engine in enumerate(as_list(archive.read_json(ENGINES)))
        ]
    with _content_of(MANIFEST):
        graph_hash = as_text(archive.manifest.get("graph_hash"))
        spec = settings_from_json(archive.manifest.get("settings"), table)
        resolve_profiles(flat_inputs(arguments), spec.optimization_profiles)
    built_for = (engine.provenance.compute_capabilities for engine in engines)
    spec = placed_on(spec, device, next(built_for, spec.device.compute_capabilities))
    with _content_of(EXECUTOR):
        executor = _executor(archive, engines, spec, namespaces)
        _check_fit(executor, arguments, in_spec, out_spec)
    archive.check_all_read()
    return TRTModule(
        executor=executor,
        arguments=arguments,
        argument_names=names,
        keywords=keywords,
        in_spec=in_spec,
        out_spec=out_spec,
        spec=spec,
        report=report,
        lowered=None,
        calibration_table=table,
        graph_hash=graph_hash,
    )


@contextlib.contextmanager
def _content_of(member: str) -> Iterator[None]:
    """Names the member in whatever goes wrong with its content, and gives it one type."""
    try:
        yield
    except ArchiveError:
        raise
    except MalformedError as error:
        raise MalformedError(f"{member}: {error.problem}", error.advice) from error
    except _WRONG_CONTENT as error:
        raise MalformedError(f"{member} is malformed: {error}") from error


def _signature(
    value: Any,
) -> tuple[tuple[Any, ...], list[str], int, pytree.TreeSpec, pytree.TreeSpec]:
    names = ("arguments", "argument_names", "keywords", "in_spec", "out_spec")
    arguments, argument_names, keywords, in_spec, out_spec = fields(value, *names)
    read = tree_from_json(arguments, argument_from_json)
    if not isinstance(read, tuple):
        raise MalformedError(f"the arguments are a {type(read).__name__}, not a tuple")
    return (
        read,
        [as_text(name) for name in as_list(argument_names)],
        as_int(keywords),
        treespec_from_json(in_spec),
        treespec_from_json(out_spec),
    )


def _executor(
    archive: ArchiveReader,
    engines: Sequence[Engine],
    spec: CompileSpec,
    namespaces: Collection[str],
) -> GraphModule:
    constants, nodes = fields(archive.read_json(EXECUTOR), "constants", "nodes")
    described = as_mapping(constants)
    tensors = {
        name: tensor_from_archive(value, archive, CONSTANT.format(index))
        for index, (name, value) in enumerate(described.items())
    }
    modules = {
        engine.name: EngineModule(engine, spec.device.gpu_id, use_cuda_graphs=spec.use_cuda_graphs)
        for engine in engines
    }
    if len(modules) != len(engines):
        raise MalformedError(
            f"two of the engines {[engine.name for engine in engines]} share a name"
        )
    return graph_from_json(nodes, constants=tensors, engines=modules, namespaces=namespaces)


def _check_fit(
    executor: GraphModule,
    arguments: tuple[Any, ...],
    in_spec: pytree.TreeSpec,
    out_spec: pytree.TreeSpec,
) -> None:
    """Checks that the parts of a file go together in number."""
    nodes = list(executor.graph.nodes)
    placeholders = sum(node.op == "placeholder" for node in nodes)
    inputs = len(flat_inputs(arguments))
    if placeholders != inputs or in_spec != pytree.tree_structure((arguments, {})):
        raise MalformedError(
            f"the graph takes {placeholders} tensors, {inputs} inputs are described, and their structure holds "
            f"{in_spec.num_leaves} values"
        )
    outputs = len(nodes[-1].args[0])
    if outputs != out_spec.num_leaves:
        raise MalformedError(
            f"the graph returns {outputs} values, and their structure holds {out_spec.num_leaves}"
        )
    for node in nodes:
        if node.op != "call_module":
            continue
        module = executor.get_submodule(node.target)
        assert isinstance(module, EngineModule)
        expected = len(module.engine.inputs)
        if len(node.args) != expected:
            raise MalformedError(
                f"{node.target} has {expected} inputs and is called with {len(node.args)}"
            )
