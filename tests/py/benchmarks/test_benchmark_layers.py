from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from agreement import LEAST_AGREEMENT, compare_outputs, layer_problems
from engine_layers import (
    expected_int8,
    floating_convolutions,
    int8_layer_count,
    int8_layers,
    int8_summary,
)
from layer_times import layer_rows


def layer(name: str, first_format: str, *, weights: str | None = "Int8", kind: str = "Convolution"):
    described = {
        "Name": name,
        "LayerType": "CaskConvolution",
        "Inputs": [
            {"Name": "a", "Dimensions": [1, 64, 8, 8], "Format/Datatype": first_format},
            {"Name": "b", "Dimensions": [1, 64, 8, 8], "Format/Datatype": "Row major linear FP32"},
        ],
        "ParameterType": kind,
        "TacticName": "sm80_xmma_fprop_implicit_gemm_interleaved_i8i8",
    }
    if weights is not None:
        described["Weights"] = {"Type": weights, "Count": 36864}
    return described


INT8_FORMAT = "Thirty-two wide channel vectorized row major Int8 format"
FUSED = (
    "convolution_1/weight/quantize/quantize + convolution_1/convolution + PWN(relu_1/activation)"
)


def inspected(*layers: dict) -> str:
    return json.dumps({"Layers": list(layers), "Bindings": ["x", "y"]})


def test_fused_convolution_is_found_with_its_formats():
    (found,) = int8_layers(inspected(layer(FUSED, INT8_FORMAT)), ["convolution_1"])
    assert found.verdict == "INT8"
    assert found.inputs[0] == INT8_FORMAT
    assert (found.weights, found.kind) == ("Int8", "Convolution")
    assert json.loads(json.dumps(found.as_json()))["layer"] == FUSED


@pytest.mark.parametrize(
    "described",
    [
        layer(FUSED, "Channel major FP16 format where channel % 8 == 0"),
        layer(FUSED, INT8_FORMAT, weights="Half"),
        layer(FUSED, "Row major linear FP32", weights=None),
        {"Name": FUSED, "LayerType": "Reformat"},
    ],
)
def test_other_formats_are_not_int8(described):
    (found,) = int8_layers(inspected(described), ["convolution_1"])
    assert found.verdict == "not INT8"


def test_matrix_products_and_untyped_weights():
    described = layer("linear/matmul + linear/elementwise", "Row major Int8", weights=None)
    (found,) = int8_layers(inspected(described), ["linear"])
    assert found.verdict == "INT8"


@pytest.mark.parametrize("operator", ["convolution", "convolution_10", "relu_1", "onvolution_1"])
def test_names_are_not_confused(operator):
    (found,) = int8_layers(inspected(layer(FUSED, INT8_FORMAT)), [operator])
    assert found.verdict == "not found"


def test_weight_quantization_alone_is_not_the_convolution():
    described = layer("convolution_1/weight/quantize/quantize", INT8_FORMAT)
    (found,) = int8_layers(inspected(described), ["convolution_1"])
    assert found.verdict == "not found"


@pytest.mark.parametrize("text", ['{"Layers": ["convolution/convolution"]}', '{"Layers": []}'])
def test_inspection_without_details_is_refused(text):
    with pytest.raises(ValueError, match="detailed"):
        int8_layers(text, ["convolution"])


def test_summary_names_what_is_missing():
    inspection = inspected(layer(FUSED, INT8_FORMAT), layer("c/convolution", "Row major FP16"))
    assert int8_summary(inspection, ["convolution_1", "c", "d"]) == {
        "expected": 3,
        "INT8": 1,
        "not INT8": ["c"],
        "not found": ["d"],
    }
    assert int8_summary("{}", []) == {"expected": 0}
    assert "detailed" in int8_summary("{}", ["c"])["problem"]


def test_convolutions_that_read_floating_point_are_listed_with_the_rule():
    inspection = inspected(
        layer(FUSED, INT8_FORMAT),
        layer("a + convolution_2/convolution.1 + relu_2/activation", "Row major FP16"),
        layer("linear/convolution", "Row major FP32"),
        layer("convolution_4/matmul", "Row major FP16", kind="Myelin"),
    )
    found = floating_convolutions(inspection, {"convolution_2": "its weight is computed"})
    assert [(one["operator"], one["rule"]) for one in found] == [
        ("convolution_2", "its weight is computed"),
        ("linear", ""),
    ]
    assert found[0]["reads"] == "Row major FP16"
    summary = int8_summary(inspection, ["convolution_1"], {})
    assert [one["rule"] for one in summary["floating convolutions"]] == ["", ""]
    assert summary["INT8"] == 1


def test_layers_that_read_int8_are_counted():
    half = layer("b", "Row major linear FP16")
    assert int8_layer_count(inspected(layer("a", INT8_FORMAT), half, {"Name": "no inputs"})) == 1
    assert int8_layer_count(inspected(half)) == 0


def test_every_convolution_has_to_be_int8():
    layers = [
        {"operator": "convolution", "verdict": "INT8"},
        {"operator": "convolution_1", "verdict": "not INT8"},
        {"operator": "linear", "verdict": "not INT8"},
    ]
    assert layer_problems(["convolution"], layers) == []
    assert layer_problems(["convolution", "convolution_1", "convolution_2"], layers) == [
        "convolution_1 is not INT8 in the engine",
        "convolution_2 is not found in the engine",
    ]
    assert layer_problems([], layers) == ["no convolution of the lowered graph is INT8"]


def test_expected_layers_come_from_the_report():
    def row(name: str, operator: str, precision: str) -> SimpleNamespace:
        return SimpleNamespace(name=name, operator=operator, precision=precision)

    report = SimpleNamespace(
        rows=(
            row("convolution", "aten.convolution.default", "INT8"),
            row("convolution_1", "aten.convolution.default", "FP16"),
            row("relu", "aten.relu.default", "FP16"),
            row("linear", "aten.linear.default", "INT8"),
        )
    )
    assert expected_int8(report) == (["convolution"], ["linear"])


def test_outputs_are_compared_pairwise():
    generator = torch.Generator().manual_seed(0)
    eager = torch.randn(1000, 10, generator=generator)
    simulation = eager + 0.01 * torch.randn(1000, 10, generator=generator)
    engine = simulation.clone()
    engine[:6] = engine[:6].roll(1, dims=1)
    outputs = compare_outputs(engine, simulation, eager)
    assert outputs["images"] == 1000
    assert outputs["top1_engine_simulation"] == pytest.approx(0.994)
    assert outputs["top1_engine_simulation"] < LEAST_AGREEMENT
    assert outputs["sqnr_db_simulation_eager"] > 35 > outputs["sqnr_db_engine_simulation"]


def test_layer_times_are_listed_in_the_engines_order():
    inspection = inspected(layer("first", "Int8"), layer("second", "Int8"))
    times = {"a copy": 0.5, "second": 0.25, "first": 1.5}
    first, second, copied = layer_rows(inspection, times)
    assert (first["name"], first["ms"], first["inputs"][0]) == ("first", 1.5, "1x64x8x8 Int8")
    assert (second["name"], second["ms"]) == ("second", 0.25)
    assert copied == {"name": "a copy", "ms": 0.5}
    (untimed,) = layer_rows(inspected(layer("no-op", "Int8")), {})
    assert untimed["ms"] is None
