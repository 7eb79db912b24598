"""``compile`` of a ``torch.export.ExportedProgram``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn
from torch.export import Dim, ExportedProgram, export

import trtcompile
from trtcompile import Input, InputMismatchError, SettingsError, UnsupportedGraphError
from trtcompile.exported import inputs_of
from trtcompile.ptq import DataLoaderCalibrator


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(6)
        self.linear = nn.Linear(6, 4)

    def forward(
        self, x: torch.Tensor, more: dict[str, torch.Tensor], factor: float = 1.0
    ) -> dict[str, Any]:
        return {"y": self.linear(self.norm(x)).relu() * factor, "z": more["a"] - 1}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> nn.Module:
    install_oracle(monkeypatch)
    return randomize(Pair(), 0)


def exported(model: nn.Module, high: int | None = 9) -> ExportedProgram:
    batch = Dim("batch", min=2, max=high) if high else Dim("batch", min=2)
    shapes = {"x": {0: batch}, "more": {"a": None}, "factor": None}
    args = (torch.randn(3, 6), {"a": torch.randn(5)})
    return export(model, args, {"factor": 2.0}, dynamic_shapes=shapes)


def compiled(program: Any, *args: Any, **options: Any) -> trtcompile.TRTModule:
    return trtcompile.compile(
        program, *args, **{"device": build_device(), "min_block_size": 1, **options}
    )


def check(module: trtcompile.TRTModule, model: nn.Module, rows: int) -> None:
    x, more = torch.randn(rows, 6), {"a": torch.randn(5)}
    with torch.no_grad():
        expected = model(x, more, 2.0)
    actual = module(x, more, factor=2.0)
    assert list(actual) == ["y", "z"]
    for name, value in expected.items():
        torch.testing.assert_close(actual[name], value, rtol=1e-4, atol=1e-5)


def test_its_own_inputs(model: nn.Module) -> None:
    program = exported(model)
    (x, more), keywords = inputs_of(program)
    assert (x.min_shape, x.opt_shape, x.max_shape) == ((2, 6), (3, 6), (9, 6))
    assert more["a"].opt_shape == (5,) and keywords == {"factor": 2.0}
    module = compiled(program)
    assert len(module.engines) == 1 and not module.report.fallbacks
    for rows in (2, 3, 9):
        check(module, model, rows)
    with pytest.raises(InputMismatchError, match="compiled for"):
        check(module, model, 10)


def test_inputs_within_what_it_takes(model: nn.Module) -> None:
    ranged = Input(min_shape=(2, 6), opt_shape=(4, 6), max_shape=(5, 6))
    for given, rows in ((ranged, (2, 4, 5)), (Input((4, 6)), (4,))):
        options = {"inputs": [given, {"a": (5,)}], "kwarg_inputs": {"factor": 2.0}}
        module = compiled(exported(model, high=None), **options)
        for count in rows:
            check(module, model, count)
        with pytest.raises(InputMismatchError, match="compiled for"):
            check(module, model, 6)


@pytest.mark.parametrize(
    ("second", "options"),
    [
        (Input(min_shape=(2, 3), opt_shape=(4, 3), max_shape=(5, 3)), {}),
        (Input((4, 3)), {}),
        (
            Input(min_shape=(2, 3), opt_shape=(4, 3), max_shape=(9, 3)),
            {"optimization_profiles": [{"batch": (2, 2, 4)}]},
        ),
    ],
    ids=["range", "size", "profile"],
)
def test_sizes_that_the_program_takes_to_be_equal(second: Input, options: Any) -> None:
    class Adds(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return x.relu() + y

    shapes = ({0: Dim("batch", min=2, max=9)},) * 2
    program = export(Adds(), (torch.randn(3, 3), torch.randn(3, 3)), dynamic_shapes=shapes)
    first = Input((trtcompile.Dim("batch", min=2, opt=4, max=9), 3))
    compiled(program, [first, first])
    with pytest.raises(UnsupportedGraphError, match="Give both Inputs the same Dim"):
        compiled(program, [first, second], **options)


def test_int8(model: nn.Module) -> None:
    loader = [(torch.randn(3, 6), {"a": torch.randn(5)}) for _ in range(3)]
    module = compiled(
        exported(model),
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator(loader, progress=False),
    )
    assert [r.precision for r in module.report.rows if "linear" in r.operator] == ["INT8"]


def test_refusals(model: nn.Module) -> None:
    with pytest.raises(SettingsError, match=r"takes \[2\.\., 6\] float32 for x, .* upper bound"):
        compiled(exported(model, high=None))
    a, keywords = {"a": (5,)}, {"factor": 2.0}
    for x in (Input((1, 6)), Input((10, 6)), Input((3, 7)), Input((3, 6), dtype=torch.half)):
        with pytest.raises(SettingsError, match=r"is not what the ExportedProgram takes for x"):
            compiled(exported(model), [x, a], kwarg_inputs=keywords)
    with pytest.raises(SettingsError, match="another structure"):
        compiled(exported(model), [Input((3, 6))])


def test_a_program_that_writes_to_a_buffer() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("count", torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.count.add_(1)
            return x + self.count

    with pytest.raises(UnsupportedGraphError, match="writes to 'count'"):
        compiled(export(Counting(), (torch.randn(2),)))
