"""From a network definition to a serialized engine."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from trtcompile import _tensorrt
from trtcompile._tensorrt import Flavour, trt
from trtcompile.atomic_files import file_at, replace_files
from trtcompile.conversion.interpreter import NetworkDefinition
from trtcompile.conversion.network import torch_dtype
from trtcompile.errors import EngineBuildError, SettingsError
from trtcompile.partition.shapes import Profile, ShapeRange
from trtcompile.settings import CompileSpec

#: The first compute capability whose tensor cores multiply FP8.
_LEAST_FP8 = (8, 9)
#: The first that TensorRT dequantizes INT4 weights on.
_LEAST_INT4 = (8, 0)
#: trtexec's default. With TensorRT's own, 1, one of seven builds of a ResNet-18 was 25 % slower than the others.
_AVG_TIMING_ITERS = 8
#: TensorRT 10.6 chose none for a ResNet-18, which with one stream for its shortcuts took 8 % less.
_MAX_AUX_STREAMS = 1


@dataclass(frozen=True)
class Binding:
    """An input or output of an engine; a size of -1 is dynamic."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Provenance:
    """What built an engine and what it was built for.

    Attributes:
        flavour: ``"TensorRT"`` or ``"TensorRT-RTX"``.
        version: the version of the package that built it, which is the one that can read it.
        compute_capabilities: the targets.
        gpu_name: the GPU it was built on; None for ahead-of-time builds.
    """

    flavour: str
    version: str
    compute_capabilities: tuple[str, ...]
    gpu_name: str | None


@dataclass(frozen=True)
class Engine:
    """A serialized engine.

    Attributes:
        name: the name of the partition.
        plan: TensorRT's serialized engine; a read-only view of TensorRT's memory where it was built in this process,
            since a copy would be as large as the weights.
        inputs: input bindings in the order of the partition's placeholders.
        outputs: output bindings in the order of its outputs.
        profiles: for each optimization profile the min, opt, and max shape of each input.
        provenance: what built it.
    """

    name: str
    plan: bytes | memoryview
    inputs: tuple[Binding, ...]
    outputs: tuple[Binding, ...]
    profiles: tuple[Profile, ...]
    provenance: Provenance

    @property
    def is_static(self) -> bool:
        """Whether TensorRT knows every input shape; a dynamic size may well have profiles of one size each."""
        return all(-1 not in binding.shape for binding in self.inputs)

    def profile_for(self, shapes: Sequence[Sequence[int]]) -> int | None:
        """The index of the first optimization profile that takes inputs of these shapes; None if none does."""
        for index, profile in enumerate(self.profiles):
            if all(_is_within(s, ranges) for s, ranges in zip(shapes, profile, strict=True)):
                return index
        return None

    def __deepcopy__(self, memo: dict[int, Any]) -> Engine:
        return self  # nothing in it changes

    def __reduce__(self) -> tuple[Any, ...]:
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        values["plan"] = bytes(self.plan)  # views cannot be pickled
        return Engine, tuple(values.values())

    def __repr__(self) -> str:
        return f"Engine({self.name}, {len(self.plan)} bytes, {self.provenance.flavour} {self.provenance.version})"


def _is_within(shape: Sequence[int], ranges: ShapeRange) -> bool:
    low, _, high = ranges
    return len(shape) == len(low) and all(
        least <= size <= most for least, size, most in zip(low, shape, high, strict=True)
    )


