"""torchvision's operators of detection stay in PyTorch; what is around them goes into engines."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from checks import build_device, install_oracle, partition_for_test
from operator_case import floats, positive
from torch import nn

import trtcompile

# torchvision's nms makes its size in a way that PyTorch has since renamed.
pytestmark = pytest.mark.filterwarnings("ignore:.*create_unbacked_symint:FutureWarning")
ops = pytest.importorskip("torchvision.ops", reason="torchvision is not installed")

_BOXES = torch.cat([positive(5, 2), positive(5, 2, seed=1) + 4], dim=1)


def _nms(boxes: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
    return ops.nms(boxes * 2, scores.sigmoid(), 0.5)


def _roi_align(x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    return ops.roi_align(x.relu() * 2, [boxes], 3).relu() + 1


class _Deform(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.deform = ops.DeformConv2d(4, 4, 3)
        self.conv = nn.Conv2d(4, 18, 3)

    def forward(self, x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return self.deform(x, self.conv(x)).relu() + boxes.sum()


class _Module(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
        return self.function(x, boxes)


_MODELS = {
    "torchvision.nms.default": (_Module(_nms), (_BOXES, floats(5))),
    "torchvision.roi_align.default": (_Module(_roi_align), (floats(1, 4, 9, 9), _BOXES)),
    "torchvision.deform_conv2d.default": (_Deform(), (floats(1, 4, 9, 9), _BOXES)),
}


@pytest.mark.parametrize("operator", _MODELS)
def test_it_falls_back_with_a_reason_and_the_rest_is_compiled(operator: str) -> None:
    model, inputs = _MODELS[operator]
    _, partitioned, _ = partition_for_test(model, list(inputs), min_block_size=1)
    reasons = {str(n.target): reason for n, reason in partitioned.verdicts.items()}
    reason = reasons[operator] or ""
    assert "has no converter" in reason or "depends on data" in reason
    assert partitioned.engines


@pytest.mark.parametrize("operator", _MODELS)
def test_the_model_computes_the_same(operator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = _MODELS[operator]
    install_oracle(monkeypatch)
    with torch.no_grad():
        compiled = trtcompile.compile(
            model.eval(), list(inputs), min_block_size=1, device=build_device()
        )
        torch.testing.assert_close(compiled(*inputs), model(*inputs), rtol=1e-5, atol=1e-5)
