"""TensorRT 10's native calibrators beside ours, on the trained models of the accuracy benchmark.

    python benchmarks/native_comparison.py --devices 0 1 2 3
    python benchmarks/native_comparison.py --model vgg16
    python benchmarks/native_comparison.py --summarize benchmarks/results/native-comparison-*.json

For each model: our engine against its simulation; scales, tensor by tensor, of four native
calibrators and of ours from the same batches; accuracy of the native INT8 engines and of ours on
the same held-out images; and our calibration cache in the hands of TensorRT. Without ``--model``,
each model runs in a process of its own on one of the GPUs. The exit status is 1 if a bar is missed
or a part failed.
"""

from __future__ import annotations

import argparse
import copy
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import environment
import torch
from accuracy_data import load_fold, pixels
from accuracy_models import MODELS, trained
from accuracy_run import exact_kernels, logits_of
from engine_layers import expected_int8, int8_layer_count, int8_summary
from gpu_queue import Job, run_jobs
from metrics import sqnr_db, top1
from native_calibration import RecordingCalibrator, compare, read_cache
from native_summary import markdown, problems
from onnx_route import CALIBRATORS, build_onnx, export_onnx
from paired_flips import paired_flips
from reader_pairs import pair_readers, readers_of_onnx, renamed, with_group_mates
from result_file import read_result, write_result
from timing import PlanRunner
from workloads import with_example_on_path

import trtcompile
from trtcompile.errors import CalibrationError
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, DataLoaderCalibrator
from trtcompile.ptq.algorithms import options_of
from trtcompile.ptq.cache_file import format_text

KIND = "native comparison"
RESULTS = Path(__file__).resolve().parent / "results"
BATCH = 64
DEVICE = "cuda:0"  # the first one that the process sees
SECONDS_PER_MODEL = 480.0

#: Our algorithm for each native calibrator.
OURS = {
    "entropy2": CalibrationAlgo.ENTROPY_CALIBRATION_2,
    "minmax": CalibrationAlgo.MINMAX_CALIBRATION,
    "entropy": CalibrationAlgo.ENTROPY_CALIBRATION,
    "legacy": CalibrationAlgo.LEGACY_CALIBRATION,
}
#: For the native legacy calibrator, where ours has no defaults to share with it.
LEGACY_OPTIONS = {"quantile": 0.9999, "regression_cutoff": 1.0}