def check_buildable(spec: CompileSpec) -> Flavour:
    """Checks that the installed TensorRT can build for the device, before any work is done.

    Raises:
        TensorRTMissingError: no TensorRT is installed.
        SettingsError: the device is not there, cannot be built for, or lacks a type that was asked for; or an option
            about timing kernels cannot be followed.
    """
    flavour = _tensorrt.load()
    _check_timing_options(flavour, spec)
    here = _tensorrt.gpu_capability(spec.device.gpu_id)
    named = spec.device.compute_capabilities
    _check_types(spec, named or ((here,) if here else ()))
    if spec.weight_only == "int8" and not flavour.keeps_int8_weights:
        raise SettingsError(
            f"weight_only is 'int8', but {flavour} dequantizes such weights when it builds: the engine is as large "
            "and as slow as in FP16. Use 'int4', which makes it smaller, FP16, or tensorrt-rtx."
        )
    if not named:
        if here is None:
            how = (
                "Name the target, as in device=Device(compute_capability='8.9')."
                if flavour.builds_ahead_of_time
                else "Build on a machine with that GPU, or install tensorrt-rtx to build for RTX GPUs anywhere."
            )
            raise SettingsError(
                f"device is cuda:{spec.device.gpu_id}, and this machine has no such GPU. {how}"
            )
        return flavour
    if not flavour.builds_ahead_of_time:
        if named != (here,):
            raise SettingsError(
                f"compute_capability is {', '.join(named)}, but {flavour} builds only for the GPU of this machine "
                f"({here or 'none'}). Leave compute_capability out, or use tensorrt-rtx."
            )
        return flavour
    for capability in named:
        if not hasattr(flavour.trt.ComputeCapability, _capability_name(capability)):
            known = [
                _spoken(n) for n in flavour.trt.ComputeCapability.__members__ if n.startswith("SM")
            ]
            raise SettingsError(
                f"compute_capability {capability} is not among those of {flavour}. Use one of {', '.join(known)}."
            )
    return flavour


def _check_types(spec: CompileSpec, targets: Sequence[str]) -> None:
    wanted = [
        ("enabled_precisions has torch.float8_e4m3fn", "FP8", _LEAST_FP8, spec.uses_fp8),
        ("weight_only is 'int4'", "INT4", _LEAST_INT4, spec.weight_only == "int4"),
    ]
    for option, kind, least, is_wanted in wanted:
        for target in targets if is_wanted else ():
            if tuple(map(int, target.split("."))) < least:
                raise SettingsError(
                    f"{option}, but compute capability {target} has no {kind}: {'.'.join(map(str, least))} is the "
                    "first that does. Use INT8, or another device."
                )


def _check_timing_options(flavour: Flavour, spec: CompileSpec) -> None:
    for option in ("num_avg_timing_iters", "timing_cache_file"):
        value = getattr(spec, option)
        if value is not None and not flavour.measures_kernels:
            raise SettingsError(
                f"{option} is {value!r}, but {flavour} times no kernels when it builds, so it would have no effect. "
                "Leave it out."
            )
    if spec.timing_cache_file is None:
        return
    try:
        file_at(Path(spec.timing_cache_file))
    except OSError as error:
        raise SettingsError(f"timing_cache_file cannot be written: {error}") from error


def gpu_is_present(spec: CompileSpec) -> bool:
    """Whether this machine has the GPU that the device names."""
    return _tensorrt.gpu_capability(spec.device.gpu_id) is not None


def _capability_name(capability: str) -> str:
    return "SM" + capability.replace(".", "")


def _spoken(name: str) -> str:
    return f"{name[2:-1]}.{name[-1]}"


def build_engine(
    name: str, network: NetworkDefinition, profiles: Sequence[Profile], spec: CompileSpec
) -> Engine:
    """Builds an engine.

    Args:
        name: the name of the partition.
        network: from ``conversion.convert``.
        profiles: for each optimization profile the min, opt, and max shape of each input.
        spec: the settings.

    Raises:
        EngineBuildError: TensorRT refused the network; carries its log lines.
        SettingsError: the device cannot be built for.
    """
    flavour = check_buildable(spec)
    config = network.builder.create_builder_config()
    _configure(config, flavour, spec)
    definition = network.definition
    inputs = [_binding(definition.get_input(i)) for i in range(definition.num_inputs)]
    if any(-1 in binding.shape for binding in inputs):
        for profile in profiles:
            _add_profile(config, network, profile)
    with _on_gpu(spec), _timing_cache(config, network.logger, spec):
        plan = network.builder.build_serialized_network(network.definition, config)
    if plan is None:
        said = "\n".join(f"  {line}" for line in network.logger.lines) or "  (it logged nothing)"
        raise EngineBuildError(
            f"{flavour} could not build {name}. It said:\n{said}\nLeave the operators it names to PyTorch with "
            "torch_executed_ops, or report this with the model.",
            network.logger.errors,
        )
    # Not before: a network that TensorRT refuses may have outputs without a shape.
    outputs = [_binding(definition.get_output(i)) for i in range(definition.num_outputs)]
    return Engine(
        name=name,
        plan=memoryview(plan).cast("B").toreadonly(),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        profiles=tuple(profiles),
        provenance=_provenance(flavour, spec),
    )


