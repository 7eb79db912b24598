"""The report: where each operator runs, in which precision, and which line of the model it is."""

from __future__ import annotations

import inspect
import re

import pytest
import torch
from partition.partitioned import Parts, parts, vector
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock

from trtcompile.errors import PrecisionWarning
from trtcompile.partition import PlacementRow
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self._classify(torch.relu(self._features(x)))

    def _features(self, x: Tensor) -> Tensor:
        return self.body(x)

    def _classify(self, x: Tensor) -> Tensor:
        x = torch.special.bessel_j0(x.mean((2, 3)))
        return self.head(x)


def line_of(code: str) -> str:
    """``file:line  code`` of a line of ``Small``."""
    lines, first = inspect.getsourcelines(Small)
    (index,) = [i for i, line in enumerate(lines) if line.strip() == code]
    return f"{inspect.getsourcefile(Small)}:{first + index}  {code}"


def small_parts(x: Tensor, *precisions: torch.dtype, **options: object) -> Parts:
    calibrator = None
    if torch.int8 in precisions:
        calibrator = DataLoaderCalibrator(
            [x], algo_type=CalibrationAlgo.MINMAX_CALIBRATION, progress=False
        )
    return parts(
        Small(),
        [x],
        enabled_precisions=set(precisions) or {torch.float32},
        calibrator=calibrator,
        **options,
    )


IMAGE = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(0))


def test_every_operator_has_the_innermost_line_of_the_users_code() -> None:
    rows = small_parts(IMAGE).report.rows
    assert [(row.operator.split(".")[1], row.module, row.source) for row in rows] == [
        ("convolution", "body", line_of("return self.body(x)")),
        ("relu", "", line_of("return self._classify(torch.relu(self._features(x)))")),
        ("mean", "", line_of("x = torch.special.bessel_j0(x.mean((2, 3)))")),
        ("special_bessel_j0", "", line_of("x = torch.special.bessel_j0(x.mean((2, 3)))")),
        ("linear", "head", line_of("return self.head(x)")),
    ]


def test_text_of_a_report() -> None:
    report = small_parts(IMAGE, torch.int8).report
    columns = [re.split(r"  +", line.strip())[:5] for line in str(report).splitlines()]
    assert columns == [
        ["4 of 5 operators in 2 engine(s)"],
        ["multiply-adds: INT8 100.0%"],
        [""],
        ["operator", "count", "precision", "runs in", "example"],
        ["-" * width for width in (30, 5, 9, 56, 18)],
        ["aten.convolution.default", "1", "INT8", "engine_0", "convolution (body)"],
        ["aten.relu.default", "1", "FP32", "engine_0", "relu"],
        ["aten.mean.dim", "1", "FP32", "engine_0", "mean"],
        [
            "aten.special_bessel_j0.default",
            "1",
            "FP32",
            "PyTorch: aten.special_bessel_j0.default has no converter",
            "special_bessel_j0",
        ],
        ["aten.linear.default", "1", "INT8", "engine_1", "linear (head)"],
        [""],
        ["read through Q/DQ:"],
        ["rule", "count", "example"],
        ["-" * width for width in (17, 5, 29)],
        ["weighted operator", "2", "input_0: input of convolution"],
    ]
    assert line_of("return self.body(x)") in str(report)


def test_equal_operators_are_one_line_with_their_number() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.relu(torch.tanh(torch.relu(torch.tanh(x))))

    text = str(parts(model, [vector()]).report)
    assert re.search(r"aten\.tanh\.default +2 +FP32 +engine_0", text)
    assert re.search(r"aten\.relu\.default +2 +FP32 +engine_0", text)
    assert "multiply-adds" not in text


def test_precisions_with_fp16() -> None:
    rows = small_parts(IMAGE, torch.int8, torch.float16).report.rows
    assert [(row.operator.split(".")[1], row.precision, row.engine) for row in rows] == [
        ("convolution", "INT8", "engine_0"),
        ("relu", "FP16", "engine_0"),
        ("mean", "FP16", "engine_0"),
        ("_to_copy", "FP32", "engine_0"),
        ("special_bessel_j0", "FP32", None),
        ("linear", "INT8", "engine_1"),
    ]


def test_what_pytorch_runs_is_never_called_int8() -> None:
    """A graph that brings its own Q/DQ."""
    qd = torch.ops.quantized_decomposed

    class Quantized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.randn(4, 6))

        def forward(self, x: Tensor) -> Tensor:
            settings = (0.05, 0, -128, 127, torch.int8)
            x = qd.dequantize_per_tensor(qd.quantize_per_tensor(x, *settings), *settings)
            w = qd.dequantize_per_tensor(qd.quantize_per_tensor(self.weight, *settings), *settings)
            return torch.relu(torch.nn.functional.linear(x, w))

    options = {"enabled_precisions": {torch.float, torch.int8}}
    with pytest.warns(PrecisionWarning):
        rows = parts(Quantized(), [vector()], "linear", **options).report.rows
    precisions = {row.operator: row.precision for row in rows if row.engine is None}
    assert precisions["aten.linear.default"] == "FP32"


