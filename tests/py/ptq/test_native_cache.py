"""Caches that TensorRT wrote: every tensor gets the scale that TensorRT measured for it.

Min-max scales depend on nothing but the values of a tensor, so ours tell whether an entry was matched rightly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from native_models import FIXTURES, MODELS, export_onnx, request_of

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.ptq import CacheCalibrator, CalibrationAlgo, CalibrationTable
from trtcompile.ptq.cache_file import read_cache
from trtcompile.ptq.native_cache import match_cache
from trtcompile.ptq.request import CalibrationRequest

MINMAX = CalibrationAlgo.MINMAX_CALIBRATION
EXPORTED = ("vgg", "resnet18", "squeezenet", "encoder", "vit", "bert")

_KNOWN: dict[str, Any] = {}


def known(name: str) -> tuple[CalibrationRequest, CalibrationTable]:
    """The request of a model, and our min-max scales on the data that TensorRT had."""
    if name not in _KNOWN:
        model, batches = MODELS[name]()
        _KNOWN[name] = request_of(model, batches[0], batches)
    found: tuple[CalibrationRequest, CalibrationTable] = _KNOWN[name]
    return found


def assert_same_values(name: str, table: CalibrationTable) -> None:
    request, ours = known(name)
    assert set(table) == set(request.names)
    for tensor in request.names:
        assert table[tensor] == pytest.approx(ours[tensor], rel=1e-3), tensor


@pytest.mark.parametrize("name", [*EXPORTED, "api_chain", "api_residual"])
def test_every_tensor_gets_its_own_scale(name: str) -> None:
    calibrator = CacheCalibrator(FIXTURES / f"{name}.minmax.cache", algo_type=MINMAX)
    with pytest.warns(CalibrationWarning, match="used unverified"):
        table = calibrator.calibrate(known(name)[0])
    assert_same_values(name, table)
    assert table.provenance is None
    report = calibrator.report
    assert report is not None and report.is_complete
    scales = read_cache(calibrator.cache_file).table
    assert {m.tensor: m.scale for m in report.matched} == dict(table)
    assert {m.entry for m in report.matched} | set(report.unused) == set(scales)
    assert not {m.entry for m in report.matched} & set(report.unused)


@pytest.mark.parametrize("name", ["vgg", "encoder", "vit"])
def test_the_onnx_file_tells_the_same(name: str, tmp_path: Path) -> None:
    model, batches = MODELS[name]()
    calibrator = CacheCalibrator(
        FIXTURES / f"{name}.minmax.cache",
        algo_type=MINMAX,
        onnx_file=export_onnx(model, batches[0], tmp_path / "model.onnx"),
    )
    with pytest.warns(CalibrationWarning, match="used unverified"):
        assert_same_values(name, calibrator.calibrate(known(name)[0]))
    assert calibrator.report is not None and calibrator.report.notes == ()


def test_norms_in_front_of_convolutions(tmp_path: Path) -> None:
    """Two ways, names and structure, agree on a DenseNet, whose norms cannot be folded."""
    model, batches = MODELS["densenet"]()
    request, _ = request_of(model, batches[0])
    scales = read_cache(FIXTURES / "densenet.entropy2.cache").table
    onnx_file = export_onnx(model, batches[0], tmp_path / "model.onnx")
    by_name = match_cache(scales, "The cache", request)
    by_structure = match_cache(scales, "The cache", request, onnx_file=onnx_file)
    assert by_name.is_complete and by_structure.is_complete
    assert {m.tensor: m.scale for m in by_name.matched} == {
        m.tensor: m.scale for m in by_structure.matched
    }
    others = by_name.names.items() - by_structure.names.items()
    assert (
        dict(others)
        == {
            "reshape": "/GlobalAveragePool_output_0",  # the file has Flatten's own
            "avg_pool2d": "/features/denseblock2/Concat_output_0",  # the file has a concatenation of it alone
        }
    )


def test_names_that_tell_nothing_need_the_onnx_file(tmp_path: Path) -> None:
    """The newer exporter's names are those of FX nodes; 24 of 24 by structure, and the same scales as by name."""
    pytest.importorskip("onnxscript", reason="the exporter needs it: pip install onnxscript")
    model, batches = MODELS["resnet18"]()
    request, _ = known("resnet18")
    cache_file = FIXTURES / "resnet18.dynamo.entropy2.cache"
    with pytest.raises(CalibrationError, match=r"onnx_file=\.\.\.") as caught:
        CacheCalibrator(cache_file).calibrate(request)
    assert "tell neither modules nor operators" in str(caught.value)
    onnx_file = export_onnx(model, batches[0], tmp_path / "model.onnx", dynamo=True)
    calibrator = CacheCalibrator(cache_file, onnx_file=onnx_file)
    with pytest.warns(CalibrationWarning, match="used unverified"):
        table = calibrator.calibrate(request)
    assert set(table) == set(request.names)
    report = calibrator.report
    assert report is not None
    assert report.names["relu_2"] == "relu_2"
    assert report.names["convolution_7"] == "getitem_21"  # a norm was folded into it
    assert report.names["input_0"] == "x"


