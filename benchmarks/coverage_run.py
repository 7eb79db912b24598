"""One model of the coverage benchmark: compiled, run, and compared in this process."""

from __future__ import annotations

import contextlib
import copy
import gc
import resource
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from coverage_models import DYNAMIC, STATIC, Feature, Model
from stages import BUILDER, timed_stages
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree
from workloads import settle_norms

import trtcompile
from trtcompile import Device, Dim, Input, _tensorrt
from trtcompile.engine import Engine, Provenance

ORACLE = Path(__file__).resolve().parents[1] / "tests" / "py"
SAMPLES = 4


def measure(
    model: Model, *, dynamic: bool, build: bool, optimization_level: int | None = None
) -> dict[str, Any]:
    """Compiles and checks a model; an exception becomes the row's ``error``.

    Its memory is what is taken on top of a process in which TensorRT's kernel library is loaded.
    """
    with contextlib.ExitStack() as kept:
        if build:
            kept.enter_context(_tensorrt.builder_library_kept())
        return _row(model, dynamic, build, optimization_level)


def _row(
    model: Model, dynamic: bool, build: bool, optimization_level: int | None
) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    row: dict[str, Any] = {
        "model": model.name,
        "dynamic": dynamic,
        "built": build,
        "computed_by": "engine" if _runs_engines() else "oracle",
    }
    before = _peak_bytes()
    torch.manual_seed(0)
    module = randomized(model.build().eval(), seed=0)
    settle(module, model)
    row["weight_bytes"] = sum(t.nbytes for t in (*module.parameters(), *module.buffers()))
    try:
        with _engines(build) as device, timed_stages() as stages:
            compiled = trtcompile.compile(
                module,
                [_input(feature, dynamic) for feature in model.inputs],
                kwarg_inputs={k: _input(f, dynamic) for k, f in model.keywords.items()} or None,
                device=device,
                optimization_level=optimization_level,
                min_block_size=1,
                keep_lowered=False,
            )
            row["peak_bytes"] = _peak_bytes() - before
            row["stages"] = {name: round(seconds, 3) for name, seconds in stages.items()}
            row["seconds_in_builder"] = round(stages[BUILDER], 3)
            row["seconds_before_builder"] = round(sum(stages.values()) - stages[BUILDER], 3)
            row |= _counts(compiled)
            gc.collect()
            sizes = [STATIC] if not dynamic else [_sizes(which) for which in range(3)]
            errors = [_largest_error(module, compiled, model, one) for one in sizes]
            row["largest_error"] = max(errors)
            row["eager_error"] = _eager_error(module, model)
    except Exception as error:  # noqa: BLE001 - a row of the table
        traceback.print_exc()
        row["error"] = f"{type(error).__name__}: {str(error).splitlines()[0][:300]}"
    return row


def _counts(compiled: trtcompile.TRTModule) -> dict[str, Any]:
    assert compiled.report is not None
    rows = compiled.report.rows
    outside = Counter(f"{row.operator} ({row.reason})" for row in rows if row.reason is not None)
    return {
        "nodes": len(rows),
        "nodes_in_tensorrt": sum(row.reason is None for row in rows),
        "engines": len(compiled.engines),
        "fallbacks": [f"{name} x{count}" for name, count in outside.most_common()],
    }


def _sizes(which: int) -> dict[str, int]:
    return {name: sizes[which] for name, sizes in DYNAMIC.items()}


