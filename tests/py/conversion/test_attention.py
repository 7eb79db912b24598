from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from checks import check_op
from operator_case import Case, Refusal, booleans, case, each, floats, refusal
from operator_samples import check_samples
from torch import nn

SDPA = torch.ops.aten.scaled_dot_product_attention.default

Q, K, V = floats(2, 3, 4, 8), floats(2, 3, 5, 8, seed=1), floats(2, 3, 5, 6, seed=2)
_attend = F.scaled_dot_product_attention


def _mask(*shape: int) -> torch.Tensor:
    """Some keys for most queries, and none for the second one."""
    mask = booleans(*shape)
    mask[..., 0] = True
    mask[..., 1, :] = False
    return mask


def _float_mask(*shape: int) -> torch.Tensor:
    return floats(*shape, seed=5).masked_fill(~_mask(*shape), -math.inf)


_BATCH_AND_LENGTH = {
    0: {0: (1, 2, 3), 2: (1, 4, 6)},
    1: {0: (1, 2, 3), 2: (1, 5, 7)},
    2: {0: (1, 2, 3), 2: (1, 5, 7)},
}
_ALWAYS_READING = booleans(4, 5) | torch.eye(4, 5).bool()

CASES = [
    case(SDPA, "plain", _attend, Q, K, V),
    case(SDPA, "no_heads", _attend, Q[0], K[0], V[0]),
    case(SDPA, "matrices", _attend, Q[0, 0], K[0, 0], V[0, 0], _mask(4, 5)),
    case(SDPA, "heads_of_keys_alone", _attend, Q[0, 0], K, V, build=False),
    case(SDPA, "five_dimensions", _attend, Q[None], K[None], V[None]),
    case(SDPA, "scale", lambda q, k, v: _attend(q, k, v, scale=-0.3), Q, K, V),
    *(
        case(SDPA, f"mask_{'x'.join(map(str, shape))}", _attend, Q, K, V, _mask(*shape))
        for shape in ((4, 5), (2, 1, 4, 5), (2, 3, 4, 5))
    ),
    case(SDPA, "mask_of_keys", _attend, Q, K, V, booleans(2, 1, 1, 5) | (torch.arange(5) == 2)),
    case(SDPA, "mask_of_nothing", _attend, Q, K, V, torch.zeros(2, 1, 1, 5, dtype=torch.bool)),
    *(
        case(SDPA, f"float_mask_{'x'.join(map(str, shape))}", _attend, Q, K, V, _float_mask(*shape))
        for shape in ((4, 5), (2, 1, 4, 5))
    ),
    *(
        case(SDPA, f"constant_{name}", lambda q, k, v, m=m: _attend(q, k, v, m), Q, K, V)
        for name, m in (
            ("mask", _mask(4, 5)),
            ("float_mask", _float_mask(4, 5)),
            ("mask_that_always_reads", _ALWAYS_READING),
        )
    ),
    *(
        case(
            SDPA,
            f"causal_{rows}_{columns}",
            lambda q, k, v: _attend(q, k, v, is_causal=True),
            floats(2, 3, rows, 8),
            floats(2, 3, columns, 8, seed=1),
            floats(2, 3, columns, 6, seed=2),
        )
        for rows, columns in ((5, 5), (4, 6), (6, 4))
    ),
    case(SDPA, "dynamic", _attend, Q, K, V, dynamic=_BATCH_AND_LENGTH),
    case(
        SDPA,
        "causal_dynamic",
        lambda q, k, v: _attend(q, k, v, is_causal=True),
        Q,
        K,
        V,
        dynamic=_BATCH_AND_LENGTH,
    ),
    case(
        SDPA,
        "float_mask_dynamic",
        _attend,
        Q,
        K,
        V,
        _float_mask(4, 5),
        dynamic={**_BATCH_AND_LENGTH, 3: {0: (1, 4, 6), 1: (1, 5, 7)}},
    ),
    case(
        SDPA,
        "grouped_heads",
        lambda q, k, v: _attend(q, k, v, enable_gqa=True),
        floats(2, 6, 4, 8),
        floats(2, 2, 5, 8, seed=1),
        floats(2, 2, 5, 6, seed=2),
        dynamic={i: {0: (1, 2, 3)} for i in range(3)},
    ),
    case(
        SDPA,
        "half",
        _attend,
        Q.half(),
        K.half(),
        V.half(),
        _mask(4, 5),
        tolerance=4e-3,
        build=False,
    ),
    case(
        SDPA,
        "fp16_network",
        _attend,
        Q,
        K,
        V,
        _mask(4, 5),
        tolerance=1e-2,
        options={"enabled_precisions": {torch.float16, torch.float32}},
    ),
]

REFUSALS = [
    refusal(SDPA, "dropout", "at random", lambda q, k, v: _attend(q, k, v, None, 0.5), Q, K, V),
    refusal(
        SDPA,
        "dynamic_head",
        "size of a head",
        _attend,
        Q,
        K,
        floats(2, 3, 5, 12),
        dynamic={i: {3: (4, 8, 9)} for i in (0, 1)},
    ),
]


@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


def test_computes_the_samples_of_pytorch() -> None:
    name = "nn.functional.scaled_dot_product_attention"
    check_samples(name, torch.float32, most=10, refused=["at random"])


class _SelfAttention(nn.Module):
    def __init__(self, **options: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, **options)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        return self.attention(x, x, x, key_padding_mask=mask, need_weights=False)[0]


@pytest.mark.parametrize(
    "options", [{"batch_first": True}, {}, {"bias": False, "batch_first": True}]
)
def test_multi_head_attention_goes_into_one_engine(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    check_op(_SelfAttention(**options), floats(2, 5, 8), converts=SDPA, build=False)


def test_multi_head_attention_gives_its_weights() -> None:
    module = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    check_op(lambda x: module(x, x, x), floats(2, 5, 8), build=False)


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_goes_into_one_engine(norm_first: bool) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=norm_first)
    dynamic = {0: {0: (1, 2, 3), 1: (1, 5, 6)}}
    check_op(layer, floats(2, 5, 8), converts=SDPA, dynamic=dynamic, build=norm_first)


def test_a_decoder_with_a_causal_mask_goes_into_one_engine() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerDecoderLayer(8, 2, 16, batch_first=True)
    mask = nn.Transformer.generate_square_subsequent_mask(5)
    decoder = _Decoder(layer, mask)
    check_op(decoder, floats(2, 5, 8), floats(2, 6, 8, seed=1), converts=SDPA)


class _Decoder(nn.Module):
    def __init__(self, layer: nn.Module, mask: torch.Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("mask", mask)

    def forward(self, target: torch.Tensor, memory: torch.Tensor) -> torch.Tensor:
        return self.layer(target, memory, tgt_mask=self.mask)
