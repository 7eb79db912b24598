"""The ONNX route as far as it goes without TensorRT 10, and pairing its tensors with ours."""

from __future__ import annotations

import copy
import math

import contenders
import pytest
import torch
from native_calibration import compare, is_good, our_tables, read_cache
from onnx_route import (
    INPUT_NAME,
    OUTPUT_NAME,
    RouteBuild,
    RouteError,
    build_route,
    export_onnx,
    native_calibrator,
    parse,
)
from stages import BUILDER
from tensor_pairs import PairingError, pair, tensors_of_onnx
from torch import nn
from workloads import Workload, random_images, randomize, with_example_on_path

from trtcompile import _tensorrt
from trtcompile.ptq import CalibrationAlgo
from trtcompile.ptq.cache_file import format_text
from trtcompile.settings import Device

BATCH = 2


@pytest.fixture(scope="module")
def vgg16() -> nn.Module:
    with_example_on_path()
    from vgg import VGG16

    model = VGG16(width=0.125).eval()
    randomize(model, seed=0)
    return model


@pytest.fixture(scope="module")
def onnx_file(vgg16) -> bytes:
    pytest.importorskip("onnx", reason="needs onnx: pip install 'trtcompile[bench]'")
    return export_onnx(vgg16, random_images(BATCH, 32, seed=0))


@pytest.fixture(scope="module")
def ours(vgg16):
    batches = random_images(2 * BATCH, 32, seed=0).split(BATCH)
    return our_tables(vgg16, batches, torch.device("cpu"))


def test_export_folds_batch_norms_and_names_bindings(onnx_file):
    import onnx

    model = onnx.load_model_from_string(onnx_file)
    assert model.opset_import[0].version == 17
    assert [value.name for value in model.graph.input] == [INPUT_NAME]
    assert [value.name for value in model.graph.output] == [OUTPUT_NAME]
    kinds = [node.op_type for node in model.graph.node]
    assert kinds.count("Conv") == 13
    assert "BatchNormalization" not in kinds


def test_tensorrt_parses_the_export(onnx_file):
    trt = _tensorrt.load().trt
    logger = _tensorrt.new_logger()
    builder = trt.Builder(logger)
    network, _parser = parse(builder, onnx_file, logger)
    assert tuple(network.get_input(0).shape) == (BATCH, 3, 32, 32)
    names = {
        network.get_layer(i).get_output(0).name: network.get_layer(i).type
        for i in range(network.num_layers)
    }
    # The names that a calibration cache will have.
    for tensor in tensors_of_onnx(onnx_file):
        assert tensor.kind == "input" or tensor.name in names, tensor
    with pytest.raises(RouteError, match="refused"):
        parse(builder, b"not onnx", logger)


@pytest.mark.skipif(
    _tensorrt.load().has_native_calibrators, reason="is about TensorRTs without calibrators"
)
def test_route_names_the_tensorrt_it_needs(vgg16):
    with pytest.raises(RouteError, match="Use TensorRT 10"):
        build_route(vgg16, random_images(1, 32, seed=0), fp16=True, int8=False)


class StubBase:
    def __init__(self) -> None:
        self.is_initialized = True


def test_native_calibrator_hands_out_each_batch_once():
    batches = random_images(6, 32, seed=0).split(2)
    calibrator = native_calibrator(StubBase, batches)
    assert calibrator.is_initialized
    assert calibrator.get_batch_size() == 2
    assert calibrator.read_calibration_cache() is None
    pointers = [calibrator.get_batch(["input"]) for _ in range(4)]
    assert pointers == [[batch.data_ptr()] for batch in batches] + [None]
    calibrator.write_calibration_cache(memoryview(b"TRT-100600-EntropyCalibration2\n"))
    assert calibrator.cache == b"TRT-100600-EntropyCalibration2\n"
    assert calibrator.finished >= calibrator.started > 0


@pytest.mark.parametrize("batches", [[], [torch.zeros(2, 3).half()], [torch.zeros(3, 2).t()]])
def test_native_calibrator_refuses_what_a_pointer_cannot_describe(batches):
    with pytest.raises(ValueError, match="contiguous float32"):
        native_calibrator(StubBase, batches)


