"""Throughput of calibration next to the model's plain PyTorch forward, and its peak memory.

    python benchmarks/calibration_throughput.py --model resnet50 --batch 32
    python benchmarks/calibration_throughput.py --model resnet18 --batch 32 --size 64 --device cpu

Both sides run the same batches, which are on the device already: ``model(batch)`` without gradients,
and the statistics that a calibration collects, its own setup included. Rounds alternate; the ratio
is plain time over calibration time of the same round, and the exit status is 1 if its median is
below the bar of 0.85. A run takes 32 batches, with 32 images each a usual calibration set; how long
it takes until it asks for the first one, which does not depend on their number, is also given apart.
Peak memory is that of a process that calibrates with 4 or 64 batches from a
loader that makes them: on a GPU what PyTorch allocates, on the CPU the resident set.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import environment
import torch
import torchvision
from metrics import spread
from result_file import write_result
from torch import Tensor, nn
from workloads import randomize

from trtcompile import compiler
from trtcompile.inputs import Input, parse_inputs
from trtcompile.ptq import CalibrationTable, Calibrator
from trtcompile.ptq.collect import collect
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.settings import CompileSpec

BAR = 0.85
MEMORY_BATCHES = (4, 64)
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class _Recorder(Calibrator):
    """Keeps the request; the compilation ends there."""

    class DoneError(Exception):
        """The request is here."""

    def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
        self.request = request
        raise self.DoneError


def request_for(model: nn.Module, shape: tuple[int, ...]) -> CalibrationRequest:
    """What the compiler asks of a calibrator for a model."""
    recorder = _Recorder()
    captured = compiler.capture(
        model, parse_inputs([Input(shape)]), undecomposed=compiler.undecomposed_operators()
    )
    spec = CompileSpec(enabled_precisions={torch.float, torch.int8}, calibrator=recorder)
    try:
        compiler.prepare(captured, spec)
    except _Recorder.DoneError:
        return recorder.request
    raise RuntimeError("nothing in this model is quantized")


def model_of(name: str) -> nn.Module:
    """One of torchvision's models with random weights, in eval mode."""
    model = torchvision.models.get_model(name, weights=None).eval()
    randomize(model, seed=0)
    return model


class Images:
    """A loader that makes its batches; each pass gives the same ones."""

    def __init__(self, batches: int, shape: tuple[int, ...]) -> None:
        self.batches, self.shape = batches, shape

    def __iter__(self) -> Iterator[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(self.shape, generator=generator) for _ in range(self.batches))


class TimedStart:
    """Batches, and how long after its making the first one is asked for."""

    def __init__(self, batches: Sequence[Tensor]) -> None:
        self._batches = batches
        self._made = time.perf_counter()
        self.seconds = 0.0

    def __iter__(self) -> Iterator[Tensor]:
        self.seconds = time.perf_counter() - self._made
        yield from self._batches


