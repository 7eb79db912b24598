"""One model of the coverage benchmark: compiled, run, and compared in this process."""

from __future__ import annotations

import contextlib
import gc
import resource
import sys
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from coverage_models import DYNAMIC, STATIC, Feature, Model
from stages import BUILDER, timed_stages
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree
from workloads import settle_norms

import trtcompile
from trtcompile import Device, Input, _tensorrt
from trtcompile.engine import Engine, Provenance

ORACLE = Path(__file__).resolve().parents[1] / "tests" / "py"
SAMPLES = 4


def measure(model: Model, *, dynamic: bool, build: bool) -> dict[str, Any]:
    """Compiles and checks a model; an exception becomes the row's ``error``."""
    warnings.simplefilter("ignore")
    row: dict[str, Any] = {"model": model.name, "dynamic": dynamic, "built": build}
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
    if not dynamic:
        return Input([_size(s, STATIC) for s in feature.shape], dtype=feature.dtype)
    low, opt, high = ([_size(s, _sizes(w)) for s in feature.shape] for w in range(3))
    return Input(min_shape=low, opt_shape=opt, max_shape=high, dtype=feature.dtype)


def _size(size: int | str, named: dict[str, int]) -> int:
    return named[size] if isinstance(size, str) else size


def randomized(model: nn.Module, seed: int) -> nn.Module:
    """Sets every parameter and every running statistic to a value that a mistake would show on.

    Other buffers are part of what the model computes: masks, position tables, frequencies.
    """
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor: torch.Tensor, low: float, high: float) -> torch.Tensor:
        return torch.rand(tensor.shape, generator=generator) * (high - low) + low

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
            elif name.endswith(("weight", "gamma", "scale")):
                tensor.copy_(uniform(tensor, 0.5, 1.0))
            else:
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


def settle(module: nn.Module, model: Model) -> None:
    """Gives batch norms the statistics of random inputs.

    Otherwise dozens of layers multiply or shrink the signal until all inputs have the same output.
    """
    if not any(isinstance(norm, _BatchNorm) for norm in module.modules()):
        return
    generator = torch.Generator().manual_seed(2)
    args, kwargs = _sample(model, {**STATIC, "batch": 16}, generator)
    for norm in settle_norms(module, *args, **kwargs):
        if norm.running_var is not None:  # a channel that hardly varies would amplify rounding
            norm.running_var.clamp_(min=0.1 * norm.running_var.mean().item())


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
        actual.append(_tensors(compiled(*args, **kwargs)))
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


@contextlib.contextmanager
def _engines(build: bool) -> Iterator[Any]:
    """Lets compiled modules run: on the GPU, or through the oracle on the CPU."""
    if _tensorrt.gpu_capability(0) is not None and not _tensorrt.load().builds_ahead_of_time:
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
