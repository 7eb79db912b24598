"""Every option of a compilation: its name, default, meaning, and check, once.

``compile(...)`` and ``torch.compile(..., backend="trt", options={...})`` both go through
``CompileSpec.from_options``. Nothing else, no environment variable and no global, alters a build.
"""

from __future__ import annotations

import dataclasses
import difflib
import enum
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trtcompile.dims import SizeRange, is_size
from trtcompile.errors import SettingsError

SUPPORTED_PRECISIONS: tuple[torch.dtype, ...] = (
    torch.float32,
    torch.float16,
    torch.int8,
    torch.float8_e4m3fn,
)
_SPOKEN_PRECISIONS = ", ".join(map(str, SUPPORTED_PRECISIONS))
#: Precisions that Q/DQ with calibrated scales are placed for, and what they are called.
QUANTIZED_PRECISIONS: Mapping[torch.dtype, str] = {torch.int8: "INT8", torch.float8_e4m3fn: "FP8"}
#: The types that ``weight_only`` names.
WEIGHT_ONLY = ("int8", "int4")


class DeviceType(enum.Enum):
    """The kind of processor an engine is built for."""

    GPU = "gpu"
    DLA = "dla"


def _refuse_unknown(names: Iterable[str], known: Iterable[str], what: str) -> None:
    known = list(known)
    for name in names:
        if name in known:
            continue
        nearest = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else f"Use one of {', '.join(known)}."
        raise SettingsError(f"{what} has no option {name!r}. {hint}")


@dataclass(frozen=True, kw_only=True)
class Device:
    """What an engine is built for and where it runs.

    Args:
        device_type: ``DeviceType.GPU``. ``DeviceType.DLA`` is refused until it works.
        gpu_id: CUDA ordinal of the GPU that runs the engine.
        dla_core: DLA core; only 0 (its default) is accepted while DLA is refused.
        allow_gpu_fallback: lets a DLA engine use the GPU for layers that DLA lacks; needs DLA.
        disable_tf32: computes FP32 convolutions and matrix products in full FP32 instead of TF32.
        compute_capability: ``"8.9"`` or several, for ahead-of-time builds with TensorRT-RTX on a machine
            without that GPU. None means the GPU at ``gpu_id``.

    Raises:
        SettingsError: a field has the wrong type or value, or would have no effect.
    """

    device_type: DeviceType = DeviceType.GPU
    gpu_id: int = 0
    dla_core: int = 0
    allow_gpu_fallback: bool = False
    disable_tf32: bool = False
    compute_capability: str | tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.device_type, DeviceType):
            raise SettingsError(
                f"device_type is {self.device_type!r}, not a DeviceType. Use trtcompile.DeviceType.GPU."
            )
        for name in ("allow_gpu_fallback", "disable_tf32"):
            _require_bool(f"Device.{name}", getattr(self, name))
        for name in ("gpu_id", "dla_core"):
            _require_int(f"Device.{name}", getattr(self, name), low=0)
        if self.device_type is DeviceType.DLA:
            raise SettingsError(
                "device_type is DeviceType.DLA, which trtcompile cannot build for yet. Use DeviceType.GPU."
            )
        if self.dla_core != 0:
            raise SettingsError(
                f"dla_core is {self.dla_core}, but device_type is GPU, which has no DLA cores. Leave dla_core at 0."
            )
        if self.allow_gpu_fallback:
            raise SettingsError(
                "allow_gpu_fallback is True, but device_type is GPU, where nothing can fall back from. Leave it False."
            )
        object.__setattr__(self, "compute_capability", self._normalized_capabilities())

    def _normalized_capabilities(self) -> tuple[str, ...] | None:
        value = self.compute_capability
        if value is None:
            return None
        if isinstance(value, str) or not isinstance(value, Iterable):
            value = (value,)
        values = tuple(value)
        for item in values:
            if not isinstance(item, str) or not re.fullmatch(r"\d+\.\d", item):
                raise SettingsError(
                    f"compute_capability {item!r} is not a version. Write it as a string such as '8.9'."
                )
        if not values or len(set(values)) != len(values):
            raise SettingsError(
                f"compute_capability {values!r} is empty or repeats a version. Name each target once."
            )
        return values

    @property
    def compute_capabilities(self) -> tuple[str, ...]:
        """The named targets; empty when the engine is for the GPU at ``gpu_id``."""
        value = self.compute_capability
        return () if value is None else (value,) if isinstance(value, str) else value

    @property
    def torch_device(self) -> torch.device:
        """The CUDA device whose tensors the engine reads and writes."""
        return torch.device("cuda", self.gpu_id)

    @classmethod
    def from_any(
        cls, value: Device | str | torch.device | int | Mapping[str, Any] | None
    ) -> Device:
        """Reads a ``Device``, ``"cuda:1"``, a ``torch.device``, an ordinal, or a dictionary of fields.

        Raises:
            SettingsError: the value names no GPU, or a dictionary has an unknown field.
        """
        if value is None:
            return cls()
        if isinstance(value, Device):
            return value
        if isinstance(value, Mapping):
            _refuse_unknown(value, [f.name for f in dataclasses.fields(cls)], "Device")
            return cls(**value)
        if isinstance(value, int) and not isinstance(value, bool):
            return cls(gpu_id=value)
        if isinstance(value, str):
            try:
                value = torch.device(re.sub(r"^gpu\b", "cuda", value))
            except RuntimeError as error:
                raise SettingsError(
                    f"device {value!r} is not a device name. Use 'cuda:0' or a trtcompile.Device."
                ) from error
        if not isinstance(value, torch.device):
            raise SettingsError(
                f"device is a {type(value).__name__}. Use a trtcompile.Device, 'cuda:0', or a dictionary."
            )
        if value.type != "cuda":
            raise SettingsError(
                f"device is {str(value)!r}, but TensorRT engines run on CUDA GPUs. To build on a machine without one, "
                "use Device(compute_capability='8.9') with TensorRT-RTX."
            )
        return cls(gpu_id=value.index or 0)


