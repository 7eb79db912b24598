"""One row of the latency benchmark: several builds of each side, measured in turns, saved as it goes."""

from __future__ import annotations

import copy
import statistics
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from contenders import Built, Contender
from engine_layers import int8_summary
from metrics import sqnr_db, top1, worst_sqnr_db
from timing import interleave
from torch import nn
from workloads import Workload

LONG_BUILD_SECONDS = 60.0  # one build of a side is enough if it takes longer
HOST_SHARE = 0.8  # of the device time; above it, launches may not keep the device busy

MakeRunner = Callable[[bytes, torch.Tensor], Any]


@dataclass(frozen=True)
class Settings:
    """How a row is measured.

    Attributes:
        builds: independent builds of each side; one of a side whose build takes over a minute.
        rounds: interleaved turns after each pass of builds.
        seconds_per_turn: the length of one engine's turn.
        samples_per_turn: samples in one turn, whose median is the turn's result.
        layers: also time each layer of each side's first engine.
    """

    builds: int = 3
    rounds: int = 7
    seconds_per_turn: float = 0.3
    samples_per_turn: int = 10
    layers: bool = False


class Row:
    """Measures one model at one batch size.

    Each pass builds every side once and then times the latest engines of all sides in turns, so
    that every build of ours meets a build of the reference on the same warm GPU.

    Args:
        workload: the model and its data.
        contenders: the sides.
        settings: how to measure.
        make_runner: makes a runner from a plan and an example batch: ``PlanRunner``.
        save: called with the result whenever there is more of it.
        seconds_left: how long the process may still run; None for no limit.
        clocks: reads the GPU's clocks.
        device: where the outputs are compared.
    """

    def __init__(
        self,
        workload: Workload,
        contenders: Sequence[Contender],
        settings: Settings,
        *,
        make_runner: MakeRunner,
        save: Callable[[Mapping[str, Any]], None],
        seconds_left: Callable[[], float] | None = None,
        clocks: Callable[[], dict[str, str]] = dict,
        device: str = "cuda:0",
    ) -> None:
        self._workload = workload
        self._contenders = contenders
        self._settings = settings
        self._make_runner = make_runner
        self._save = save
        self._seconds_left = seconds_left
        self._clocks = clocks
        self._model = _copy_to(workload.model, device)
        self._batches = [b.to(device) for b in workload.evaluation.split(workload.batch)]
        self._runners: dict[str, Any] = {}
        self.result: dict[str, Any] = {
            "kind": "latency",
            "row": {
                "model": workload.name,
                "batch": workload.batch,
                "input_shape": list(workload.input_shape),
                "weights": f"random, seed {workload.seed}",
                "calibration_images": len(workload.calibration),
                "evaluation_images": len(workload.evaluation),
            },
            "settings": asdict(settings),
            "contenders": {
                c.name: {"description": c.description, "builds": [], "notes": []}
                for c in contenders
            },
            "clocks_after_pass": [],
            "finished": False,
        }

    def measure(self) -> bool:
        """Runs all passes; False if a side failed or computes something else."""
        reference = self._outputs(self._model)
        for number in range(1, self._settings.builds + 1):
            due = [contender for contender in self._contenders if self._is_due(contender, number)]
            built = [contender for contender in due if self._build(contender, number, reference)]
            if not built:
                break
            self._time(number)
        self.result["finished"] = True
        self._save(self.result)
        entries = self.result["contenders"].values()
        checks = [build["checks"]["passed"] for entry in entries for build in entry["builds"]]
        return all(checks) and not any("error" in entry for entry in entries)

    def _is_due(self, contender: Contender, number: int) -> bool:
        entry = self.result["contenders"][contender.name]
        if "error" in entry:
            return False
        longest = max((build["seconds"] for build in entry["builds"]), default=0.0)
        if longest > LONG_BUILD_SECONDS:
            return False
        if self._seconds_left is None or self._seconds_left() > 1.2 * longest + self._turns_seconds:
            return True
        needed = f"{longest:.0f} s for it" if longest else "time for it"
        entry["notes"].append(f"build {number} left out: the time limit leaves no {needed}")
        return False

    @property
    def _turns_seconds(self) -> float:
        settings = self._settings
        return settings.rounds * len(self._contenders) * settings.seconds_per_turn

    def _build(self, contender: Contender, number: int, reference: torch.Tensor) -> bool:
        entry = self.result["contenders"][contender.name]
        # The engine of the pass before is not needed any more, and its memory may be.
        self._runners.pop(contender.name, None)
        try:
            built = contender.build(self._workload, self._model)
            runner = self._make_runner(built.plan, self._batches[0])
            build = {
                "number": number,
                "seconds": round(built.seconds, 3),
                "stages": {name: round(value, 3) for name, value in built.stages.items()},
                "calibrated": built.calibrated,
                "reused": built.reused,
                "plan_bytes": len(built.plan),
                "checks": self._check(contender, built, self._outputs(runner.run), reference),
                "int8_layers": int8_summary(runner.inspect(), built.int8_operators, built.left_out),
                "rounds": [],
            }
            runner.run(self._batches[0])  # what the timed replays compute on
        except Exception as error:  # noqa: BLE001 - the other sides are still worth measuring
            traceback.print_exc()
            entry["error"] = f"{type(error).__name__}: {error}"
            print(f"{contender.name}: FAILED: {error}", flush=True)
            self._save(self.result)
            return False
        entry["builds"].append(build)
        self._runners[contender.name] = runner
        checks = build["checks"]
        print(
            f"{contender.name}, build {number}: {built.seconds:.1f} s "
            f"({built.stages['before_builder']:.1f} s before the builder), "
            f"{len(built.plan) / 1e6:.1f} MB, {checks['sqnr_db']:.1f} dB against {checks['against']}"
            f"{'' if checks['passed'] else ': OUTPUTS DIFFER'}, "
            f"INT8 layers: {build['int8_layers']}",
            flush=True,
        )
        self._save(self.result)
        return True

    def _check(
        self, contender: Contender, built: Built, outputs: torch.Tensor, eager: torch.Tensor
    ) -> dict[str, Any]:
        expected, against = eager, "eager FP32"
        if built.simulation is not None:
            simulation = built.simulation.to(self._batches[0].device)
            expected, against = self._outputs(simulation), "the simulation"
        agreement = top1(expected, outputs)
        sqnr, worst = sqnr_db(expected, outputs), worst_sqnr_db(expected, outputs)
        # Beside eager FP32, what INT8 costs one image is part of the comparison.
        judged = sqnr if built.simulation is None else worst
        return {
            "against": against,
            "sqnr_db": round(sqnr, 2),
            "sqnr_db_of_the_worst_image": round(worst, 2),
            "sqnr_db_against_eager": round(sqnr_db(eager, outputs), 2),
            "top1_agreement": round(agreement.agreement, 4),
            "top1_counts": agreement.counts,
            "minimum_sqnr_db": contender.minimum_sqnr_db,
            "passed": judged >= contender.minimum_sqnr_db,
        }

    def _outputs(self, function: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
        with torch.no_grad():
            return torch.cat([function(batch).float() for batch in self._batches])

    def _time(self, number: int) -> None:
        start = time.perf_counter()
        measured = interleave(
            self._runners,
            rounds=self._settings.rounds,
            seconds=self._settings.seconds_per_turn,
            samples=self._settings.samples_per_turn,
        )
        # Read at once, while the GPU is still at the clocks it worked with.
        self.result["clocks_after_pass"].append({"pass": number, **self._clocks()})
        for name, rounds in measured.items():
            latest = self.result["contenders"][name]["builds"][-1]
            latest["rounds"] += [{"pass": number, **one.as_json()} for one in rounds]
            host_ms = statistics.median(one.host_ms for one in rounds)
            if host_ms > HOST_SHARE * statistics.median(one.median_ms for one in rounds):
                note = f"pass {number}: enqueuing takes {host_ms:.3f} ms, so the host may limit it"
                self.result["contenders"][name]["notes"].append(note)
        if self._settings.layers and number == 1:
            for name, runner in self._runners.items():
                self.result["contenders"][name]["builds"][-1]["layers"] = runner.layers()
        medians = {n: statistics.median(one.median_ms for one in r) for n, r in measured.items()}
        spoken = ", ".join(f"{name} {ms:.4f} ms" for name, ms in medians.items())
        print(f"pass {number}: {spoken}; {time.perf_counter() - start:.1f} s", flush=True)
        self._save(self.result)


def _copy_to(model: nn.Module, device: str) -> nn.Module:
    return copy.deepcopy(model).to(device).eval()
