"""Engines that come from a file run like those that were just built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hand_compiled import DYNAMIC, ConvNet
from loaded_modules import assert_same, saved_and_loaded

import trtcompile


@pytest.mark.gpu
@pytest.mark.parametrize("use_cuda_graphs", [False, True], ids=["plain", "CUDA graphs"])
@pytest.mark.parametrize("fallbacks", [set(), {"aten.relu"}], ids=["one engine", "fallbacks"])
def test_a_loaded_engine_computes_the_same(
    fallbacks: set[str], use_cuda_graphs: bool, tmp_path: Path
) -> None:
    model = ConvNet().eval()
    compiled = trtcompile.compile(
        model,
        [DYNAMIC],
        device={"disable_tf32": True},
        torch_executed_ops=fallbacks,
        min_block_size=1,
        use_cuda_graphs=use_cuda_graphs,
    )
    loaded = saved_and_loaded(compiled, tmp_path / "module")
    assert_same(loaded, compiled)
    for batch in (1, 2, 4):
        x = torch.randn(batch, 3, 8, 8)
        output = loaded(x.cuda())
        assert torch.equal(output, compiled(x.cuda()))
        with torch.no_grad():
            torch.testing.assert_close(output.cpu(), model(x), rtol=1e-4, atol=1e-4)
    # After it has run, its constants are on the GPU: it is saved from there as well.
    assert_same(saved_and_loaded(loaded, tmp_path / "again"), compiled)
    assert (tmp_path / "again").read_bytes() == (tmp_path / "module").read_bytes()
