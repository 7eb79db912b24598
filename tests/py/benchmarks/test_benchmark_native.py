"""The native comparison as far as it goes without TensorRT 10, and commands on several GPUs."""

from __future__ import annotations

import copy
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import native_comparison
import pytest
import torch
from accuracy_models import MODELS
from data import ImageDataset, Splits
from gpu_queue import Job, run_jobs
from native_calibration import RecordingCalibrator, read_cache
from native_comparison import OURS, legacy_options, tables_of
from native_summary import markdown, problems
from onnx_route import CALIBRATORS, RouteBuild, export_onnx, native_calibrator
from reader_pairs import pair_readers, readers_of_onnx, renamed, with_group_mates
from result_file import read_result
from simulation import simulation
from tensor_pairs import PairingError
from workloads import random_images, settle_norms

from trtcompile.ptq import DataLoaderCalibrator

BATCH = 2


class Pairing:
    """A small model on both sides.

    Args:
        name: a key of ``MODELS``.
    """

    def __init__(self, name: str) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.model = MODELS[name].build(0.125).eval()
        images = random_images(BATCH, 32, seed=0)
        settle_norms(self.model, images)
        self.calibrator = DataLoaderCalibrator([images], progress=False)
        self.recording = RecordingCalibrator(self.calibrator)
        shape = tuple(images.shape)
        self.graph = simulation(self.model, shape, self.recording, {torch.float, torch.int8})
        self.onnx = self.export(self.model)

    def export(self, model: torch.nn.Module) -> bytes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return export_onnx(model, random_images(BATCH, 32, seed=0))


@pytest.fixture(scope="module")
def resnet() -> Pairing:
    pytest.importorskip("onnx", reason="needs onnx: pip install 'trtcompile[bench]'")
    return Pairing("resnet18")


@pytest.mark.parametrize("name", ["mobilenet_v2", "densenet", "vit"])
def test_every_quantized_tensor_has_a_native_counterpart_or_shares_a_scale_with_one(name):
    pytest.importorskip("onnx", reason="needs onnx: pip install 'trtcompile[bench]'")
    pytest.importorskip("timm" if name == "vit" else "torchvision")
    model = Pairing(name)
    pairs = pair_readers(model.recording.readers, readers_of_onnx(model.onnx))
    table = model.calibrator.table()
    mates = with_group_mates(pairs, model.recording.groups, list(table))
    assert set(table) - {ours for _, ours, _ in pairs} == set(mates)
    assert all(table[name] == table[mate] for name, mate in mates.items())


def test_paired_tensors_hold_the_same_values(resnet):
    """Of every pair, the largest value of our tensor over a batch is that of the ONNX file's."""
    import onnx
    from onnx.reference import ReferenceEvaluator

    pairs = pair_readers(resnet.recording.readers, readers_of_onnx(resnet.onnx))
    table = resnet.calibrator.table(OURS["minmax"])
    model = onnx.load_model_from_string(resnet.onnx)
    wanted = [native for _, ours, native in pairs if ours in table and native != "input"]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in dict.fromkeys(wanted))
    images = random_images(BATCH, 32, seed=0).numpy()
    evaluator = ReferenceEvaluator(model)
    values = dict(zip(evaluator.output_names, evaluator.run(None, {"input": images}), strict=True))
    values["input"] = images
    groups = {name: group for group in resnet.recording.groups for name in group}
    compared = 0
    for _, ours, native in pairs:
        if ours in table and len(groups[ours]) == 1:
            assert abs(values[native]).max() / 127 == pytest.approx(table[ours], rel=1e-4)
            compared += 1
    assert compared >= 20


def test_other_weights_and_missing_operators_are_not_paired(resnet):
    theirs = readers_of_onnx(resnet.onnx)
    other = copy.deepcopy(resnet.model)
    with torch.no_grad():
        other.layer2[0].conv1.weight[0, 0, 0, 0] += 0.5
    with pytest.raises(PairingError, match="0 counterparts"):
        pair_readers(resnet.recording.readers, readers_of_onnx(resnet.export(other)))
    with pytest.raises(PairingError, match="0 counterparts"):
        pair_readers(resnet.recording.readers, theirs[1:])
    with pytest.raises(PairingError, match="2 counterparts"):
        pair_readers(resnet.recording.readers, [*theirs, theirs[0]])
    convolution = next(index for index, reader in enumerate(theirs) if reader.weight is not None)
    ours = [r for r in resnet.recording.readers if r.writes != "convolution_3"]
    with pytest.raises(PairingError, match="no counterpart"):
        pair_readers(ours, theirs)
    pools = [r for r in theirs if r.kind == "average_pool"]
    assert len(pools) == 1 and convolution == 0
    with pytest.raises(PairingError, match="1 average pools on one side, 0"):
        pair_readers(resnet.recording.readers, [reader for reader in theirs if reader not in pools])