class Comparison:
    """One model; ``result`` grows part by part, and ``save`` gets it each time.

    Args:
        name: a key of ``MODELS``.
        options: the command line.
    """

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        with_example_on_path()
        from data import calibration_subset, require_disjoint

        self.options = options
        start = time.perf_counter()
        splits = load_fold(options.task, options.seed, 0, data_dir=options.data_dir, dense=True)
        chosen, indices = calibration_subset(
            splits.plain_train, min(options.images, len(splits.plain_train)), options.seed
        )
        require_disjoint(chosen, splits.test)
        self.model = trained(
            name,
            options.task,
            options.seed,
            0,
            splits.train,
            folder=options.checkpoints,
            device=DEVICE,
            steps=options.steps,
        )
        images = torch.stack([image for image, _ in chosen])
        images = images[: len(images) // BATCH * BATCH]  # native batches are full
        self.batches = [batch.contiguous().to(DEVICE) for batch in images.split(BATCH)]
        self.tests, labels = pixels(splits.test, DEVICE)
        self.labels = labels.cpu()
        self.shape = tuple(self.batches[0].shape)
        self.result: dict[str, Any] = {
            "kind": KIND,
            "environment": environment.describe(options.commit),
            "model": name,
            "task": options.task,
            "seed": options.seed,
            "calibration": {
                "images": len(images),
                "batch": BATCH,
                "indices": ",".join(map(str, indices[: len(images)])),
            },
            "test_images": len(self.labels),
            "optimization_level": options.optimization_level,
            "train_seconds": round(time.perf_counter() - start, 1),
            "native": {},
            "errors": [],
        }
        with exact_kernels():
            self.fp32 = logits_of(copy.deepcopy(self.model).to(DEVICE), self.tests, BATCH)
        self.result["fp32_accuracy"] = self._accuracy(self.fp32)
        self.timing_cache = b""

    def run(self) -> None:
        """All parts; one that fails is noted, and the others go on."""
        with exact_kernels():
            self._run()

    def _run(self) -> None:
        self._part("our engine", self._ours)
        if "ours" not in self.result:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what tracing says of the models' own code
            self.onnx = export_onnx(copy.deepcopy(self.model).to(DEVICE).eval(), self.batches[0])
        self._part("pairing tensors", self._pair)
        for algorithm in CALIBRATORS:
            self._part(f"native {algorithm}", lambda a=algorithm: self._native(a))
        if "tensors" in self.result:
            self._part("our cache in TensorRT", self._our_cache)

    def _part(self, name: str, part: Any) -> None:
        start = time.perf_counter()
        try:
            part()
        except Exception as error:  # noqa: BLE001 - the other parts are still worth having
            traceback.print_exc()
            self.result["errors"].append(f"{name}: {type(error).__name__}: {error}")
        print(f"{name}: {time.perf_counter() - start:.1f} s", flush=True)
        self.save()

    def save(self) -> None:
        write_result(output_file(self.options.output, self.result["model"]), self.result)

    def _ours(self) -> None:
        calibrator = DataLoaderCalibrator(self.batches, device=DEVICE, progress=False)
        self.recording = RecordingCalibrator(calibrator)
        compiled = trtcompile.compile(
            self.model,
            [trtcompile.Input(self.shape)],
            enabled_precisions={torch.float, torch.half, torch.int8},
            calibrator=self.recording,
            device=DEVICE,
            optimization_level=self.options.optimization_level,
            require_full_compilation=True,
        )
        self.tables = tables_of(calibrator)
        self.engine = logits_of(compiled, self.tests, BATCH)
        simulated = logits_of(copy.deepcopy(compiled.lowered).to(DEVICE), self.tests, BATCH)
        convolutions, linears = expected_int8(compiled.report)
        inspection = compiled.engine_modules[0].session().inspect()
        self.result["ours"] = {
            "algorithm": "entropy2",
            "accuracy": self._accuracy(self.engine),
            "flips": self._flips(self.engine),
            "simulation_accuracy": self._accuracy(simulated),
            "sqnr_db_against_fp32": sqnr_db(self.fp32, self.engine),
            "int8_layers": int8_summary(inspection, [*convolutions, *linears]),
        }
        self.result["parity"] = parity(simulated, self.engine)
        # What rounding to FP16 after each operator would make of it, as PyTorch does.
        network = copy.deepcopy(compiled.network_graph).to(DEVICE)
        rounded = logits_of(network, self.tests, BATCH)
        self.result["parity_with_rounding_operators"] = parity(rounded, self.engine)

    def _pair(self) -> None:
        self.pairs = pair_readers(self.recording.readers, readers_of_onnx(self.onnx))
        self.mates = with_group_mates(
            self.pairs, self.recording.groups, list(self.tables["entropy2"])
        )
        self.result["tensors"] = {
            "quantized": len(self.tables["entropy2"]),
            "share_a_scale_with_a_paired_one": self.mates,
        }

    def _native(self, algorithm: str) -> None:
        built = build_onnx(
            self.onnx,
            fp16=True,
            int8=True,
            batches=self.batches,
            algorithm=algorithm,
            algorithm_options=legacy_options(),
            optimization_level=self.options.optimization_level,
            timing_cache=self.timing_cache,
        )
        self.timing_cache = built.timing_cache
        runner = PlanRunner(built.plan, self.batches[0])
        logits = logits_of(runner.run, self.tests, BATCH)
        row: dict[str, Any] = {
            "accuracy": self._accuracy(logits),
            "flips": self._flips(logits),
            "sqnr_db_against_fp32": sqnr_db(self.fp32, logits),
            "int8_layers": int8_layer_count(runner.inspect()),
            "seconds": round(sum(built.stages.values()), 1),
            "cache": built.calibration_cache,
        }
        self.result["native"][algorithm] = row
        if "tensors" in self.result and algorithm in self.tables:
            native = read_cache(built.calibration_cache or "")
            ours = {n: s for n, s in self.tables[algorithm].items() if n not in self.mates}
            row["scales"] = compare(self.pairs, ours, native)
            for pair in row["scales"]["pairs"]:
                widest = self.tables["minmax"][pair["ours"]]
                pair["ours_of_minmax"] = pair["our_scale"] / widest
                pair["native_of_minmax"] = pair["native_scale"] / widest

    def _our_cache(self) -> None:
        """Our cache file for a network with our tensor names: TensorRT takes it and needs no batch."""
        ours_to_native = {ours: native for _, ours, native in self.pairs}
        names: dict[str, str] = {}
        for name in self.tables["entropy2"]:
            if name in ours_to_native:
                names.setdefault(ours_to_native[name], name)
        file = renamed(self.onnx, names)
        table = self.tables["entropy2"]
        wrong = CalibrationTable(
            {name: scale / 8 for name, scale in table.items()}, algo=table.algo
        )
        row: dict[str, Any] = {}
        for kind, cached in (("ours", table), ("ours with all scales / 8", wrong)):
            built = build_onnx(
                file,
                fp16=True,
                int8=True,
                batches=self.batches,
                cache=format_text(cached),
                optimization_level=self.options.optimization_level,
                timing_cache=self.timing_cache,
            )
            runner = PlanRunner(built.plan, self.batches[0])
            logits = logits_of(runner.run, self.tests, BATCH)
            row[kind] = {
                "batches_read": built.batches_read,
                "int8_layers": int8_layer_count(runner.inspect()),
                "accuracy": self._accuracy(logits),
                "sqnr_db_against_fp32": sqnr_db(self.fp32, logits),
                "top1_agreement_with_our_engine": top1(self.engine, logits).agreement,
            }
        self.result["our_cache"] = row

    def _accuracy(self, logits: torch.Tensor) -> float:
        return (logits.argmax(dim=1) == self.labels).double().mean().item()

    def _flips(self, logits: torch.Tensor) -> dict[str, Any]:
        flips = paired_flips(self.fp32.argmax(dim=1), logits.argmax(dim=1), self.labels)
        return {**asdict(flips), "difference": flips.difference, "interval_95": flips.interval_95}


def parity(simulated: torch.Tensor, computed: torch.Tensor) -> dict[str, float]:
    """How near an engine's logits are to a simulation's."""
    return {
        "top1_agreement": top1(simulated, computed).agreement,
        "sqnr_db": sqnr_db(simulated, computed),
        "largest_difference": (simulated - computed).abs().max().item(),
        "standard_deviation": simulated.std().item(),
    }


def tables_of(calibrator: DataLoaderCalibrator) -> dict[str, CalibrationTable]:
    """Our tables for those native algorithms that we have, from one pass."""
    tables = {}
    for name, algo in OURS.items():
        try:
            tables[name] = calibrator.table(algo)
        except CalibrationError as error:
            print(f"{name}: {error}", flush=True)
    return tables


def legacy_options() -> dict[str, float]:
    """What the native legacy calibrator is told: the defaults of ours, so that both do the same."""
    try:
        options = dict(options_of(CalibrationAlgo.LEGACY_CALIBRATION))
    except CalibrationError:
        options = {}
    return {name: options.get(name, default) for name, default in LEGACY_OPTIONS.items()}


def output_file(output: Path, model: str) -> Path:
    """Where a model's result goes."""
    return output if output.suffix == ".json" else output / f"native-comparison-{model}.json"


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", choices=list(MODELS), help="one model, in this process")
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--summarize", nargs="+", type=Path, metavar="FILE")
    parser.add_argument("--devices", nargs="+", metavar="GPU", default=["0"])
    parser.add_argument("--time-limit", type=float, metavar="SECONDS", help="for all models")
    parser.add_argument("--task", choices=["crops", "digits", "cifar10"], default="crops")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="training steps; default: each model's own")
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument(
        "--optimization-level",
        type=int,
        default=2,
        help="builder effort; it changes kernels and not scales (default: %(default)s)",
    )
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="holds CIFAR-10")
    parser.add_argument("--checkpoints", type=Path, default=Path("build/accuracy"))
    parser.add_argument("--logs", type=Path, default=Path("build/native-comparison"))
    parser.add_argument("--commit", help="the commit to name, where git cannot tell")
    parser.add_argument("--output", type=Path, default=RESULTS, help="a folder, or a .json file")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse_arguments(arguments)
    if options.summarize is not None:
        return summarize(options.summarize)
    if options.model is None:
        return run_models(options, sys.argv[1:] if arguments is None else list(arguments))
    if not torch.cuda.is_available():
        sys.exit("The native calibrators need an NVIDIA GPU and TensorRT 10.")
    comparison = Comparison(options.model, options)
    comparison.run()
    return summarize([output_file(options.output, options.model)])


def run_models(options: argparse.Namespace, arguments: Sequence[str]) -> int:
    """Each model in a process of its own."""
    jobs = [
        Job(
            f"native-comparison-{name}",
            [sys.executable, __file__, *arguments, "--model", name],
            SECONDS_PER_MODEL,
            needs=60.0,
        )
        for name in options.models
    ]
    for done in run_jobs(jobs, options.devices, options.logs, options.time_limit):
        print(
            f"{done.job.name}: {done.seconds:.0f} s, {done.problem or 'all bars met'}", flush=True
        )
    files = [output_file(options.output, name) for name in options.models]
    return summarize([file for file in files if file.is_file()], of=len(files))


def summarize(files: Sequence[Path], of: int | None = None) -> int:
    """Prints the tables and what is wrong."""
    results = [read_result(file, KIND) for file in files]
    print(f"\n{markdown(results)}")
    found = [f"{result['model']}: {p}" for result in results for p in problems(result)]
    for problem in found:
        print(f"PROBLEM: {problem}")
    return 1 if found or len(files) < (of or 0) else 0


if __name__ == "__main__":
    sys.exit(main())
