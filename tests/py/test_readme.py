"""The examples of ``README.md``, as they stand there."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn
from torch.utils.data import DataLoader

import trtcompile
from trtcompile.ptq import DataLoaderCalibrator

README = Path(__file__).resolve().parents[2] / "README.md"
COMPILE, BACKEND, DYNAMIC, ACCURACY = re.findall(
    r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL
)


class Net(nn.Module):
    """An image classifier; with a second input, its scores are weighted."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.head = nn.Linear(8, 10)

    def forward(self, images: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
        scores = self.head(self.conv(images).relu().mean((2, 3)))
        return scores if weights is None else scores * weights


@pytest.fixture(autouse=True)
def _oracle(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    install_oracle(monkeypatch)
    monkeypatch.chdir(tmp_path)
    yield
    torch.compiler.reset()


def run(code: str, **names: Any) -> dict[str, Any]:
    """Runs an example; what it builds for is all that depends on the machine."""
    names.update(torch=torch, trtcompile=trtcompile, DataLoaderCalibrator=DataLoaderCalibrator)
    exec(compile(code, str(README), "exec"), names)  # noqa: S102 - the page is ours
    return names


def replaced(code: str, old: str, new: str) -> str:
    assert code.count(old) == 1
    return code.replace(old, new)


def images_and_labels() -> DataLoader[Any]:
    return DataLoader([(torch.randn(3, 32, 32), i % 10) for i in range(24)], batch_size=8)


def test_compile(tmp_path: Path) -> None:
    model, images = randomize(Net(), 0), torch.randn(1, 3, 32, 32)
    code = replaced(COMPILE, 'device="cuda:0"', "device=DEVICE")
    names = run(code, model=model, images=images, loader=images_and_labels(), DEVICE=build_device())
    report = names["compiled"].report
    weighted = [
        r for r in report.rows if r.operator in ("aten.convolution.default", "aten.linear.default")
    ]
    assert (
        [r.name for r in weighted if r.precision != "INT8"]
        == list(report.not_quantized)
        == ["linear"]
    )
    assert "one row" in report.not_quantized["linear"]
    simulated = names["compiled"].lowered(images)
    torch.testing.assert_close(names["logits"], simulated, rtol=1e-2, atol=1e-2)
    assert {path.name for path in tmp_path.iterdir()} == {
        "model.trtc",
        "calibration.cache",
        "calibration.cache.json",
    }


def test_backend() -> None:
    model, images = randomize(Net(), 0), torch.randn(2, 3, 32, 32)
    code = replaced(BACKEND, "options={", 'options={"device": DEVICE, ')
    names = run(code, model=model, DEVICE=build_device())
    with torch.no_grad():
        expected = model(images)
        torch.testing.assert_close(names["fast"](images), expected, rtol=2e-2, atol=2e-2)


def test_dynamic_shapes() -> None:
    model = randomize(Net(), 0)
    code = replaced(DYNAMIC, "    model,\n", "    model,\n    device=DEVICE,\n")
    compiled = run(code, model=model, DEVICE=build_device())["compiled"]
    for batch in (1, 2, 32):
        inputs = torch.randn(batch, 3, 224, 224), torch.randn(batch, 10)
        with torch.no_grad():
            torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-4, atol=1e-4)
    with pytest.raises(
        trtcompile.InputMismatchError, match=r"'batch' is 2 in input 0 \(images\) and 3"
    ):
        compiled(torch.randn(2, 3, 224, 224), torch.randn(3, 10))
    with pytest.raises(trtcompile.InputMismatchError):
        compiled(torch.randn(33, 3, 224, 224), torch.randn(33, 10))


def test_accuracy(tmp_path: Path) -> None:
    def accuracy(outputs: torch.Tensor, batch: Any) -> torch.Tensor:
        return (outputs.argmax(dim=1) == batch[1]).float().mean()

    model, loader = randomize(Net(), 0), images_and_labels()
    options = {
        "enabled_precisions": {torch.half, torch.int8},
        "calibrator": DataLoaderCalibrator(loader),
    }
    inputs = [trtcompile.Input((8, 3, 32, 32))]
    compiled = trtcompile.compile(model, inputs, device=build_device(), **options)
    code = replaced(ACCURACY, "    budget=0.002,\n", "    budget=0.002,\n    device=DEVICE,\n")
    names = run(
        code,
        model=model,
        inputs=inputs,
        loader=loader,
        validation=images_and_labels(),
        accuracy=accuracy,
        compiled=compiled,
        DEVICE=build_device(),
    )
    assert "<h1>" in (tmp_path / "int8.html").read_text()
    assert names["search"].drop <= 0.002
    assert names["compiled"] is not compiled and names["compiled"].engines