def test_a_property_that_is_an_operator_has_its_line() -> None:
    def turned(x: Tensor) -> Tensor:
        return x.mT

    rows = parts(lambda x: torch.relu(turned(x)), [vector()]).report.rows
    assert [row.source.partition("  ")[2] for row in rows if "relu" not in row.operator] == [
        "return x.mT"
    ]


def test_operators_left_out_of_int8_are_listed_with_the_reason() -> None:
    def model(x: Tensor, weight: Tensor) -> Tensor:
        return nn.functional.linear(x, torch.tanh(weight))

    calibrator = DataLoaderCalibrator([(vector(), vector())], progress=False)
    with pytest.warns(PrecisionWarning, match="only 0% of the multiply-adds got it"):
        result = parts(
            model,
            [vector(), vector()],
            enabled_precisions={torch.int8},
            calibrator=calibrator,
        )
    assert str(result.report).splitlines()[-4:] == [
        "not quantized:",
        "  rule             count  example",
        "  ---------------  -----  -------------------------------------------",
        "  computed weight  1      linear: its weight is computed by the model",
    ]
    assert result.report.placement == (
        PlacementRow("linear", None, "computed weight", "its weight is computed by the model"),
    )


def test_what_is_read_in_int8_is_listed_by_rule() -> None:
    """The stem's two readers are one rule's, the shortcut is another's."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), BasicBlock(8, 8))
    calibrator = DataLoaderCalibrator([IMAGE], progress=False)
    report = parts(
        model.eval(), [IMAGE], enabled_precisions={torch.int8}, calibrator=calibrator
    ).report
    text = str(report).split("read through Q/DQ:\n")[1]
    assert [re.split(r"  +", line.strip()) for line in text.splitlines()[2:]] == [
        ["weighted operator", "3", "input_0: input of convolution"],
        ["shortcut", "1", "relu: residual added to convolution_2"],
    ]
    assert {(row.value, row.operator) for row in report.placement if row.rule == "shortcut"} == {
        ("relu", "add")
    }


def test_no_warning_where_most_multiply_adds_are_int8() -> None:
    """Warnings are errors here."""
    assert small_parts(IMAGE, torch.int8).report.multiply_add_share("INT8") == 1.0


def test_a_warning_where_less_than_half_of_the_multiply_adds_are_int8() -> None:
    """The linear layer has 16 of 5416 multiply-adds."""
    with pytest.warns(PrecisionWarning, match="only 0% of the multiply-adds got it"):
        result = parts(
            Small(),
            [IMAGE],
            "convolution",
            enabled_precisions={torch.int8},
            calibrator=DataLoaderCalibrator([IMAGE], progress=False),
        )
    assert result.report.multiply_add_share("INT8") == 16 / 5416
    assert result.report.multiply_add_share("FP32") == 5400 / 5416


MULTIPLY_ADDS = {
    # outputs x kernel x input channels of a group
    "convolution": (nn.Conv2d(4, 6, 3), (2, 4, 8, 8), 2 * 6 * 6 * 6 * 9 * 4),
    "strided": (nn.Conv2d(4, 6, 3, stride=2, padding=1), (1, 4, 8, 8), 6 * 4 * 4 * 9 * 4),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 8, 8), 2 * 6 * 6 * 6 * 9 * 2),
    "depthwise": (nn.Conv2d(4, 4, 3, groups=4), (2, 4, 8, 8), 2 * 4 * 6 * 6 * 9),
    "one dimension": (nn.Conv1d(4, 6, 5), (2, 4, 8), 2 * 6 * 4 * 5 * 4),
    "three dimensions": (nn.Conv3d(2, 3, 2), (1, 2, 4, 4, 4), 3 * 27 * 8 * 2),
    # inputs x kernel x output channels of a group
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (2, 4, 5, 5), 2 * 4 * 25 * 9 * 6),
    "grouped transposed": (
        nn.ConvTranspose2d(4, 6, 3, groups=2),
        (2, 4, 5, 5),
        2 * 4 * 25 * 9 * 3,
    ),
    "linear": (nn.Linear(5, 7), (2, 3, 5), 2 * 3 * 5 * 7),
    "no weights": (nn.ReLU(), (2, 3), 0),
}


@pytest.mark.parametrize("name", MULTIPLY_ADDS)
def test_multiply_adds(name: str) -> None:
    module, shape, expected = MULTIPLY_ADDS[name]
    (row,) = parts(module, [torch.randn(shape)]).report.rows
    assert row.multiply_adds == expected


def test_multiply_adds_of_products_of_two_inputs() -> None:
    def model(a: Tensor, b: Tensor) -> Tensor:
        return torch.bmm(a, b)

    (row,) = parts(model, [torch.randn(2, 3, 5), torch.randn(2, 5, 7)]).report.rows
    assert row.multiply_adds == 2 * 3 * 5 * 7


def test_sizes_that_depend_on_data_have_no_multiply_adds() -> None:
    class Rows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.linear(x[x.sum(1) > 0])

    model, x = Rows().eval(), torch.randn(6, 4)
    result = parts(model, [x])
    rows = {row.operator: row.multiply_adds for row in result.report.rows}
    assert rows["aten.linear.default"] == 0
    assert "depends on data" in result.reasons["linear"]
    (output,) = result.run(x)
    assert 0 < len(output) < 6
    torch.testing.assert_close(output, model(x).detach())