def _add_profile(config: Any, network: NetworkDefinition, ranges: Profile) -> None:
    profile = network.builder.create_optimization_profile()
    for binding, (low, opt, high) in zip(network.input_names, ranges, strict=True):
        profile.set_shape(binding, low, opt, high)
    config.add_optimization_profile(profile)


def _configure(config: Any, flavour: Flavour, spec: CompileSpec) -> None:
    config.profiling_verbosity = (
        trt.ProfilingVerbosity.DETAILED
    )  # layer names and precisions for the inspector
    if spec.device.disable_tf32:
        config.clear_flag(trt.BuilderFlag.TF32)
    if spec.workspace_size is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, spec.workspace_size)
    if spec.optimization_level is not None:
        config.builder_optimization_level = spec.optimization_level
    if flavour.measures_kernels:  # others choose kernels and streams where the engine is loaded
        config.avg_timing_iterations = spec.num_avg_timing_iters or _AVG_TIMING_ITERS
        config.max_aux_streams = _MAX_AUX_STREAMS
    if spec.max_aux_streams is not None:
        config.max_aux_streams = spec.max_aux_streams
    named = spec.device.compute_capabilities
    if flavour.builds_ahead_of_time and named:
        config.num_compute_capabilities = len(named)
        for index, capability in enumerate(named):
            config.set_compute_capability(
                getattr(trt.ComputeCapability, _capability_name(capability)), index
            )


@contextlib.contextmanager
def _on_gpu(spec: CompileSpec) -> Iterator[None]:
    if spec.device.compute_capabilities and _tensorrt.gpu_capability(spec.device.gpu_id) is None:
        yield
        return
    with torch.cuda.device(spec.device.gpu_id):
        yield


@contextlib.contextmanager
def _timing_cache(config: Any, logger: Any, spec: CompileSpec) -> Iterator[None]:
    """Lends the build a timing cache file. A file that TensorRT cannot use is an error, never overwritten."""
    if spec.timing_cache_file is None:
        yield
        return
    path = Path(spec.timing_cache_file)
    known = path.read_bytes() if path.exists() else b""
    already_logged = len(logger.lines)
    cache = config.create_timing_cache(known)
    # TensorRT makes an empty cache of bytes that it cannot read, and says so in its log alone.
    complaints = logger.lines[already_logged:] if known else []
    if cache is None or complaints or not config.set_timing_cache(cache, ignore_mismatch=False):
        said = f" TensorRT said: {'; '.join(complaints)}." if complaints else ""
        raise SettingsError(
            f"timing_cache_file {str(path)!r} was not written by this TensorRT for this GPU.{said} Name another file."
        )
    yield
    replace_files({path: bytes(config.get_timing_cache().serialize())})


def _binding(tensor: Any) -> Binding:
    return Binding(tensor.name, torch_dtype(tensor.dtype), tuple(tensor.shape))


def _provenance(flavour: Flavour, spec: CompileSpec) -> Provenance:
    here = _tensorrt.gpu_capability(spec.device.gpu_id)
    named = spec.device.compute_capabilities
    gpu_name = (
        torch.cuda.get_device_name(spec.device.gpu_id) if here is not None and not named else None
    )
    return Provenance(
        flavour=flavour.name,
        version=flavour.version,
        compute_capabilities=named or ((here,) if here else ()),
        gpu_name=gpu_name,
    )
