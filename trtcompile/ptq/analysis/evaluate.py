"""What a simulation's outputs are worth with some of its layers quantized."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from trtcompile.ptq.analysis.data import LoaderBatch
from trtcompile.ptq.analysis.noise import OutputNoiseRatio, decibels
from trtcompile.ptq.analysis.scores import Metric, Score
from trtcompile.ptq.analysis.switched import SwitchedSimulation


@dataclass(frozen=True)
class Quality:
    """How good outputs are.

    Attributes:
        metric: the value of the metric; in dB for ``"sqnr"``.
        sqnr_db: SQNR of the centred outputs against those without quantization.
        noise_share: the power of that noise over the signal's.
    """

    metric: float
    sqnr_db: float
    noise_share: float


class Evaluation:
    """Measures several choices of quantized layers in one pass over data.

    Args:
        simulation: what to run; for each batch once without quantization, and once for each choice.
        choices: names of the layers that are quantized.
        metric: see ``analyze``.
    """

    def __init__(
        self,
        simulation: SwitchedSimulation,
        choices: Sequence[Collection[str]],
        metric: Metric,
    ) -> None:
        self._simulation = simulation
        self._choices = choices
        self._noises = [OutputNoiseRatio() for _ in choices]
        self._scores: list[Score] = []
        if metric != "sqnr":
            self._scores = [Score(metric, _out_spec(simulation)) for _ in range(len(choices) + 1)]

    def add(self, batch: LoaderBatch) -> None:
        """Runs one batch of the loader.

        Raises:
            SettingsError: the metric gives no number.
            CalibrationError: the model fails on the batch, or the metric is NaN or infinite.
        """
        references = self._outputs(batch, ())
        if self._scores:
            self._scores[-1].add(references, references, batch.given, batch.samples)
        for index, on in enumerate(self._choices):
            outputs = self._outputs(batch, on)
            self._noises[index].add(references, outputs)
            if self._scores:
                self._scores[index].add(outputs, references, batch.given, batch.samples)

    def _outputs(self, batch: LoaderBatch, on: Collection[str]) -> list[Any]:
        return batch.joined([self._simulation.outputs(piece, on) for piece in batch.pieces])

    @property
    def reference(self) -> float:
        """The metric without quantization; for ``"sqnr"`` 200 dB, which stands for no difference."""
        return self._scores[-1].value if self._scores else decibels(1.0, 0.0)

    @property
    def results(self) -> list[Quality]:
        """One for each choice."""
        return [
            Quality(
                metric=self._scores[index].value if self._scores else noise.db,
                sqnr_db=noise.db,
                noise_share=noise.noise_share,
            )
            for index, noise in enumerate(self._noises)
        ]


def _out_spec(simulation: SwitchedSimulation) -> Any:
    """The structure of the graph's outputs."""
    codegen: Any = simulation.graph_module.graph._codegen
    return codegen.pytree_info.out_spec