def test_a_renamed_file_computes_the_same(resnet):
    import onnx
    from onnx.reference import ReferenceEvaluator

    pairs = pair_readers(resnet.recording.readers, readers_of_onnx(resnet.onnx))
    names = {native: ours for _, ours, native in pairs}
    file = renamed(resnet.onnx, names)
    model = onnx.load_model_from_string(file)
    onnx.checker.check_model(model)
    assert model.graph.input[0].name == "input_0"
    there = {name for node in model.graph.node for name in (*node.input, *node.output)}
    assert {ours for _, ours, _ in pairs} <= there
    images = random_images(BATCH, 32, seed=1).numpy()
    before = ReferenceEvaluator(onnx.load_model_from_string(resnet.onnx)).run(
        None, {"input": images}
    )
    after = ReferenceEvaluator(model).run(None, {"input_0": images})
    assert (before[0] == after[0]).all()
    with pytest.raises(PairingError, match="other tensors named"):
        renamed(resnet.onnx, {"input": model.graph.initializer[0].name})


def test_tables_of_all_native_algorithms_that_we_have(resnet):
    tables = tables_of(resnet.calibrator)
    assert set(OURS) == set(CALIBRATORS)
    assert {"entropy2", "minmax", "entropy"} <= set(tables)
    for name, table in tables.items():
        assert table.algo is OURS[name]


class StubBase:
    def __init__(self) -> None:
        pass


def test_the_legacy_calibrator_answers_what_it_is_asked():
    options = legacy_options()
    assert set(options) == {"quantile", "regression_cutoff"}
    batches = random_images(4, 32, seed=0).split(2)
    calibrator = native_calibrator(StubBase, batches, options=options)
    assert calibrator.get_quantile() == options["quantile"]
    assert calibrator.get_regression_cutoff() == options["regression_cutoff"]
    assert calibrator.read_histogram_cache(8) is None


def test_a_given_cache_is_handed_out_and_batches_are_counted():
    batches = random_images(4, 32, seed=0).split(2)
    calibrator = native_calibrator(StubBase, batches, b"TRT-100600-EntropyCalibration2\n")
    assert calibrator.read_calibration_cache() == b"TRT-100600-EntropyCalibration2\n"
    assert calibrator.batches_read == 0
    assert [calibrator.get_batch([]) is None for _ in range(3)] == [False, False, True]
    assert calibrator.batches_read == 2


def result(**changes: Any) -> dict[str, Any]:
    """A model's result in which every bar is met, but for the changes."""
    pair = {"ours": "relu", "ratio": 1.005, "ours_of_minmax": 0.5, "native_of_minmax": 0.5}
    scales = {
        "pairs": [pair],
        "ratio": {"count": 1, "median": 1.005, "p5": 1.0, "p95": 1.01},
        "not_in_native_cache": [],
        "ours_without_pair": [],
    }
    made: dict[str, Any] = {
        "model": "vgg16",
        "test_images": 5000,
        "fp32_accuracy": 0.95,
        "ours": {"accuracy": 0.949, "int8_layers": {"expected": 13, "INT8": 13}},
        "parity": {"top1_agreement": 0.998, "sqnr_db": 31.0},
        "native": {
            "entropy2": {"accuracy": 0.95, "scales": {**scales, "pairs": [{**pair, "ratio": 1.5}]}},
            "minmax": {"accuracy": 0.948, "scales": scales},
        },
        "our_cache": {
            "ours": {"batches_read": 0, "accuracy": 0.949, "sqnr_db_against_fp32": 30.0},
            "ours with all scales / 8": {"accuracy": 0.3, "sqnr_db_against_fp32": 2.0},
        },
        "errors": [],
    }
    return {**made, **changes}


def minmax(**changes: Any) -> dict[str, Any]:
    native = result()["native"]
    return {"minmax": {**native["minmax"], "scales": {**native["minmax"]["scales"], **changes}}}


def cache(kind: str, **changes: Any) -> dict[str, Any]:
    made = result()["our_cache"]
    return {**made, kind: {**made[kind], **changes}}