def _input(feature: Feature, dynamic: bool) -> Input:
    sizes: Mapping[str, int | Dim] = STATIC
    if dynamic:
        sizes = {n: Dim(n, min=low, opt=opt, max=high) for n, (low, opt, high) in DYNAMIC.items()}
    shape = [sizes[size] if isinstance(size, str) else size for size in feature.shape]
    return Input(shape, dtype=feature.dtype)


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """Sets every parameter and every running statistic to a value that a mistake would show on.

    Biases of batch norms lie from 0 to 1.5, their weights from 0.25 to 0.75: where a ReLU cuts off half of the signal,
    the next batch norm enlarges what is left, and fifty of them enlarge rounding ten thousandfold. Buffers that are no
    running statistics are part of what the model computes: masks, position tables, frequencies.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

    norms = {path for path, norm in model.named_modules() if isinstance(norm, _BatchNorm)}
    statistics = {
        name: buffer for name, buffer in model.named_buffers() if name.endswith(("_mean", "_var"))
    }
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *statistics.items()]:
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var"):
                tensor.copy_(uniform(tensor, 0.5, 1.5))
            elif tensor.dim() > 1:
                fan_in = max(1, tensor[0].numel())
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * (1.5 / fan_in) ** 0.5)
            elif name not in statistics and name.rpartition(".")[0] in norms:
                low, high = (0.25, 0.75) if name.endswith("weight") else (0.0, 1.5)
                tensor.copy_(uniform(tensor, low, high))
            elif name.endswith(("weight", "gamma", "scale")):
                tensor.copy_(uniform(tensor, 0.5, 1.0))
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


@torch.no_grad()
def settle(module: nn.Module, model: Model) -> None:
    """Makes the results of each layer vary by 1 on random inputs, and gives batch norms their statistics.

    As in "All you need is a good init" (Mishkin and Matas, 2016). Otherwise dozens of layers multiply or shrink the
    signal until all inputs have the same output, or until rounding is larger than what tells two outputs apart. Layers
    that run in a loop are left alone: it would compound their gain.
    """
    has_norms = any(isinstance(norm, _BatchNorm) for norm in module.modules())
    layers = _run_once(module, model)
    if not layers and not has_norms:
        return
    sizes = {**STATIC, "batch": 16} if has_norms else STATIC
    args, kwargs = _sample(model, sizes, torch.Generator().manual_seed(2))
    scaled: set[nn.Parameter] = set()

    def scale(layer: Any, _: Any, output: torch.Tensor) -> torch.Tensor:
        # The scale of a weight that the layer standardizes itself is in its gain.
        factor = getattr(layer, "gain", layer.weight)
        deviation = output.std()
        if factor in scaled or not deviation > 0:
            return output
        scaled.add(factor)
        factor /= deviation
        if layer.bias is not None:
            layer.bias /= deviation
        return output / deviation

    hooks = [layer.register_forward_hook(scale) for layer in layers]
    try:
        norms = settle_norms(module, *args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    for norm in norms:
        if norm.running_var is not None:  # a channel that hardly varies would amplify rounding
            norm.running_var.clamp_(min=0.1 * norm.running_var.mean().item())


def _run_once(module: nn.Module, model: Model) -> list[Any]:
    """The convolutions and linear layers that one call of the model runs once."""
    runs: Counter[nn.Module] = Counter()
    layers = [one for one in module.modules() if isinstance(one, (nn.Linear, _ConvNd))]
    hooks = [
        layer.register_forward_hook(lambda layer, *_: runs.update([layer])) for layer in layers
    ]
    args, kwargs = _sample(model, STATIC, torch.Generator().manual_seed(2))
    try:
        if layers:
            module(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    return [layer for layer in layers if runs[layer] == 1]


def _sample(
    model: Model, sizes: dict[str, int], generator: torch.Generator
) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    args = [feature.sample(sizes, generator) for feature in model.inputs]
    return args, {name: f.sample(sizes, generator) for name, f in model.keywords.items()}


def _largest_error(
    module: nn.Module, compiled: trtcompile.TRTModule, model: Model, sizes: dict[str, int]
) -> float:
    """The largest difference of any output, over its standard deviation across inputs."""
    generator = torch.Generator().manual_seed(1)
    expected, actual = [], []
    for _ in range(SAMPLES):
        args, kwargs = _sample(model, sizes, generator)
        with torch.no_grad():
            expected.append(_tensors(module(*args, **kwargs)))
        if _runs_engines():
            args, kwargs = pytree.tree_map(torch.Tensor.cuda, (args, kwargs))
        actual.append([tensor.cpu() for tensor in _tensors(compiled(*args, **kwargs))])
    return _difference(expected, actual)


def _eager_error(module: nn.Module, model: Model) -> float | None:
    """How far PyTorch's FP32 is from its own FP64: what is to be expected of any other FP32."""
    generator = torch.Generator().manual_seed(1)
    exact = copy.deepcopy(module).double()
    expected, actual = [], []
    for _ in range(SAMPLES):
        sample = _sample(model, STATIC, generator)
        wide = pytree.tree_map(lambda t: t.double() if t.is_floating_point() else t, sample)
        with torch.no_grad():
            actual.append(_tensors(module(*sample[0], **sample[1])))
            try:
                outputs = _tensors(exact(*wide[0], **wide[1]))
            except RuntimeError:  # a dtype that the model names itself
                return None
        expected.append([t.to(a.dtype) for t, a in zip(outputs, actual[-1], strict=True)])
    return _difference(expected, actual)


def _difference(expected: list[list[torch.Tensor]], actual: list[list[torch.Tensor]]) -> float:
    """The largest difference of any output, over its standard deviation across inputs."""
    errors = [0.0]
    for want, got in zip(zip(*expected, strict=True), zip(*actual, strict=True), strict=True):
        wanted, given = torch.stack(want), torch.stack(got)
        if wanted.shape != given.shape or wanted.dtype != given.dtype:
            raise AssertionError(
                f"an output is {given.dtype} {list(given.shape)}, not {wanted.dtype} {list(wanted.shape)}"
            )
        if not wanted.is_floating_point():
            errors.append(0.0 if torch.equal(wanted, given) else float("inf"))
            continue
        finite = wanted.isfinite()
        if not torch.equal(finite, given.isfinite()):
            return float("inf")
        if not finite.any():
            continue
        wanted, given = wanted.double(), given.double()
        deviation = wanted.var(dim=0)[finite.all(dim=0)].mean().sqrt()
        difference = (wanted - given)[finite].abs().max()
        errors.append(float(difference / deviation) if deviation > 0 else float(difference))
    return float(f"{max(errors):.3g}")


def _tensors(output: Any) -> list[torch.Tensor]:
    return [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _runs_engines() -> bool:
    return _tensorrt.gpu_capability(0) is not None and not _tensorrt.load().builds_ahead_of_time


@contextlib.contextmanager
def _engines(build: bool) -> Iterator[Any]:
    """Lets compiled modules run: on the GPU, or through the oracle on the CPU."""
    if _runs_engines():
        yield Device(disable_tf32=True)
        return
    sys.path.insert(0, str(ORACLE))
    from checks import OracleSession

    networks: dict[str, Any] = {}
    build_engine = trtcompile.engine.build_engine

    def build_and_remember(name: str, network: Any, ranges: Any, spec: Any) -> Engine:
        networks[name] = network
        if build:
            return build_engine(name, network, ranges, spec)
        return Engine(name, b"", (), (), tuple(ranges), Provenance("none", "none", (), None))

    module = "trtcompile.runtime.engine_module"
    with (
        mock.patch("trtcompile.compiler.build_engine", build_and_remember),
        mock.patch(f"{module}.why_not_runnable", return_value=None),
        mock.patch(
            f"{module}.EngineModule.session",
            lambda self: OracleSession(networks[self.engine.name]),
        ),
        mock.patch.object(Device, "torch_device", property(lambda _: torch.device("cpu"))),
    ):
        yield Device(compute_capability="8.9", disable_tf32=True)