@dataclass(frozen=True, kw_only=True)
class CompileSpec:
    """The settings of one compilation.

    Args:
        enabled_precisions: any set of ``torch.float32``, ``torch.float16``, and one of ``torch.int8`` and
            ``torch.float8_e4m3fn`` (``torch.float`` and ``torch.half`` are names of the first two). INT8 or FP8 goes
            where the placement rules put Q/DQ; FP16 is used elsewhere only if listed, else FP32.
        calibrator: gives the activation scales for INT8 or FP8: a calibrator of ``trtcompile.ptq``, or an object of a
            class derived from one of TensorRT's calibrators.
        smooth_quant: alpha of SmoothQuant, from 0 to 1, such as 0.5: moves outliers behind the norms of a transformer
            into the weights of the linear layers that read them, as ``trtcompile.ptq.smooth_quant`` describes. Runs the
            calibrator's data once more. The calibration table is for the smoothed model. None leaves it out.
        weight_only: ``"int8"`` or ``"int4"`` keeps the weights of linear layers (and, in INT8, of convolutions and
            other products with a constant) in that type; products stay in floating point. Makes engines smaller, needs
            no calibrator. None quantizes no weights of its own.
        device: a ``Device`` or anything that ``Device.from_any`` reads.
        min_block_size: when a model does not fit into one engine, engines with fewer operators than this
            are run by PyTorch instead.
        torch_executed_ops: operators left to PyTorch, as ``torch.ops`` overloads or names such as
            ``"aten.relu"`` (every overload) or ``"aten.relu.default"``.
        torch_executed_modules: modules left to PyTorch with all that they contain, by path: ``"encoder.layers.0"``, or
            a pattern such as ``"*.attention"``, in which ``*`` also stands for dots.
        torch_executed_nodes: operators left to PyTorch by the names that the report gives them, such as ``"relu_3"``.
        require_full_compilation: raises ``UnsupportedGraphError`` if anything would be left to PyTorch.
        keep_lowered: keeps the lowered graph, Q/DQ included, as ``compiled.lowered``.
        workspace_size: upper limit, in bytes, of the scratch memory that TensorRT may use; None for its default.
        optimization_level: builder effort from 0 (fast build) to 5 (fast engine); None for TensorRT's default.
        num_avg_timing_iters: how often TensorRT times each kernel, for an average to choose by. More make its choice
            depend less on chance. None for 8, as ``trtexec`` has it; TensorRT's own default is 1.
        max_aux_streams: on how many further CUDA streams an engine may run operators that do not wait for each other;
            0 for one stream. Each further one can make it need more memory. None for 1; with TensorRT-RTX for its own
            choice.
        timing_cache_file: file that keeps TensorRT's kernel timings between builds; None keeps none.
        use_cuda_graphs: replays each engine as a CUDA graph, captured once for each input shape.
        optimization_profiles: ranges that each engine is tuned for apart, as a list such as
            ``[{"batch": (1, 1, 1)}, {"batch": (2, 16, 32)}]``: min, opt, and max of named dimensions. ``forward`` takes
            the first profile that accepts the shapes. None tunes for the opt shapes of the inputs alone.
        int8_excluded_ops: operators that stay in floating point, named as in ``torch_executed_ops``.
        int8_excluded_modules: modules that stay in floating point, named as in ``torch_executed_modules``.
        int8_excluded_nodes: operators that stay in floating point, named as in ``torch_executed_nodes``.
        int8_first_layer: lets weighted operators with none in front of them be INT8.
        int8_last_layer: lets weighted operators with none behind them be INT8.
        int8_only_where_faster: with FP16, leaves convolutions and linear layers in FP16 that INT8 would make slower,
            by rules and a model of an H200; False quantizes them as well, as for a GPU that multiplies more slowly.

    Raises:
        SettingsError: a value has the wrong type, is out of range, or contradicts another.
    """

    enabled_precisions: frozenset[torch.dtype] = frozenset({torch.float32})
    calibrator: Any = None
    smooth_quant: float | None = None
    weight_only: str | None = None
    device: Device = dataclasses.field(default_factory=Device)
    min_block_size: int = 5
    torch_executed_ops: frozenset[str] = frozenset()
    torch_executed_modules: frozenset[str] = frozenset()
    torch_executed_nodes: frozenset[str] = frozenset()
    require_full_compilation: bool = False
    keep_lowered: bool = True
    workspace_size: int | None = None
    optimization_level: int | None = None
    num_avg_timing_iters: int | None = None
    max_aux_streams: int | None = None
    timing_cache_file: str | None = None
    use_cuda_graphs: bool = False
    optimization_profiles: tuple[tuple[tuple[str, SizeRange], ...], ...] | None = None
    int8_excluded_ops: frozenset[str] = frozenset()
    int8_excluded_modules: frozenset[str] = frozenset()
    int8_excluded_nodes: frozenset[str] = frozenset()
    int8_first_layer: bool = True
    int8_last_layer: bool = True
    int8_only_where_faster: bool = True

    def __post_init__(self) -> None:
        setattr_ = object.__setattr__
        setattr_(self, "enabled_precisions", as_precisions(self.enabled_precisions))
        setattr_(self, "device", Device.from_any(self.device))
        for name in ("torch_executed_ops", "int8_excluded_ops"):
            setattr_(self, name, _operator_names(name, getattr(self, name)))
        for name in (
            "torch_executed_modules",
            "torch_executed_nodes",
            "int8_excluded_modules",
            "int8_excluded_nodes",
        ):
            setattr_(self, name, _names(name, getattr(self, name)))
        _require_int("min_block_size", self.min_block_size, low=1)
        for name in (
            "require_full_compilation",
            "keep_lowered",
            "use_cuda_graphs",
            "int8_first_layer",
            "int8_last_layer",
            "int8_only_where_faster",
        ):
            _require_bool(name, getattr(self, name))
        if self.workspace_size is not None:
            _require_int("workspace_size", self.workspace_size, low=1)
        if self.optimization_level is not None:
            _require_int("optimization_level", self.optimization_level, low=0, high=5)
        if self.num_avg_timing_iters is not None:
            _require_int("num_avg_timing_iters", self.num_avg_timing_iters, low=1)
        if self.max_aux_streams is not None:
            _require_int("max_aux_streams", self.max_aux_streams, low=0)
        if self.timing_cache_file is not None:
            setattr_(self, "timing_cache_file", _path("timing_cache_file", self.timing_cache_file))
        if self.optimization_profiles is not None:
            setattr_(self, "optimization_profiles", _profiles(self.optimization_profiles))
        self._check_calibrator()
        if self.placement_options and self.quantized_dtype is None:
            raise SettingsError(
                f"{', '.join(self.placement_options)} was given, but enabled_precisions has no torch.int8, so it would "
                "have no effect. Add torch.int8 (or torch.float8_e4m3fn) to enabled_precisions or drop the option."
            )
        self._check_smooth_quant()
        self._check_weight_only()

    def _check_calibrator(self) -> None:
        if self.calibrator is not None and self.quantized_dtype is None:
            raise SettingsError(
                "a calibrator was given, but enabled_precisions has no torch.int8, so it would have no effect. Add "
                "torch.int8 (or torch.float8_e4m3fn) to enabled_precisions or drop the calibrator."
            )
        if isinstance(self.calibrator, type):
            name = self.calibrator.__name__
            raise SettingsError(
                f"calibrator is the class {name}, not an object of it. Make one: calibrator={name}(...)."
            )
        if self.calibrator is not None and not any(
            callable(getattr(self.calibrator, name, None)) for name in ("calibrate", "get_batch")
        ):
            raise SettingsError(
                f"calibrator is a {type(self.calibrator).__name__}, which is not a calibrator. Wrap a DataLoader as "
                "trtcompile.ptq.DataLoaderCalibrator(dataloader)."
            )

    def _check_smooth_quant(self) -> None:
        alpha = self.smooth_quant
        if alpha is None:
            return
        if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
            raise SettingsError(
                f"smooth_quant is {alpha!r}. Use a number from 0 to 1, such as 0.5, or None."
            )
        if not self.uses_int8:
            raise SettingsError(
                f"smooth_quant is {alpha!r}, but enabled_precisions has no torch.int8, so it would have no effect. Add "
                "torch.int8 to enabled_precisions, and a calibrator, or drop smooth_quant."
            )

    def _check_weight_only(self) -> None:
        if self.weight_only is None:
            return
        if self.weight_only not in WEIGHT_ONLY:
            raise SettingsError(
                f"weight_only is {self.weight_only!r}. Use {', '.join(map(repr, WEIGHT_ONLY))}, or None."
            )
        if self.quantized_dtype is not None:
            raise SettingsError(
                f"weight_only is {self.weight_only!r}, but enabled_precisions has {self.quantized_dtype}, whose "
                "products have weights of that type. Drop one of the two."
            )

    @property
    def placement_options(self) -> tuple[str, ...]:
        """The options about where Q/DQ go that are not at their defaults."""
        return tuple(
            field.name
            for field in dataclasses.fields(self)
            if field.name.startswith("int8_") and getattr(self, field.name) != field.default
        )

    @property
    def quantized_dtype(self) -> torch.dtype | None:
        """The dtype that Q/DQ are placed for; None where nothing is quantized."""
        return next((p for p in QUANTIZED_PRECISIONS if p in self.enabled_precisions), None)

    @property
    def uses_int8(self) -> bool:
        """Whether Q/DQ are placed for INT8."""
        return torch.int8 in self.enabled_precisions

    @property
    def uses_fp8(self) -> bool:
        """Whether Q/DQ are placed for FP8."""
        return torch.float8_e4m3fn in self.enabled_precisions

    @property
    def uses_fp16(self) -> bool:
        """Whether floating-point operators run in FP16."""
        return torch.float16 in self.enabled_precisions

    @classmethod
    def option_names(cls) -> tuple[str, ...]:
        """The names of all options."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_options(
        cls, options: Mapping[str, Any], *, spec: CompileSpec | None = None
    ) -> CompileSpec:
        """Makes a spec from plain options, on top of ``spec`` where one is given.

        Raises:
            SettingsError: an option is unknown (the nearest name is offered), or its value is refused.
        """
        _refuse_unknown(options, cls.option_names(), "trtcompile")
        if spec is not None and not isinstance(spec, CompileSpec):
            raise SettingsError(f"spec is a {type(spec).__name__}. Give a trtcompile.CompileSpec.")
        return cls(**options) if spec is None else dataclasses.replace(spec, **options)

    def describe(self) -> dict[str, Any]:
        """The settings as JSON-able values, for saved files and reports."""
        return {
            "enabled_precisions": sorted(
                str(p).removeprefix("torch.") for p in self.enabled_precisions
            ),
            "calibrator": None if self.calibrator is None else repr(self.calibrator),
            "smooth_quant": self.smooth_quant,
            "weight_only": self.weight_only,
            "device": {
                "device_type": self.device.device_type.name,
                "gpu_id": self.device.gpu_id,
                "disable_tf32": self.device.disable_tf32,
                "compute_capability": list(self.device.compute_capabilities) or None,
            },
            "min_block_size": self.min_block_size,
            "torch_executed_ops": sorted(self.torch_executed_ops),
            "torch_executed_modules": sorted(self.torch_executed_modules),
            "torch_executed_nodes": sorted(self.torch_executed_nodes),
            "require_full_compilation": self.require_full_compilation,
            "workspace_size": self.workspace_size,
            "optimization_level": self.optimization_level,
            "num_avg_timing_iters": self.num_avg_timing_iters,
            "max_aux_streams": self.max_aux_streams,
            "use_cuda_graphs": self.use_cuda_graphs,
            "optimization_profiles": None
            if self.optimization_profiles is None
            else [
                {name: list(sizes) for name, sizes in profile}
                for profile in self.optimization_profiles
            ],
            "int8_excluded_ops": sorted(self.int8_excluded_ops),
            "int8_excluded_modules": sorted(self.int8_excluded_modules),
            "int8_excluded_nodes": sorted(self.int8_excluded_nodes),
            "int8_first_layer": self.int8_first_layer,
            "int8_last_layer": self.int8_last_layer,
            "int8_only_where_faster": self.int8_only_where_faster,
        }


def _require_int(name: str, value: object, *, low: int, high: int | None = None) -> None:
    bounds = f"at least {low}" if high is None else f"from {low} to {high}"
    if not isinstance(value, int) or isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}, not an integer. Use a whole number {bounds}.")
    if value < low or (high is not None and value > high):
        raise SettingsError(f"{name} is {value}, out of range. Use a whole number {bounds}.")


def _require_bool(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise SettingsError(f"{name} is {value!r}, not a bool. Use True or False.")


def _path(name: str, value: object) -> str:
    path = os.fspath(value) if isinstance(value, (str, os.PathLike)) else None
    if not isinstance(path, str) or not path:
        raise SettingsError(f"{name} is {value!r}. Give the path of a file.")
    return path


def as_precisions(value: Any) -> frozenset[torch.dtype]:
    """Checks ``enabled_precisions``; a single dtype stands for a set of one.

    Raises:
        SettingsError: it is no set of supported dtypes.
    """
    if isinstance(value, torch.dtype):
        value = {value}
    try:
        precisions = frozenset(value)
    except TypeError:
        raise SettingsError(
            f"enabled_precisions is {value!r}. Use a set such as {{torch.float32, torch.int8}}."
        ) from None
    for precision in precisions:
        if precision not in SUPPORTED_PRECISIONS:
            raise SettingsError(
                f"enabled_precisions has {precision!r}. Use any of {_SPOKEN_PRECISIONS}."
            )
    if not precisions:
        raise SettingsError(
            f"enabled_precisions is empty. Name at least one of {_SPOKEN_PRECISIONS}."
        )
    if precisions.issuperset(QUANTIZED_PRECISIONS):
        raise SettingsError(
            "enabled_precisions has both torch.int8 and torch.float8_e4m3fn, and a product has one of them. Name the "
            "one that products are to be computed in."
        )
    return precisions


def _profiles(value: Any) -> tuple[tuple[tuple[str, SizeRange], ...], ...]:
    """Pairs, sorted, since dictionaries have no hash; pairs are taken again where a spec is copied."""
    is_list = isinstance(value, (list, tuple)) and len(value) > 0
    if not is_list or not all(map(_is_profile, value)):
        raise SettingsError(
            f"optimization_profiles is {value!r}. Use a list of dictionaries such as [{{'batch': (1, 1, 1)}}, "
            "{'batch': (2, 16, 32)}], or None."
        )
    return tuple(
        tuple(sorted((name, _size_range(name, sizes)) for name, sizes in dict(profile).items()))
        for profile in value
    )


def _is_profile(value: Any) -> bool:
    pairs = value.items() if isinstance(value, Mapping) else value
    return isinstance(value, (Mapping, tuple)) and all(
        isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) for pair in pairs
    )


def _size_range(name: str, sizes: Any) -> SizeRange:
    is_triple = isinstance(sizes, (list, tuple)) and len(sizes) == 3 and all(map(is_size, sizes))
    if not is_triple or not sizes[0] <= sizes[1] <= sizes[2]:
        raise SettingsError(
            f"optimization_profiles has {sizes!r} for {name!r}. Use whole numbers (min, opt, max) with min <= opt <= "
            "max."
        )
    return sizes[0], sizes[1], sizes[2]


def _names(option: str, value: Any) -> frozenset[str]:
    is_collection = isinstance(value, Iterable) and not isinstance(value, str)
    if not is_collection or any(not isinstance(name, str) or not name for name in value):
        raise SettingsError(f"{option} is {value!r}. Use a set of names.")
    return frozenset(value)


def _operator_names(option: str, value: Any) -> frozenset[str]:
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise SettingsError(
            f"{option} is {value!r}. Use a set of operators such as {{torch.ops.aten.relu.default}}."
        )
    names = set()
    for operator in value:
        name = operator if isinstance(operator, str) else str(operator)
        is_overload = isinstance(
            operator, (str, torch._ops.OpOverload, torch._ops.OpOverloadPacket)
        )
        name = name.removeprefix("torch.ops.")
        if not is_overload or not re.fullmatch(r"\w+\.\w+(\.\w+)?", name):
            raise SettingsError(
                f"{option} has {operator!r}, which is no operator. Use names such as 'aten.relu' or "
                "overloads such as torch.ops.aten.relu.default."
            )
        if not _operator_exists(name):
            raise SettingsError(
                f"{option} has {name!r}, which PyTorch does not define. Check the spelling; the report lists "
                "the operators of a model."
            )
        names.add(name)
    return frozenset(names)


def _operator_exists(name: str) -> bool:
    namespace, operator, *overload = name.split(".")
    packet = getattr(getattr(torch.ops, namespace), operator, None)
    return packet is not None and (not overload or overload[0] in packet.overloads())