def test_pairs_follow_the_structure(ours, onnx_file):
    tables, tensors = ours
    pairs = pair(tensors, tensors_of_onnx(onnx_file))
    native = {
        kind: [p[2] for p in pairs if p[0] == kind] for kind in dict.fromkeys(p[0] for p in pairs)
    }
    assert pairs[0] == ("input", "input_0", INPUT_NAME)
    assert native["relu"][0] == "/features/features.2/Relu_output_0"
    assert native["max_pool"][4] == "/features/features.43/MaxPool_output_0"
    assert native["flatten"] == ["/Flatten_output_0"]
    assert native["linear"][2] == OUTPUT_NAME
    assert len(pairs) == 1 + 13 + 15 + 5 + 1 + 3
    for table in tables.values():
        assert set(table) <= {our_name for _, our_name, _ in pairs}


def test_other_weights_are_not_paired(ours, vgg16, onnx_file):
    other = copy.deepcopy(vgg16)
    with torch.no_grad():
        other.features[24].weight[0, 0, 0, 0] += 0.5
    exported = export_onnx(other, random_images(BATCH, 32, seed=0))
    with pytest.raises(PairingError, match=r"differs in the weight\.(.|\n)*> +\d+ convolution"):
        pair(ours[1], tensors_of_onnx(exported))


def test_missing_and_differently_shaped_tensors_are_not_paired(ours, vgg16, onnx_file):
    tensors, theirs = ours[1], tensors_of_onnx(onnx_file)
    with pytest.raises(PairingError, match="being there at all"):
        pair(tensors, theirs[:-1])
    with pytest.raises(PairingError, match="differs in kind"):
        pair([*tensors[:2], *tensors[1:]], theirs)
    exported = export_onnx(vgg16, random_images(BATCH + 1, 32, seed=0))
    with pytest.raises(PairingError, match="tensor 0 differs in shape"):
        pair(tensors, tensors_of_onnx(exported))


def test_our_tables_are_those_of_the_calibrators(ours):
    tables, tensors = ours
    assert tables["entropy2"].algo is CalibrationAlgo.ENTROPY_CALIBRATION_2
    assert tables["minmax"].algo is CalibrationAlgo.MINMAX_CALIBRATION
    assert set(tables["entropy2"]) == set(tables["minmax"])
    images = random_images(2 * BATCH, 32, seed=0)
    # The graph's input is known without running anything.
    assert tables["minmax"]["input_0"] == pytest.approx(images.abs().max().item() / 127, rel=1e-6)
    assert any(tables["entropy2"][n] < 0.999 * tables["minmax"][n] for n in tables["minmax"])
    assert tensors[0].name == "input_0"


def test_caches_are_read_as_written(ours):
    table = ours[0]["minmax"]
    assert read_cache(format_text(table).decode()) == dict(table)
    odd = "TRT-100600-MinMaxCalibration\n(Unnamed Layer* 3) [Constant]_output: 7f800000\na: b: 00000000\n"
    assert read_cache(odd) == {"(Unnamed Layer* 3) [Constant]_output": math.inf, "a: b": 0.0}


PAIRS = [("input", "input_0", "input"), ("convolution", "conv", "/c"), ("relu", "relu", "/r")]


def test_comparison_lists_every_pair_and_what_has_none():
    ours_scales = {"input_0": 0.02, "relu": 0.011, "extra": 1.0}
    comparison = compare(PAIRS, ours_scales, {"input": 0.02, "/c": 0.5, "/r": 0.01})
    assert [(row["ours"], row["native"]) for row in comparison["pairs"]] == [
        ("input_0", "input"),
        ("relu", "/r"),
    ]
    assert [row["ratio"] for row in comparison["pairs"]] == pytest.approx([1.0, 1.1])
    assert comparison["ratio"]["max"] == pytest.approx(1.1)
    assert comparison["ours_without_pair"] == ["extra"]
    assert comparison["native_only"] == ["/c"]
    assert not is_good("entropy2", comparison)