def test_a_result_that_meets_every_bar_has_no_problems():
    assert problems(result()) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parity": {"top1_agreement": 0.9969, "sqnr_db": 31.0}}, "99.69% only"),
        ({"parity": {"top1_agreement": 1.0, "sqnr_db": 29.9}}, "29.9 dB"),
        ({"native": {"entropy": {"accuracy": 0.9511}}}, "0.21 points below native entropy"),
        ({"native": minmax(pairs=[{"ours": "relu", "ratio": 1.011}])}, "1.011 times"),
        ({"native": minmax(ours_without_pair=["relu_7"])}, "relu_7 has no native"),
        ({"our_cache": cache("ours", batches_read=8)}, "TensorRT calibrated although"),
        (
            {"our_cache": cache("ours with all scales / 8", sqnr_db_against_fp32=29.0)},
            "runs nothing in INT8",
        ),
        ({"errors": ["native legacy: no"]}, "native legacy: no"),
        ({"parity": None}, "was not run"),
    ],
)
def test_each_missed_bar_is_told(changes, message):
    (problem,) = problems(result(**changes))
    assert message in problem


def test_the_tables_say_what_was_measured_and_what_was_not():
    other = result(model="vit", native={"entropy2": {"accuracy": 0.94}})
    text = markdown([result(), other])
    assert "| vgg16 | 5000 | 95.00 | 94.90 | 95.00 | 94.80 | -0.10 |" in text
    assert "| vit | 5000 | 95.00 | 94.90 | 94.00 | not run | +0.90 |" in text
    assert (
        "| vgg16 | 99.80 % | 31.0 | 13 of 13 | 0 batches read, 94.90 %; scales / 8: 30.00 % |"
        in text
    )
    assert "| vgg16 | minmax | 1 | 1.005 | 1.000 | 1.010 | 0 |" in text
    assert "| vgg16 | entropy2 | relu | 1.500 | 0.500 | 0.500 |" in text
    assert "| vgg16 | minmax | relu |" not in text


def python(name: str, code: str, seconds: float = 20.0, needs: float = 0.0) -> Job:
    return Job(name, [sys.executable, "-c", code], seconds, needs)


def test_jobs_run_one_at_a_time_on_each_gpu(tmp_path):
    show = "import os, time; time.sleep(0.2); print(os.environ['CUDA_VISIBLE_DEVICES'])"
    jobs = [python(f"job{number}", show) for number in range(4)]
    done = list(run_jobs(jobs, ["3", "5"], tmp_path))
    assert {one.job.name for one in done} == {job.name for job in jobs}
    assert all(one.problem is None and one.seconds > 0.2 for one in done)
    assert {(tmp_path / f"{job.name}.log").read_text().strip() for job in jobs} == {"3", "5"}


def test_failures_and_the_end_of_the_time_are_told(tmp_path):
    jobs = [
        python("bad", "print('why'); raise SystemExit(3)"),
        python("slow", "import time; time.sleep(60)", seconds=0.5),
        python("large", "", needs=100.0),
    ]
    problems = {
        one.job.name: one.problem for one in run_jobs(jobs, [None], tmp_path, time_limit=50.0)
    }
    assert problems["bad"] == "exit status 3"
    assert (tmp_path / "bad.log").read_text() == "why\n"
    assert problems["slow"] == "killed after 0 s" or problems["slow"] == "killed after 1 s"
    assert problems["large"].startswith("not begun")


def test_each_model_gets_a_process_of_its_own(tmp_path, monkeypatch):
    ran: list[Job] = []

    def run_jobs(jobs: list[Job], *_: Any) -> list[Any]:
        ran.extend(jobs)
        return []

    monkeypatch.setattr(native_comparison, "run_jobs", run_jobs)
    arguments = ["--models", "vgg16", "vit", "--output", str(tmp_path), "--images", "64"]
    assert native_comparison.main(arguments) == 1  # no result was written
    assert [job.command[-2:] for job in ran] == [["--model", "vgg16"], ["--model", "vit"]]
    again = native_comparison.parse_arguments(ran[1].command[2:])
    assert (again.model, again.images, again.output) == ("vit", 64, Path(tmp_path))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
def test_one_model_needs_a_gpu():
    with pytest.raises(SystemExit, match="GPU"):
        native_comparison.main(["--model", "vgg16"])


class StubRunner:
    """Computes what the model computes, with a mistake where the scales are wrong."""

    def __init__(self, plan: bytes, example: torch.Tensor) -> None:
        self.error = 5.0 if plan == b"wrong" else 0.01

    def run(self, batch: torch.Tensor) -> torch.Tensor:
        logits = STUB["model"](batch)
        return logits + self.error * logits.roll(1, dims=0)

    def inspect(self) -> str:
        return '{"Layers": [{"Inputs": [{"Format/Datatype": "Int8"}]}, {"Inputs": []}]}'


STUB: dict[str, Any] = {}


