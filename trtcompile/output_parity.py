"""``output_parity``: what an engine gives, against the simulation's outputs, sample by sample."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.utils import _pytree as pytree

from trtcompile.errors import CalibrationError
from trtcompile.node_info import layer_name
from trtcompile.parity import engine_arguments, graph_with_outputs, is_floating, require_runnable
from trtcompile.ptq.analysis.noise import NoiseRatio
from trtcompile.ptq.arguments import check_max_batches, device_of
from trtcompile.ptq.batches import fit_batches
from trtcompile.ptq.collect import samples_of
from trtcompile.ptq.interpreter import DeviceInterpreter
from trtcompile.ptq.random_state import kept_random_state
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
    check_max_batches(max_batches)
    where = device_of(device)
    lowered = compiled.lowered
    require_runnable(compiled)
    output = next(iter(reversed(lowered.graph.nodes)))
    computed = {
        place: node
        for place, node in enumerate(pytree.tree_leaves(output.args[0]))
        if isinstance(node, Node) and node.op == "call_function" and is_floating(node)
    }
    simulation = DeviceInterpreter(graph_with_outputs(lowered, list(computed.values())), where)
    compared = {place: _Compared() for place in computed}
    with kept_random_state():
        batches = itertools.islice(loader, max_batches)
        for batch in fit_batches(batches, compiled.arguments, where):
            with torch.no_grad():
                expected = simulation.run(*batch.tensors)
            actual = pytree.tree_leaves(_run(compiled, batch.tensors))
            for (place, one), reference in zip(compared.items(), expected, strict=True):
                one.add(
                    samples_of(reference.cpu(), batch),
                    samples_of(actual[place].cpu(), batch),
                    batch.valid,
                )
    if not all(one.samples for one in compared.values()):
        raise CalibrationError(
            "The data has no samples. Give a dataloader with at least one batch that has rows."
        )
    # An output that is cast back to FP32 goes by the name of what is cast.
    return {
        layer_name(computed[place]).partition("/")[0]: one.result for place, one in compared.items()
    }


class _Compared:
    """One output of the samples so far."""

    def __init__(self) -> None:
        self.samples = 0
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
            self._worst = min(self._worst, (one.db, self.samples + place))
        self.samples += samples

    @property
    def result(self) -> OutputParity:
        return OutputParity(self._noise.db, *self._worst)


def _run(compiled: TRTModule, tensors: tuple[Tensor, ...]) -> Any:
    """What a module gives for flat inputs."""
    arguments = engine_arguments(compiled, tensors)
    positional = len(arguments) - compiled.keywords
    names = compiled.argument_names[len(compiled.argument_names) - compiled.keywords :]
    keywords = dict(zip(names, arguments[positional:], strict=True))
    return compiled(*arguments[:positional], **keywords)
