from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from checks import check_op
from operator_case import Case, Refusal, booleans, case, each, floats, integers, refusal
from operator_samples import check_samples, each_sample

aten = torch.ops.aten

X = floats(2, 3, 4)
IMAGE = floats(2, 3, 5, 4)
VOLUME = floats(1, 2, 3, 4, 5)
_BATCH = {0: {0: (1, 2, 5)}}
_WIDTH = {0: {2: (4, 5, 8)}}
_AMOUNTS = ((1, 2), (0, 1, 2, 0), (1, 0, 0, 2, 3, 1), (-1, 2), (-1, -1), (0, 0), (0, -2, 1, -1))


def _pads(mode: str, *amounts: tuple[int, ...]) -> Callable[[Any], list[Any]]:
    return lambda x: [F.pad(x, amount, mode) for amount in amounts]


_PACKETS = {
    "reflect": (aten.reflection_pad1d, aten.reflection_pad2d, aten.reflection_pad3d),
    "replicate": (aten.replication_pad1d, aten.replication_pad2d, aten.replication_pad3d),
}

CASES = [
    case(aten.constant_pad_nd.default, "amounts", lambda x: [F.pad(x, p) for p in _AMOUNTS], X),
    case(aten.constant_pad_nd.default, "value", lambda x: F.pad(x, (1, 2), value=-2.5), X),
    case(aten.constant_pad_nd.default, "infinity", lambda x: F.pad(x, (1, 2), value=-torch.inf), X),
    case(aten.constant_pad_nd.default, "int64", lambda x: F.pad(x, (1, 2), value=7), integers(3)),
    case(
        aten.constant_pad_nd.default,
        "int32",
        lambda x: F.pad(x, (1, 2), value=-7),
        integers(3, dtype=torch.int32),
    ),
    case(
        aten.constant_pad_nd.default,
        "bool",
        lambda x: [F.pad(x, (1, 1)), F.pad(x, (2, -1), value=True)],
        booleans(3),
    ),
    case(aten.constant_pad_nd.default, "half", lambda x: F.pad(x, (1, 2), value=0.5), X.half()),
    case(
        aten.constant_pad_nd.default,
        "dynamic",
        lambda x: F.pad(x, (0, 1, 2, 0, 0, 1)),
        X,
        dynamic=_BATCH,
    ),
    case(
        aten.constant_pad_nd.default,
        "dynamic_cut",
        lambda x: F.pad(x, (-1, 1, 0, 0, 2, -1)),
        X,
        dynamic={0: {0: (2, 3, 5), 2: (2, 3, 4)}},
    ),
    case(
        aten.constant_pad_nd.default,
        "size_of_another",
        lambda x, y: F.pad(x, (0, y.shape[0], y.shape[0] - 1, 1)),
        X,
        floats(3),
        dynamic={1: {0: (2, 3, 4)}},
    ),
    case(
        aten.constant_pad_nd.default,
        "to_a_multiple",
        lambda x: F.pad(x, (0, 8 - x.shape[2])),
        X,
        dynamic={0: {2: (2, 3, 8)}},
    ),
    *(
        case(packet[0].default, "amounts", _pads(mode, (1, 2), (0, 3), (0, 0), (-1, 2)), X)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[0].default, "unbatched", _pads(mode, (2, 1)), floats(3, 4), build=False)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[1].default, "amounts", _pads(mode, (1, 2, 3, 0), (0, 0, 2, 4)), IMAGE)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[1].default, "half", _pads(mode, (1, 2, 3, 0)), IMAGE.half(), build=False)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[1].default, "dynamic", _pads(mode, (1, 2, 3, 0)), IMAGE, dynamic=_WIDTH)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[2].default, "amounts", _pads(mode, (1, 2, 3, 0, 1, 2)), VOLUME)
        for mode, packet in _PACKETS.items()
    ),
    *(
        case(packet[2].default, "dynamic", _pads(mode, (1, 2, 3, 0, 1, 1)), VOLUME, dynamic=_BATCH)
        for mode, packet in _PACKETS.items()
    ),
    case(
        aten.reflection_pad1d.default,
        "int64",
        _pads("reflect", (3, 2)),
        integers(2, 4),
    ),
    case(aten._pad_circular.default, "1d", _pads("circular", (1, 2), (4, 4), (0, 3)), X),
    case(aten._pad_circular.default, "2d", _pads("circular", (1, 2, 5, 0)), IMAGE),
    case(aten._pad_circular.default, "3d", _pads("circular", (1, 2, 3, 0, 0, 2)), VOLUME),
    case(aten._pad_circular.default, "bool", _pads("circular", (1, 2)), booleans(2, 4)),
    case(aten._pad_circular.default, "int64", _pads("circular", (1, 2)), integers(2, 4)),
    case(
        aten._pad_circular.default,
        "dynamic",
        _pads("circular", (1, 2, 3, 0)),
        IMAGE,
        dynamic=_WIDTH,
    ),
]

REFUSALS = [
    refusal(
        aten._pad_circular.default,
        "negative",
        "negative amount",
        lambda x: F.pad(x, (-1, 2), "circular"),
        X,
    ),
    refusal(
        aten.constant_pad_nd.default,
        "empty",
        "without elements",
        lambda x: F.pad(x, (0, 0, 1, 1)),
        floats(0, 3),
    ),
    refusal(
        aten.replication_pad1d.default,
        "empty",
        "without elements",
        lambda x: F.pad(x, (1, 1), "replicate"),
        floats(0, 3, 2),
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
def test_convolution_with_padding_same_and_an_even_kernel_pads_unevenly() -> None:
    convolution = torch.nn.Conv2d(2, 3, (2, 4), padding="same")
    check_op(convolution, floats(1, 2, 5, 6), converts=aten.constant_pad_nd.default)


@each_sample(
    [
        ("nn.functional.pad", (torch.float32, torch.bool), "without elements", "negative amount"),
    ]
)
def test_computes_pytorchs_samples(name: str, dtype: torch.dtype, refused: list[str]) -> None:
    check_samples(name, dtype, most=30, refused=refused)