def test_numbers_as_names(tmp_path: Path) -> None:
    """Exporters before PyTorch 1.13 gave numbers: the file's structure alone says what they are."""
    import onnx

    model, batches = MODELS["vgg"]()
    onnx_file = export_onnx(model, batches[0], tmp_path / "model.onnx")
    proto = onnx.load(str(onnx_file))
    produced = [name for node in proto.graph.node for name in node.output]
    numbers = {name: str(300 + 7 * place) for place, name in enumerate(produced)}
    for node in proto.graph.node:
        node.input[:] = [numbers.get(name, name) for name in node.input]
        node.output[:] = [numbers[name] for name in node.output]
    proto.graph.output[0].name = numbers[proto.graph.output[0].name]
    onnx.save(proto, str(onnx_file))
    lines = (FIXTURES / "vgg.minmax.cache").read_text().splitlines()
    entries = [line.rpartition(": ") for line in lines[1:]]
    cache_file = tmp_path / "calibration.cache"
    cache_file.write_text(
        "\n".join([lines[0], *(f"{numbers.get(n, n)}: {scale}" for n, _, scale in entries)])
    )
    calibrator = CacheCalibrator(cache_file, algo_type=MINMAX, onnx_file=onnx_file)
    with pytest.warns(CalibrationWarning, match="used unverified"):
        assert_same_values("vgg", calibrator.calibrate(known("vgg")[0]))


def test_weights_of_another_model_are_noticed(tmp_path: Path) -> None:
    model, batches = MODELS["encoder"]()
    with torch.no_grad():
        model.blocks[1].up.weight.mul_(1.01)  # type: ignore[union-attr, index]
    onnx_file = export_onnx(model, batches[0], tmp_path / "model.onnx")
    calibrator = CacheCalibrator(
        FIXTURES / "encoder.minmax.cache", algo_type=MINMAX, onnx_file=onnx_file
    )
    with pytest.raises(CalibrationError, match=r"lacks 1 of the 12 .*'getitem_3'"):
        calibrator.calibrate(known("encoder")[0])
    assert calibrator.report is not None
    (note,) = calibrator.report.notes
    assert note == "linear_10: the ONNX file has 0 layers with these weights, not 1."


def test_it_compiles(tmp_path: Path) -> None:
    """From ``trtcompile.compile`` on: the placement's tensors are the request's."""
    from trtcompile import compiler
    from trtcompile.inputs import parse_inputs
    from trtcompile.settings import CompileSpec

    model, batches = MODELS["api_chain"]()
    calibrator = CacheCalibrator(FIXTURES / "api_chain.minmax.cache", algo_type=MINMAX)
    spec = CompileSpec(
        enabled_precisions=frozenset({torch.float32, torch.int8}), calibrator=calibrator
    )
    captured = compiler.capture(
        model, parse_inputs([batches[0]]), undecomposed=compiler.undecomposed_operators()
    )
    with pytest.warns(CalibrationWarning, match="used unverified"):
        compiler.prepare(captured, spec)
    expected = model(batches[0])
    (got,) = captured.graph_module(batches[0])
    difference = (got - expected).norm() / expected.norm()
    assert 0 < difference < 0.05


def test_torch_compile_has_the_same_tensors() -> None:
    """Its module paths start at the compiled function."""

    class Enough(BaseException):
        pass

    class Reporting(CacheCalibrator):
        def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
            with pytest.warns(CalibrationWarning, match="used unverified"):
                assert_same_values("encoder", super().calibrate(request))
            raise Enough

    model, batches = MODELS["encoder"]()
    compiled = torch.compile(
        model,
        backend="trt",
        options={
            "device": {"compute_capability": "8.9"},
            "enabled_precisions": {torch.float32, torch.int8},
            "calibrator": Reporting(FIXTURES / "encoder.minmax.cache", algo_type=MINMAX),
        },
    )
    with pytest.raises(Enough):
        compiled(batches[0])
