"""Copies through small pieces of memory; on the CPU, ordinary memory takes the place of pinned memory."""

from __future__ import annotations

import pytest
import torch
from cuda_waits import waiting_is_an_error
from torch import Tensor

from trtcompile.ptq.pinned_upload import PinnedUpload

CPU = torch.device("cpu")
PIECE = 100_000  # bytes; no multiple of an element's size for some of the types


def weights() -> list[Tensor]:
    """Of many types and sizes: smaller and larger than a piece, transposed, with a gradient, empty."""
    generator = torch.Generator().manual_seed(0)
    normal = torch.randn(300, 301, generator=generator)
    return [
        normal,
        normal.half(),
        normal.double(),
        normal > 0,
        (normal * 30).to(torch.int8),
        normal.to(torch.float8_e4m3fn),
        normal.t(),
        torch.complex(normal, -normal),
        torch.nn.Parameter(normal[:100]),
        normal[0, 0],
        normal[:0],
        torch.randn(7, 5, generator=generator),
        normal[100:200],
    ]


def comparable(tensor: Tensor) -> Tensor:
    return tensor if tensor.is_complex() else tensor.double()


def assert_copied(copies: list[Tensor], device: torch.device) -> None:
    for copied, weight in zip(copies, weights(), strict=True):
        assert copied.device == device
        assert not copied.requires_grad
        assert copied.dtype == weight.dtype
        assert torch.equal(comparable(copied.cpu()), comparable(weight.detach()))


def test_copies_are_equal_and_own_their_memory() -> None:
    pieces = []

    def allocate(size: int) -> Tensor:
        pieces.append(torch.empty(size, dtype=torch.uint8))
        return pieces[-1]

    upload = PinnedUpload(CPU, PIECE, allocate)
    copies = [upload.copy(weight) for weight in weights()]
    for piece in pieces:
        piece.zero_()
    assert len(pieces) == 2
    assert_copied(copies, CPU)


@pytest.mark.gpu
def test_copies_on_the_device_do_not_depend_on_what_becomes_of_the_weights() -> None:
    device = torch.device("cuda:0")
    upload = PinnedUpload(device, PIECE)
    given = weights()
    with waiting_is_an_error():
        large = [upload.copy(weight) for weight in given]
    for weight in given:
        weight.detach().zero_()
    torch.cuda.synchronize(device)
    assert_copied(large, device)
