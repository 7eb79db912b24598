"""``TRTModule``: a compiled model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule
from torch.utils import _pytree as pytree

from trtcompile.engine import Engine
from trtcompile.errors import (
    AutogradError,
    EngineLoadError,
    InputMismatchError,
    TRTCompileError,
)
from trtcompile.inputs import Input, flat_inputs, shared_dims
from trtcompile.lowering.retarget import set_device
from trtcompile.partition.report import PartitionReport
from trtcompile.profiles import check_in_a_profile, resolve_profiles
from trtcompile.runtime.engine_module import EngineModule
from trtcompile.settings import CompileSpec

_NO_LOWERED_GRAPH = (
    "this module has no lowered graph: it was compiled with keep_lowered=False, or loaded from a file. Compile the "
    "model with keep_lowered=True."
)


#: Attributes that copies of a module share. A spec has the calibrator, and with it the data set.
_NEVER_CHANGED = frozenset(
    {"spec", "report", "arguments", "_in_spec", "_out_spec", "_inputs", "_shared_dims", "_profiles"}
)


class TRTModule(nn.Module):
    """A model whose supported parts are TensorRT engines and whose rest is PyTorch.

    For inference only. It holds no parameters of its own: moving or casting it has no effect, compile again instead.

    Args:
        executor: the PyTorch remainder, which calls ``EngineModule`` submodules.
        arguments: the arguments with an ``Input`` for each tensor, and constants as they are.
        argument_names: names by which ``forward`` accepts them as keywords.
        keywords: how many of the arguments, the last ones, go by keyword only.
        in_spec: pytree of ``(arguments, {})``.
        out_spec: pytree of the output.
        spec: the settings.
        report: where each operator runs.
        lowered: the lowered graph, Q/DQ included; None if not kept.
        calibration_table: tensor name to scale; None without INT8.
        graph_hash: identifies the lowered graph and its weights.
        network_graph: what the networks were made of, as ``lowered`` but for types; None if not kept.

    Attributes:
        spec: the settings it was compiled with.
        report: where each operator runs, and why.
        calibration_table: tensor name to scale; None without INT8.
    """

    def __init__(
        self,
        *,
        executor: GraphModule,
        arguments: tuple[Any, ...],
        argument_names: Sequence[str],
        keywords: int,
        in_spec: pytree.TreeSpec,
        out_spec: pytree.TreeSpec,
        spec: CompileSpec,
        report: PartitionReport | None,
        lowered: GraphModule | None,
        calibration_table: Mapping[str, float] | None,
        graph_hash: str,
        network_graph: GraphModule | None = None,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.report = report
        self.calibration_table = calibration_table
        self.graph_hash = graph_hash
        self.arguments = arguments
        self.argument_names = tuple(argument_names)
        self.keywords = keywords
        self._in_spec = in_spec
        self._out_spec = out_spec
        self._inputs = flat_inputs(arguments)
        self._shared_dims = shared_dims(self._inputs)
        self._profiles = resolve_profiles(self._inputs, spec.optimization_profiles)
        # Kept out of nn.Module's registry: `.to()`, `.half()` and `state_dict()` must not reach into them.
        self.__dict__["_executor"] = executor
        self.__dict__["_lowered"] = lowered
        self.__dict__["_network_graph"] = network_graph
        self.__dict__["_placed"] = False

    @property
    def lowered(self) -> GraphModule:
        """The lowered graph, Q/DQ included, in plain PyTorch: the simulation. Its weights stay on the CPU.

        It takes the model's tensors flat and returns the model's output structure. Products of quantized factors
        compute in FP32 up to what their kernel writes, as in TensorRT.

        Raises:
            AttributeError: it was not kept (``keep_lowered=False``, or the module was loaded from a file).
        """
        return self._kept("_lowered")

    @property
    def network_graph(self) -> GraphModule:
        """What the networks were made of: as ``lowered``, on flat inputs and outputs, with the networks' own types.

        Raises:
            AttributeError: it was not kept, as ``lowered``.
        """
        return self._kept("_network_graph")

    def _kept(self, name: str) -> GraphModule:
        graph: GraphModule | None = self.__dict__[name]
        if graph is None:
            raise AttributeError(_NO_LOWERED_GRAPH)
        return graph

    def __getattr__(self, name: str) -> Any:
        # nn.Module asks this after a property has raised AttributeError, and would say that there is no such property.
        if name in ("lowered", "network_graph"):
            raise AttributeError(_NO_LOWERED_GRAPH)
        return super().__getattr__(name)

    @property
    def in_spec(self) -> pytree.TreeSpec:
        """Pytree of ``(arguments, {})``."""
        return self._in_spec

    @property
    def out_spec(self) -> pytree.TreeSpec:
        """Pytree of the output."""
        return self._out_spec

    @property
    def executor(self) -> GraphModule:
        """The PyTorch remainder with its engine calls, on flat inputs and outputs."""
        executor: GraphModule = self.__dict__["_executor"]
        return executor

    @property
    def engine_modules(self) -> tuple[EngineModule, ...]:
        """The engine calls of the executor, in order."""
        return tuple(m for m in self.executor.children() if isinstance(m, EngineModule))

    @property
    def engines(self) -> tuple[Engine, ...]:
        """The serialized engines, in the order in which they run."""
        return tuple(module.engine for module in self.engine_modules)

    @property
    def runnable(self) -> str | None:
        """None if the engines can run on this machine, else why not."""
        return next((r for m in self.engine_modules if (r := m.why_not_runnable) is not None), None)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Runs the model.

        Raises:
            InputMismatchError: an input's number, shape, dtype, or device is not what was compiled for, or sizes of one
                dimension differ.
            AutogradError: an input requires gradients while they are being recorded.
            EngineLoadError: the engines cannot run on this machine.
        """
        tensors = self._flatten(args, kwargs)
        self._check(tensors)
        if not self.__dict__["_placed"]:
            self._place()
        with torch.no_grad(), self._without_autocast():
            outputs = self.executor(*tensors)
        return pytree.tree_unflatten(list(outputs), self._out_spec)

    def _without_autocast(self) -> contextlib.AbstractContextManager[None]:
        """The dtypes of the PyTorch remainder were settled at compile time."""
        kind = self.spec.device.torch_device.type
        if torch.is_autocast_enabled(kind):
            return torch.autocast(kind, enabled=False)
        return contextlib.nullcontext()

    def _flatten(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
        if kwargs or self.keywords:
            args = self._positional(args, kwargs)
        leaves, in_spec = pytree.tree_flatten((args, {}))
        if in_spec != self._in_spec:
            args = _ordered_as(self.arguments, args)
            leaves, in_spec = pytree.tree_flatten((args, {}))
        if in_spec != self._in_spec:
            expected = ", ".join(_describe(argument) for argument in self.arguments)
            raise InputMismatchError(
                f"forward got arguments of another structure than it was compiled for. Pass ({expected})."
            )
        tensors = []
        for leaf, expected in zip(leaves, pytree.tree_leaves(self.arguments), strict=True):
            if isinstance(expected, Input):
                tensors.append(leaf)
            elif (
                isinstance(leaf, torch.Tensor)
                or type(leaf) is not type(expected)
                or leaf != expected
            ):
                raise InputMismatchError(
                    f"forward got {leaf!r} where {expected!r} was compiled in. Pass {expected!r}, or compile again."
                )
        return tensors

    def _positional(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        by_position = len(self.arguments) - self.keywords
        known = len(self.argument_names) - self.keywords  # of those that can also go by position
        names = (*self.argument_names[min(len(args), known) : known], *self.argument_names[known:])
        unknown = [name for name in kwargs if name not in names]
        complete = len(args) + len(kwargs) == len(self.arguments)
        if unknown or not complete or len(args) > by_position:
            raise InputMismatchError(
                f"forward got the keywords {sorted(kwargs)} beside {len(args)} positional arguments. It was compiled "
                f"for {list(self.argument_names)}."
            )
        return (*args, *(kwargs[name] for name in names))

    def _check(self, tensors: Sequence[Any]) -> None:
        device = self.spec.device.torch_device
        for index, (tensor, expected) in enumerate(zip(tensors, self._inputs, strict=True)):
            label = self._label(index)
            if not isinstance(tensor, torch.Tensor):
                raise InputMismatchError(
                    f"{label} is a {type(tensor).__name__}. Pass a tensor of {expected.describe()}."
                )
            if tensor.layout != torch.strided:
                raise InputMismatchError(
                    f"{label} has the layout {tensor.layout}, and engines take dense tensors. Call to_dense() on it."
                )
            if tensor.dtype != expected.dtype:
                raise InputMismatchError(
                    f"{label} has dtype {tensor.dtype}, but the model was compiled for {expected.describe()}. Cast it."
                )
            if not expected.accepts(tensor.shape):
                raise InputMismatchError(
                    f"{label} has shape {list(tensor.shape)}, but the model was compiled for {expected.describe()}. "
                    "Pass such a shape, or compile with an Input that has a range."
                )
            if tensor.requires_grad and torch.is_grad_enabled():
                raise AutogradError(
                    f"{label} requires gradients, and engines have none. Call the module under torch.no_grad(), or "
                    "train the original model."
                )
        self._check_sizes([tensor.shape for tensor in tensors])
        # Where the engines cannot run, that is the thing to say, not that the data should be on a missing GPU.
        if not self.__dict__["_placed"] and (reason := self.runnable) is not None:
            raise EngineLoadError(f"{reason}. Compile the model on the machine that is to run it.")
        for index, tensor in enumerate(tensors):
            if tensor.device != device:
                raise InputMismatchError(
                    f"{self._label(index)} is on {tensor.device}, but the engines run on {device}. Move it there."
                )

    def _check_sizes(self, shapes: Sequence[torch.Size]) -> None:
        """Checks what shapes have to be together."""
        for name, ((first, dim), *others) in self._shared_dims:
            size = shapes[first][dim]
            for index, other_dim in others:
                if shapes[index][other_dim] != size:
                    raise InputMismatchError(
                        f"dimension {name!r} is {size} in {self._label(first)} and {shapes[index][other_dim]} in "
                        f"{self._label(index)}. Pass tensors that are equally large there."
                    )
        if self.spec.optimization_profiles is not None:
            check_in_a_profile(self._profiles, shapes)

    def _label(self, index: int) -> str:
        name = self._inputs[index].name
        return f"input {index}" + (f" ({name})" if name else "")

    def _place(self) -> None:
        """Brings the PyTorch remainder to the engines' GPU."""
        device = self.spec.device.torch_device
        self.executor.to(device)
        set_device(self.executor, device)
        self.__dict__["_placed"] = True

    def __copy__(self) -> TRTModule:
        """Another module that runs the same remainder and engines."""
        copied: TRTModule = type(self).__new__(type(self))
        copied.__dict__.update(self.__dict__)
        return copied

    def __deepcopy__(self, memo: dict[int, Any]) -> TRTModule:
        """A module with a remainder and simulation of its own; plans, which never change, are shared."""
        copied: TRTModule = type(self).__new__(type(self))
        memo[id(self)] = copied
        for name, value in self.__dict__.items():
            copied.__dict__[name] = value if name in _NEVER_CHANGED else copy.deepcopy(value, memo)
        return copied

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuses to be pickled.

        Raises:
            TRTCompileError: always.
        """
        raise TRTCompileError(
            "a TRTModule cannot be pickled, and neither can what holds one. Write it to a file with "
            "trtcompile.save(module, path), and read that with trtcompile.load(path)."
        )

    def extra_repr(self) -> str:
        """The inputs and engines, for ``print``."""
        inputs = ", ".join(_describe(argument) for argument in self.arguments)
        return f"inputs=({inputs}), engines={list(self.engines)}"


def _ordered_as(expected: Any, given: Any) -> Any:
    """``given`` with the keys of its dictionaries in the order of ``expected``, which a pytree spec compares."""
    if type(given) is not type(expected):
        return given
    if type(given) is dict and given.keys() == expected.keys():
        return {key: _ordered_as(value, given[key]) for key, value in expected.items()}
    if type(given) in (list, tuple) and len(given) == len(expected):
        return type(given)(map(_ordered_as, expected, given))
    return given


def _describe(argument: Any) -> str:
    return str(pytree.tree_map(lambda i: i.describe() if isinstance(i, Input) else i, argument))
