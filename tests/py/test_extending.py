"""The examples of ``docs/extending.md``, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile.conversion import REGISTRY
from trtcompile.errors import RegistrationError
from trtcompile.lowering import pipeline

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "extending.md"
CONVERTER, PASS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)


@pytest.fixture(autouse=True)
def _own_registries(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    install_oracle(monkeypatch)
    monkeypatch.setattr(REGISTRY, "_converters", dict(REGISTRY._converters))
    monkeypatch.setattr(pipeline, "_USER_PASSES", [])
    yield
    torch.compiler.reset()


def run(code: str) -> dict[str, Any]:
    names: dict[str, Any] = {"torch": torch, "trtcompile": trtcompile}
    exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102 - the guide is ours
    return names


class Model(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self.linear(x))


def compiled(model: nn.Module) -> trtcompile.TRTModule:
    return trtcompile.compile(model.eval(), [(2, 3)], device=build_device(), min_block_size=1)


def test_examples_are_short() -> None:
    for code in (CONVERTER, PASS):
        assert sum(bool(line.strip()) for line in code.splitlines()) < 15


def test_converter() -> None:
    names = run(CONVERTER)
    model, x = Model(names["halve"]), torch.randn(2, 3)
    module = compiled(model)
    assert not module.report.fallbacks
    torch.testing.assert_close(module(x), model(x).detach())


def test_lowering_pass() -> None:
    names = run(PASS)
    model, x = Model(nn.functional.silu), torch.randn(2, 3)
    module = compiled(model)
    assert [row.operator for row in module.report.rows] == [
        "aten.linear.default",
        "aten.relu.default",
    ]
    torch.testing.assert_close(module(x), model.linear(x).relu().detach())
    with pytest.raises(RegistrationError, match="there already"):
        trtcompile.lowering_pass(names["silu_as_relu"])


@pytest.mark.parametrize("wrong", [lambda graph_module: 0, 3])
def test_what_is_no_pass(wrong: Any) -> None:
    with pytest.raises(RegistrationError, match=r"graph_module, spec|no function"):
        trtcompile.lowering_pass(wrong)
