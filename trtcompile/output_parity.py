"""``output_parity``: what an engine gives, against the simulation's outputs, sample by sample."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from trtcompile.beside_simulation import (
    checked_device,
    compare_batches,
    named_outputs,
    output_of,
    run_flat,
)
from trtcompile.ptq.analysis.noise import NoiseRatio
from trtcompile.runtime import TRTModule


@dataclass(frozen=True)
class OutputParity:
    """One output of an engine beside the simulation's.

    Attributes:
        sqnr_db: SQNR of the engine against the simulation over all samples in dB, from -200 to 200.
        worst_db: the same of the sample that differs most.
        worst_sample: which one that is, counted from 0 in the loader's order.
    """

    sqnr_db: float
    worst_db: float
    worst_sample: int


def output_parity(
    compiled: TRTModule,
    loader: Iterable[Any],
    *,
    max_batches: int | None = 1,
    device: torch.device | str = "cpu",
) -> dict[str, OutputParity]:
    """Compares the outputs of a compiled module with those of its simulation.

    It asks whether TensorRT built what it was told to: of some networks it has built engines that are wrong for part of
    a batch, which accuracy on the simulation cannot show. A right engine has 30 to 60 dB for each sample. Nothing is
    built; ``layer_parity`` builds another engine, which may be right where this one is not.

    Args:
        compiled: a module that can run on this machine, with ``keep_lowered=True``.
        loader: yields batches as for ``DataLoaderCalibrator``.
        max_batches: how many batches of the loader to use; None for all.
        device: where the simulation runs. A GPU may compute FP32 products in TF32, which shows.

    Returns:
        Name of each floating-point output that the model computes -> how near it is, in the order of the outputs.

    Raises:
        EngineLoadError: engines cannot run on this machine.
        SettingsError: an argument has the wrong type or value.
        CalibrationError: the data has no samples, or they do not fit.
        AttributeError: ``compiled`` has no lowered graph.
    """
    where = checked_device(compiled, max_batches, device)
    outputs = named_outputs(compiled.lowered)
    leaves = pytree.tree_leaves(output_of(compiled.lowered).args[0])
    places = [leaves.index(node) for node in outputs]
    compared = [_Compared() for _ in outputs]

    def run(inputs: tuple[Tensor, ...]) -> list[Tensor]:
        values = run_flat(compiled, inputs)
        return [values[place] for place in places]

    def add(pairs: list[tuple[Tensor, Tensor]], samples: int) -> None:
        for one, (reference, value) in zip(compared, pairs, strict=True):
            one.add(reference, value, samples)

    compare_batches(compiled, list(outputs), run, add, loader, max_batches, where)
    return {name: one.result for name, one in zip(outputs.values(), compared, strict=True)}


class _Compared:
    """One output of the samples so far."""

    def __init__(self) -> None:
        self._samples = 0
        self._noise = NoiseRatio()
        self._worst: tuple[float, int] = (float("inf"), 0)

    def add(self, reference: Tensor, actual: Tensor, samples: int) -> None:
        """Counts a batch; an output that has no rows for each sample counts as one sample's."""
        self._noise.add(reference, actual)
        apart = reference.dim() > 0 and samples > 0 and len(reference) % samples == 0
        count = samples if apart else 1
        for place in range(count):
            one = NoiseRatio()
            one.add(reference.reshape(count, -1)[place], actual.reshape(count, -1)[place])
            self._worst = min(self._worst, (one.db, self._samples + place))
        self._samples += samples

    @property
    def result(self) -> OutputParity:
        return OutputParity(self._noise.db, *self._worst)
