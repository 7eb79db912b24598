"""What ``forward`` may take and return: keywords, constants, containers, the same tensor twice."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any, NamedTuple

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import Input, InputMismatchError, SettingsError, UnsupportedGraphError
from trtcompile.ptq import DataLoaderCalibrator

X, Y = torch.randn(2, 3), torch.randn(2, 3)


@pytest.fixture(autouse=True)
def _oracle(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)


def compiled(model: nn.Module, inputs: Any = (), **options: Any) -> trtcompile.TRTModule:
    return trtcompile.compile(
        model.eval(), inputs, device=build_device(), min_block_size=1, **options
    )


class Scaled(nn.Module):
    def forward(
        self, x: torch.Tensor, factor: float = 2.0, *, shift: Any = None, mode: str = "add"
    ) -> Any:
        x = x * factor
        if shift is None:
            return x.relu()
        return x + shift["by"] if mode == "add" else x - shift["by"]


def test_keywords() -> None:
    module = compiled(
        Scaled(), [(2, 3)], kwarg_inputs={"mode": "sub", "shift": {"by": Input((2, 3))}}
    )
    expected = Scaled()(X, shift={"by": Y}, mode="sub")
    for call in (
        lambda: module(X, shift={"by": Y}, mode="sub"),
        lambda: module(x=X, mode="sub", shift={"by": Y}),
    ):
        torch.testing.assert_close(call(), expected)
    torch.testing.assert_close(module.lowered(X, Y), expected)
    with pytest.raises(InputMismatchError, match="compiled in"):
        module(X, shift={"by": Y}, mode="add")
    with pytest.raises(InputMismatchError, match="positional"):
        module(X, {"by": Y}, "sub")
    with pytest.raises(InputMismatchError, match="keywords"):
        module(X, mode="sub")


def test_only_keywords() -> None:
    module = compiled(Scaled(), kwarg_inputs={"x": (2, 3), "factor": 3})
    torch.testing.assert_close(module(x=X, factor=3), (X * 3).relu())
    with pytest.raises(InputMismatchError, match=r"got 3\.0 where 3 was compiled in"):
        module(x=X, factor=3.0)


@pytest.mark.parametrize("constant", [0.5, 3, True])
def test_constants(constant: Any) -> None:
    module = compiled(Scaled(), [(2, 3), constant], kwarg_inputs={"shift": None})
    torch.testing.assert_close(module(X, constant, shift=None), (X * constant).relu())
    with pytest.raises(InputMismatchError, match="compiled in"):
        module(X, 7, shift=None)


def test_keywords_survive_a_file(tmp_path: Any) -> None:
    module = compiled(Scaled(), [(2, 3), 0.5], kwarg_inputs={"shift": {"by": Input((2, 3))}})
    trtcompile.save(module, tmp_path / "model.trtc")
    loaded = trtcompile.load(tmp_path / "model.trtc")
    assert loaded.arguments == module.arguments
    assert (loaded.argument_names, loaded.keywords) == (("x", "factor", "shift"), 1)
    with pytest.raises(InputMismatchError, match="compiled in"):
        loaded(X, 0.25, shift={"by": Y})


def test_dictionaries_are_read_by_key(tmp_path: Any) -> None:
    class Nested(nn.Module):
        def forward(self, batch: Any) -> torch.Tensor:
            return batch["a"]["left"] - 2 * batch["a"]["right"] * batch["b"][0]

    left, right, factor = torch.randn(2, 3), torch.randn(2, 3), torch.randn(3)
    module = compiled(Nested(), [{"a": {"left": (2, 3), "right": (2, 3)}, "b": [(3,)]}])
    other_order = {"b": [factor], "a": {"right": right, "left": left}}
    torch.testing.assert_close(module(other_order), left - 2 * right * factor)
    with pytest.raises(InputMismatchError, match="another structure"):
        module({"b": [factor], "a": {"right": right}})
    trtcompile.save(module, tmp_path / "model.trtc")
    assert trtcompile.load(tmp_path / "model.trtc").in_spec == module.in_spec


def test_refusals() -> None:
    with pytest.raises(SettingsError, match="no tensor"):
        compiled(Scaled(), [None])
    with pytest.raises(SettingsError, match="kwarg_inputs is"):
        compiled(Scaled(), [(2, 3)], kwarg_inputs=[(2, 3)])
    with pytest.raises(SettingsError, match="unexpected keyword"):
        compiled(Scaled(), [(2, 3)], kwarg_inputs={"shfit": (2, 3)})
    with pytest.raises(SettingsError, match="multiple values"):
        compiled(Scaled(), [(2, 3)], kwarg_inputs={"x": (2, 3)})


def test_dynamic_keyword() -> None:
    ranged = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(5, 3))
    module = compiled(Scaled(), [ranged], kwarg_inputs={"shift": {"by": ranged}})
    for rows in (1, 2, 5):
        x, y = torch.randn(rows, 3), torch.randn(rows, 3)
        torch.testing.assert_close(module(x, shift={"by": y}), x * 2 + y)


def test_ranges_beside_unnamed_keywords_are_refused() -> None:
    class Open(nn.Module):
        def forward(self, x: torch.Tensor, **others: torch.Tensor) -> torch.Tensor:
            return x + others["y"]

    module = compiled(Open(), [(2, 3)], kwarg_inputs={"y": (2, 3)})
    torch.testing.assert_close(module(X, y=Y), X + Y)
    ranged = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(5, 3))
    with pytest.raises(UnsupportedGraphError, match=r"takes y through its \*\* parameter"):
        compiled(Open(), [ranged], kwarg_inputs={"y": ranged})


def test_calibration_finds_keywords_in_a_dictionary() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(3, 4)

        def forward(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
            return self.a(first) + self.b(second)

    batches = [{"label": 0, "second": Y * 100, "first": X}]
    module = compiled(
        Pair(),
        kwarg_inputs={"second": (2, 3), "first": (2, 3)},
        enabled_precisions={torch.int8},
        calibrator=DataLoaderCalibrator(batches, progress=False),
    )
    assert module.calibration_table is not None
    scales = dict(module.calibration_table)
    assert scales["input_0"] == pytest.approx(X.abs().max().item() / 127, rel=0.1)
    assert scales["input_1"] == pytest.approx(100 * Y.abs().max().item() / 127, rel=0.1)


class Point(NamedTuple):
    a: Any
    b: Any


class Returns(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.make = make

    def forward(self, x: torch.Tensor, unused: torch.Tensor) -> Any:
        return self.make(x, x.relu())


@pytest.mark.parametrize(
    "make",
    [
        lambda x, y: {"b": y, "a": [x + 1, (y * 2,)]},
        lambda x, y: OrderedDict(z=y, a=x * 2),
        lambda x, y: Point(y, x - 1),
        lambda x, y: (y, y, {"again": y}),
        lambda x, y: (x, y),
        lambda x, y: (y, None, 3, "text", 0.5, True),
        lambda x, y: [y],
    ],
    ids=["nested", "ordered", "named tuple", "repeated", "input", "constants", "list"],
)
def test_outputs(make: Any) -> None:
    module = compiled(Returns(make), [(2, 3), (2, 3)])
    expected, actual = Returns(make)(X, Y), module(X, Y)
    assert type(actual) is type(expected)
    assert torch.utils._pytree.tree_structure(actual) == torch.utils._pytree.tree_structure(
        expected
    )
    leaves = torch.utils._pytree.tree_leaves
    for got, want in zip(leaves(actual), leaves(expected), strict=True):
        if isinstance(want, torch.Tensor):
            torch.testing.assert_close(got, want)
        else:
            assert (type(got), got) == (type(want), want)
