from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from trtcompile.errors import CalibrationError
from trtcompile.ptq import CalibrationAlgo, CalibrationTable
from trtcompile.ptq.table import Provenance

MINMAX = CalibrationAlgo.MINMAX_CALIBRATION
ENTROPY = CalibrationAlgo.ENTROPY_CALIBRATION_2


def test_it_is_an_immutable_mapping() -> None:
    given = {"b": 0.5, "a": 0.1}
    table = CalibrationTable(given, algo=MINMAX)
    given["b"] = 7.0
    assert list(table) == ["b", "a"]
    assert table["b"] == 0.5
    assert len(table) == 2
    assert "c" not in table
    assert table.algo is MINMAX
    assert table.provenance is None
    with pytest.raises(TypeError):
        table["b"] = 1.0  # type: ignore[index]
    with pytest.raises(AttributeError):
        table.algo = ENTROPY  # type: ignore[misc]


def test_scales_are_float32() -> None:
    assert CalibrationTable({"a": 0.1}, algo=MINMAX)["a"] == float(np.float32(0.1))


def test_equality_takes_scales_and_algorithm() -> None:
    table = CalibrationTable({"a": 0.1, "b": 0.2}, algo=MINMAX)
    same = CalibrationTable({"b": 0.2, "a": 0.1}, algo=MINMAX)
    assert table == same
    assert hash(table) == hash(same)
    assert table != CalibrationTable({"a": 0.1, "b": 0.2}, algo=ENTROPY)
    assert table != CalibrationTable({"a": 0.1, "b": 0.3}, algo=MINMAX)
    assert table != {"a": 0.1, "b": 0.2}


@pytest.mark.parametrize("scale", [0.0, -0.5, math.nan, math.inf, 2.0**-127, 1e39])
def test_impossible_scales_are_refused(scale: float) -> None:
    with pytest.raises(CalibrationError, match=r"'conv'.* not a positive normal float32"):
        CalibrationTable({"conv": scale}, algo=MINMAX)


@pytest.mark.parametrize("name", ["", " ", "a\nb", "a\r", 3])
def test_impossible_names_are_refused(name: str) -> None:
    with pytest.raises(CalibrationError, match="name"):
        CalibrationTable({name: 0.5}, algo=MINMAX)


def test_copies_and_pickles_are_equal() -> None:
    provenance = Provenance("hash", {"a": "f"}, {"a": 12.7}, 5)
    table = CalibrationTable({"a": 0.1}, algo=ENTROPY, provenance=provenance)
    unpickled = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own bytes
    for other in (unpickled, copy.deepcopy(table)):
        assert other == table
        assert other.provenance == provenance


def test_repr_is_short() -> None:
    table = CalibrationTable({"a": 0.1}, algo=ENTROPY)
    assert repr(table) == "CalibrationTable(1 scales, ENTROPY_CALIBRATION_2, unknown origin)"


@pytest.mark.parametrize("scale", [None, "x", [0.1], torch.ones(2), float("nan")])
def test_what_is_no_scale(scale: Any) -> None:
    with pytest.raises(CalibrationError, match=r"entry 'a': the scale .* Give amax / 127"):
        CalibrationTable({"a": scale}, algo=MINMAX)


def test_what_are_no_scales_and_no_algorithm() -> None:
    with pytest.raises(CalibrationError, match="scales are a list"):
        CalibrationTable([("a", 0.1)], algo=MINMAX)  # type: ignore[arg-type]
    with pytest.raises(CalibrationError, match="algo is 'minmax'"):
        CalibrationTable({"a": 0.1}, algo="minmax")  # type: ignore[arg-type]