def seconds_of(run: Callable[[], object], device: torch.device) -> float:
    """How long a run takes, until the device is done."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    wait()
    start = time.perf_counter()
    run()
    wait()
    return time.perf_counter() - start


def measure_throughput(options: argparse.Namespace) -> dict[str, Any]:
    """Times both sides in turns."""
    device, shape = torch.device(options.device), shape_of(options)
    model = model_of(options.model)
    request = request_for(model, shape)
    model = model.to(device)
    batches = [batch.to(device) for batch in Images(options.batches, shape)]

    def plain() -> None:
        with torch.no_grad():
            for batch in batches:
                model(batch)

    setups = []

    def calibration() -> None:
        timed = TimedStart(batches)
        collect(request, timed, device=device)
        setups.append(timed.seconds)

    sides = {"plain": plain, "calibration": calibration}
    for run in sides.values():
        run()  # chooses algorithms, fills caches
    rounds = []
    for number in range(options.rounds):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        rounds.append({name: seconds_of(sides[name], device) for name in order})
    ratios = [times["plain"] / times["calibration"] for times in rounds]
    images = options.batches * options.batch
    return {
        "tensors": len(request.names),
        "rounds_seconds": rounds,
        "setup_seconds": setups[1:],
        "ratio": spread(ratios),
        "images_per_second": {
            name: images / statistics.median(times[name] for times in rounds) for name in sides
        },
    }


def measure_memory(options: argparse.Namespace, batches: int) -> dict[str, int]:
    """Bytes at the peak of a calibration, in this process, and before it."""
    device, shape = torch.device(options.device), shape_of(options)
    request = request_for(model_of(options.model), shape)
    _forget_peak(device)
    before = _peak_bytes(device)
    collect(request, Images(batches, shape), device=device)
    return {"before": before, "peak": _peak_bytes(device)}


def _forget_peak(device: torch.device) -> None:
    """The peak starts anew; on the CPU only Linux can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif CLEAR_REFS.exists():
        CLEAR_REFS.write_text("5")


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if CLEAR_REFS.exists():
        status = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def memory_in_new_process(options: argparse.Namespace, batches: int) -> dict[str, int]:
    """``measure_memory`` in a process of its own: a peak cannot be taken back."""
    command = [sys.executable, str(Path(__file__).resolve()), "--memory", str(batches)]
    for name in ("model", "batch", "size", "device"):
        command += [f"--{name}", str(getattr(options, name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"a measurement failed:\n{done.stderr}")
    measured: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return measured


def shape_of(options: argparse.Namespace) -> tuple[int, int, int, int]:
    return (options.batch, 3, options.size, options.size)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not at least 1")
    return value


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="resnet50", help="a name in torchvision.models")
    parser.add_argument("--batch", type=_positive, default=32)
    parser.add_argument("--size", type=_positive, default=224, help="height and width of images")
    parser.add_argument("--batches", type=_positive, default=32)
    parser.add_argument("--rounds", type=_positive, default=5)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--no-tf32", action="store_true", help="FP32 products in FP32 on a GPU")
    parser.add_argument("--no-memory", action="store_true", help="leave out the peak memory")
    parser.add_argument(
        "--memory", type=_positive, help="measure memory in this process, print JSON alone"
    )
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    parser.add_argument(
        "--output", type=Path, help="default: results/calibration-MODEL-DEVICE.json"
    )
    options = parser.parse_args(arguments)
    if options.output is None:
        results = Path(__file__).resolve().parent / "results"
        device = torch.device(options.device).type
        options.output = results / f"calibration-{options.model}-{device}.json"
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.memory:
        print(json.dumps(measure_memory(options, options.memory)))
        return 0
    if options.no_tf32:
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    result: dict[str, Any] = {
        "kind": "calibration throughput",
        "environment": environment.describe(options.commit),
        "settings": {
            "model": options.model,
            "batch": options.batch,
            "size": options.size,
            "batches": options.batches,
            "device": options.device,
            "threads": torch.get_num_threads(),
            "tf32": {
                "matmul": torch.backends.cuda.matmul.allow_tf32,
                "cudnn": torch.backends.cudnn.allow_tf32,
            },
        },
        "load_average_before": os.getloadavg()[0],
        "bar": BAR,
        **measure_throughput(options),
    }
    if not options.no_memory:
        result["memory_bytes"] = {
            str(batches): memory_in_new_process(options, batches) for batches in MEMORY_BATCHES
        }
    write_result(options.output, result)
    ratio = result["ratio"]["median"]
    speeds = ", ".join(f"{k} {v:.1f}" for k, v in result["images_per_second"].items())
    print(f"{options.model} on {options.device}: {ratio:.3f} of plain; images/s: {speeds}")
    setup = statistics.median(result["setup_seconds"])
    print(f"setup, in the time of each calibration: {1000 * setup:.1f} ms")
    for batches, measured in result.get("memory_bytes", {}).items():
        before, peak = (measured[name] / 2**20 for name in ("before", "peak"))
        print(f"{batches} batches: {before:.0f} MiB before, {peak:.0f} MiB at the peak")
    print(f"wrote {options.output}")
    return 0 if ratio >= BAR else 1


if __name__ == "__main__":
    sys.exit(main())