@pytest.mark.parametrize("scale", [None, 0.0, math.inf, math.nan])
def test_native_scale_that_is_none_counts_as_missing(scale):
    native = {"input": 0.02} if scale is None else {"input": 0.02, "/r": scale}
    comparison = compare(PAIRS, {"input_0": 0.02, "relu": 0.011}, native)
    assert [row["ours"] for row in comparison["not_in_native_cache"]] == ["relu"]
    assert not is_good("minmax", comparison)


@pytest.mark.parametrize(("ratio", "minmax"), [(1.009, True), (0.991, True), (1.011, False)])
def test_minmax_has_to_agree_within_one_percent_and_entropy_does_not(ratio, minmax):
    comparison = compare(
        PAIRS, {"input_0": 0.02, "relu": 0.01 * ratio}, {"input": 0.02, "/r": 0.01}
    )
    assert is_good("minmax", comparison) is minmax
    assert is_good("entropy2", comparison)


def test_comparison_of_nothing_is_not_good():
    assert not is_good("entropy2", compare(PAIRS, {}, {}))


@pytest.mark.parametrize("int8", [True, False])
def test_our_side_builds_and_tells_its_stages(vgg16, int8):
    flavour = _tensorrt.load()
    images = random_images(2 * BATCH, 32, seed=0)
    workload = Workload("vgg16", vgg16, BATCH, images, images, seed=0)
    precisions = {torch.float, torch.half} | ({torch.int8} if int8 else set())
    device = Device(compute_capability="8.9") if flavour.builds_ahead_of_time else Device()
    built = contenders.build_ours(workload, precisions, device)
    assert len(built.plan) > 10_000
    assert 0 < built.stages[BUILDER] < built.seconds
    assert built.stages["before_builder"] == pytest.approx(built.seconds - built.stages[BUILDER])
    assert len(built.int8_operators) == (13 if int8 else 0)
    with torch.no_grad():
        simulated, eager = built.simulation(images[:BATCH]), vgg16(images[:BATCH])
    assert simulated.shape == eager.shape
    assert torch.equal(simulated, eager) is False


def test_route_calibrates_once_for_all_batch_sizes(tmp_path, monkeypatch):
    given = []

    def build_route(*_, cache: bytes | None, **__) -> RouteBuild:
        given.append(cache)
        written = "scales" if cache is None else None
        return RouteBuild(b"plan", {"build": 1.0}, written)

    monkeypatch.setattr(contenders, "build_route", build_route)
    images = torch.zeros(4, 1)
    built = []
    for name, batch in (("a", 1), ("a", 2), ("b", 2), ("b", 1)):
        model = nn.Linear(1, 1)
        workload = Workload(name, model, batch, images, images, seed=0)
        built.append(contenders.build_onnx(workload, model, int8=True, caches=tmp_path / "new"))
    assert given == [None, b"scales", None, b"scales"]
    assert [one.calibrated for one in built] == [True, False, True, False]
    contenders.build_onnx(workload, model, int8=False, caches=tmp_path / "new")
    contenders.build_onnx(workload, model, int8=True)
    assert given[4:] == [None, None]


@pytest.mark.gpu
@pytest.mark.parametrize("algorithm", ["entropy2", "minmax"])
def test_route_builds_calibrates_and_its_minmax_is_ours(vgg16, onnx_file, algorithm):
    if not _tensorrt.load().has_native_calibrators:
        pytest.skip("this TensorRT has no native calibrators: use TensorRT 10")
    batches = [b.cuda() for b in random_images(4 * BATCH, 32, seed=0).split(BATCH)]
    on_gpu = copy.deepcopy(vgg16).cuda()
    route = build_route(
        on_gpu,
        batches[0],
        fp16=True,
        int8=True,
        batches=batches,
        algorithm=algorithm,
        optimization_level=0,
    )
    assert set(route.stages) == {"export", "parse", "build", "calibrate"}
    native = read_cache(route.calibration_cache)
    tables, tensors = our_tables(vgg16, batches, torch.device("cuda:0"))
    comparison = compare(pair(tensors, tensors_of_onnx(onnx_file)), tables[algorithm], native)
    assert is_good(algorithm, comparison), comparison