@pytest.fixture
def on_the_cpu(resnet: Pairing, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The comparison of a small model, with stand-ins for everything that needs TensorRT or a GPU."""
    STUB["model"] = resnet.model
    builds: list[dict[str, Any]] = []
    images = (random_images(96, 32, seed=5) * 40 + 128).clamp(0, 255).to(torch.uint8)
    train = ImageDataset(images, torch.arange(96) % 10, torch.arange(96))
    test = ImageDataset(images.flip(0)[:40], torch.arange(40) % 10, torch.arange(40) + 96)

    def compile_stub(model: Any, inputs: Any, **options: Any) -> Any:
        shape = inputs[0].opt_shape
        lowered = simulation(model, shape, options["calibrator"], {torch.float, torch.int8})
        session = SimpleNamespace(inspect=lambda: '{"Layers": [{"Name": "x", "Inputs": []}]}')
        module = SimpleNamespace(session=lambda: session)
        report = SimpleNamespace(rows=())

        class Compiled:
            engine_modules = (module,)

            def __call__(self, batch: torch.Tensor) -> Any:
                return lowered(batch)

        compiled = Compiled()
        compiled.lowered = compiled.network_graph = lowered  # type: ignore[attr-defined]
        compiled.report = report  # type: ignore[attr-defined]
        return compiled

    def build_stub(file: bytes, **options: Any) -> RouteBuild:
        builds.append({"file": file, **options})
        given = options.get("cache")
        if given is None:
            readers = readers_of_onnx(file)
            text = "\n".join(f"{name}: 3c000000" for name in {r.reads for r in readers})
            return RouteBuild(b"", {"build": 1.0}, f"TRT-100600-X\n{text}\n", 1, b"timing")
        scales = [read_cache(given.decode()), read_cache(builds[-2].get("cache", given).decode())]
        wrong = scales[0]["input_0"] < scales[1]["input_0"]
        return RouteBuild(b"wrong" if wrong else b"", {"build": 1.0}, None, 0, b"timing")

    monkeypatch.setattr(native_comparison, "DEVICE", "cpu")
    monkeypatch.setattr(native_comparison, "load_fold", lambda *_, **__: Splits(train, train, test))
    monkeypatch.setattr(native_comparison, "trained", lambda *_, **__: resnet.model)
    monkeypatch.setattr(native_comparison.trtcompile, "compile", compile_stub)
    monkeypatch.setattr(native_comparison, "build_onnx", build_stub)
    monkeypatch.setattr(native_comparison, "PlanRunner", StubRunner)
    return builds


@pytest.mark.filterwarnings("ignore:.*TracerWarning")
def test_a_comparison_has_all_parts(on_the_cpu, tmp_path, monkeypatch):
    monkeypatch.setattr(native_comparison.environment, "describe", lambda _: {})
    options = native_comparison.parse_arguments(["--images", "70", "--output", str(tmp_path)])
    native_comparison.Comparison("resnet18", options).run()
    file = tmp_path / "native-comparison-resnet18.json"
    made = read_result(file, native_comparison.KIND)
    assert native_comparison.summarize([file]) == 1  # the made-up scales are wrong
    assert made["errors"] == []
    assert set(made["native"]) == set(CALIBRATORS)
    assert made["calibration"]["images"] == 64 and made["test_images"] == 40
    assert len(made["calibration"]["indices"].split(",")) == 64
    assert made["parity"] == {**made["parity"], "top1_agreement": 1.0, "sqnr_db": 200.0}
    for name, native in made["native"].items():
        assert native["int8_layers"] == 1
        assert native["sqnr_db_against_fp32"] > 20
        if name in ("entropy2", "minmax"):
            assert native["scales"]["ours_without_pair"] == []
            assert {pair["native_scale"] for pair in native["scales"]["pairs"]} == {2.0**-7}
            assert native["scales"]["pairs"][0]["ours_of_minmax"] <= 1.0 + 1e-6
    assert made["our_cache"]["ours"]["batches_read"] == 0
    found = made["our_cache"]["ours with all scales / 8"]["sqnr_db_against_fp32"]
    assert found < made["our_cache"]["ours"]["sqnr_db_against_fp32"] - 20
    timing = [build["timing_cache"] for build in on_the_cpu]
    assert timing == [b""] + [b"timing"] * 5
    assert all(build["fp16"] and build["int8"] for build in on_the_cpu)


def test_a_part_that_fails_leaves_the_others(on_the_cpu, tmp_path, monkeypatch):
    def fails(*_: Any) -> Any:
        raise PairingError("they differ")

    monkeypatch.setattr(native_comparison.environment, "describe", lambda _: {})
    monkeypatch.setattr(native_comparison, "pair_readers", fails)
    options = native_comparison.parse_arguments(["--model", "resnet18", "--output", str(tmp_path)])
    comparison = native_comparison.Comparison("resnet18", options)
    comparison.run()
    assert comparison.result["errors"] == ["pairing tensors: PairingError: they differ"]
    assert set(comparison.result["native"]) == set(CALIBRATORS)
    assert "our_cache" not in comparison.result
