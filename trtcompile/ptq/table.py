"""``CalibrationTable``: the activation scale of each tensor, and where it came from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from trtcompile.errors import CalibrationError
from trtcompile.ptq.algorithms import MAX_SCALE, MIN_SCALE, CalibrationAlgo


@dataclass(frozen=True)
class Provenance:
    """Which graph and how much data the scales of a table came from.

    Attributes:
        graph_hash: identifies the whole calibrated graph.
        fingerprints: tensor name -> hash of everything that computes the tensor.
        amax: tensor name -> the largest absolute value that the scale represents.
        samples: how many samples were run.
        algo_options: the numbers that the algorithm was given.
    """

    graph_hash: str
    fingerprints: Mapping[str, str]
    amax: Mapping[str, float]
    samples: int
    algo_options: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "algo_options", dict(self.algo_options))
        object.__setattr__(self, "fingerprints", dict(self.fingerprints))
        object.__setattr__(self, "amax", dict(self.amax))


class CalibrationTable(Mapping[str, float]):
    """An immutable mapping from tensor name to scale: ``real value = scale * 8-bit integer``.

    Scales are rounded to float32, which is what TensorRT takes and cache files hold.

    Args:
        scales: tensor name -> scale.
        algo: the algorithm that chose the scales.
        provenance: where they came from; None if that is unknown or unverified.

    Raises:
        CalibrationError: a name is empty or spans lines, a scale is not a positive normal float32,
            or an argument has the wrong type.
    """

    def __init__(
        self,
        scales: Mapping[str, float],
        *,
        algo: CalibrationAlgo,
        provenance: Provenance | None = None,
    ) -> None:
        if not isinstance(scales, Mapping):
            raise CalibrationError(
                f"The calibration table's scales are a {type(scales).__name__}. Give a dictionary from tensor name to "
                "scale."
            )
        if not isinstance(algo, CalibrationAlgo):
            raise CalibrationError(
                f"The calibration table's algo is {algo!r}. Give a CalibrationAlgo, such as "
                "CalibrationAlgo.MINMAX_CALIBRATION."
            )
        checked = {}
        for name, scale in scales.items():
            problem = problem_of_name(name) or problem_of_scale(scale)
            if problem is not None:
                raise CalibrationError(
                    f"The calibration table's entry {name!r}: {problem}. Give amax / 127 for each tensor name."
                )
            checked[name] = float(np.float32(scale))
        self._scales: Mapping[str, float] = MappingProxyType(checked)
        self._algo = algo
        self._provenance = provenance

    @property
    def algo(self) -> CalibrationAlgo:
        """The algorithm that chose the scales."""
        return self._algo

    @property
    def provenance(self) -> Provenance | None:
        """Where the scales came from; None if that is unknown or unverified."""
        return self._provenance

    def __getitem__(self, name: str) -> float:
        return self._scales[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._scales)

    def __len__(self) -> int:
        return len(self._scales)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, CalibrationTable):
            return NotImplemented
        return self.algo is other.algo and dict(self) == dict(other)

    def __hash__(self) -> int:
        return hash((self.algo, frozenset(self.items())))

    def __repr__(self) -> str:
        origin = (
            "unknown origin" if self.provenance is None else f"{self.provenance.samples} samples"
        )
        return f"CalibrationTable({len(self)} scales, {self.algo.name}, {origin})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (
            dict(self),
            self.algo,
            self.provenance,
        )  # a mapping proxy cannot be pickled


def _rebuild(
    scales: dict[str, float], algo: CalibrationAlgo, provenance: Provenance | None
) -> CalibrationTable:
    return CalibrationTable(scales, algo=algo, provenance=provenance)


def problem_of_name(name: object) -> str | None:
    """Why a tensor name cannot stand in a table, or None if it can."""
    if not isinstance(name, str) or not name.strip():
        return "the name is empty or no string"
    if "\n" in name or "\r" in name:
        return "the name spans several lines"
    return None


def problem_of_scale(scale: Any) -> str | None:
    """Why something cannot be a scale, or None if it can."""
    try:
        value = float(scale)
    except (TypeError, ValueError, RuntimeError):  # of a tensor that has several elements
        return f"the scale is a {type(scale).__name__}, not one number"
    if MIN_SCALE <= value <= MAX_SCALE:
        return None
    return f"the scale {value:g} is not a positive normal float32 number"
