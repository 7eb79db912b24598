"""Engines that run branches on further streams."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import trtcompile
from trtcompile import Device, Input


class Branches(nn.Module):
    """Four chains of convolutions that do not wait for each other."""

    def __init__(self) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(8, 16, 3, padding=1), nn.Sigmoid(), nn.Conv2d(16, 8, 5, padding=2)
            )
            for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=1)


@pytest.mark.gpu
@pytest.mark.parametrize("use_cuda_graphs", [False, True], ids=["plain", "CUDA graphs"])
def test_branches_are_done_when_the_call_is(use_cuda_graphs: bool) -> None:
    model = Branches().eval().cuda()
    compiled = trtcompile.compile(
        model,
        [Input((4, 8, 64, 64))],
        device=Device(disable_tf32=True),
        max_aux_streams=3,
        optimization_level=0,
        use_cuda_graphs=use_cuda_graphs,
    )
    for seed in range(5):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(4, 8, 64, 64, generator=generator).cuda()
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            expected = model(x)
        torch.testing.assert_close(compiled(x), expected, rtol=1e-3, atol=1e-3)
