from __future__ import annotations

import pytest
import torch
from checks import capture_for_test, check_op, input_spec
from operator_case import Case, Refusal, case, each, floats, refusal
from torch import nn

from trtcompile.errors import UnsupportedGraphError

aten = torch.ops.aten

LSTM, GRU = aten.lstm.input, aten.gru.input
TANH, RELU = aten.rnn_tanh.input, aten.rnn_relu.input
_FORMS: dict[str, dict[str, object]] = {
    "plain": {},
    "batch_first": {"batch_first": True},
    "no_bias": {"bias": False},
    "bidirectional": {"bidirectional": True},
    "two_layers": {"num_layers": 2},
    "two_layers_bidirectional_batch_first": {
        "num_layers": 2,
        "bidirectional": True,
        "batch_first": True,
    },
}


class _WithState(nn.Module):
    """A layer whose first states are inputs."""

    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        with torch.no_grad():
            for seed, parameter in enumerate(layer.parameters()):
                parameter.copy_(floats(*parameter.shape, seed=seed) * 0.5)
        self.layer = layer

    def forward(self, x: torch.Tensor, h: torch.Tensor, c: torch.Tensor | None = None) -> object:
        return self.layer(x, h if c is None else (h, c))


def _case(
    target: object, form: str, layer: nn.RNNBase, *, batch: int | None = 3, **fields: object
) -> Case:
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    batches = () if batch is None else (batch,)
    x = floats(*((*batches, 6) if layer.batch_first else (6, *batches)), 4)
    states = [floats(count, *batches, layer.proj_size or 5, seed=3)]
    if target is LSTM:
        states.append(floats(count, *batches, 5, seed=4))
    return case(target, form, _WithState(layer), x, *states, **fields)


_LAYERS = {
    LSTM: nn.LSTM,
    GRU: nn.GRU,
    TANH: nn.RNN,
    RELU: lambda *sizes, **options: nn.RNN(*sizes, nonlinearity="relu", **options),
}
_DYNAMIC = {0: {1: (1, 3, 4)}, 1: {1: (1, 3, 4)}}
CASES = [
    *(
        _case(target, form, layer(4, 5, **options), build=len(options) in (0, 3))
        for target, layer in _LAYERS.items()
        for form, options in _FORMS.items()
    ),
    *(
        _case(target, "no_batch", layer(4, 5), batch=None, build=False)
        for target, layer in _LAYERS.items()
    ),
    # TensorRT-RTX takes most of a minute to build the GRU.
    *(
        _case(target, "one_batch", layer(4, 5), batch=1, build=layer is not nn.GRU)
        for target, layer in _LAYERS.items()
    ),
    *(
        _case(target, "dynamic_batch", layer(4, 5), dynamic=_DYNAMIC)
        for target, layer in _LAYERS.items()
        if target is not LSTM
    ),
    _case(LSTM, "dynamic_batch", nn.LSTM(4, 5), dynamic={**_DYNAMIC, 2: {1: (1, 3, 4)}}),
    _case(LSTM, "projection", nn.LSTM(4, 5, proj_size=3, bidirectional=True)),
    _case(LSTM, "projection_no_bias", nn.LSTM(4, 5, proj_size=3, bias=False), build=False),
    *(
        case(target, "from_zero", layer(4, 5, batch_first=True), floats(3, 6, 4), build=False)
        for target, layer in _LAYERS.items()
    ),
]

REFUSALS = [
    refusal(target, "too_long", "to unroll", layer(2, 2), floats(600, 1, 2))
    for target, layer in ((GRU, nn.GRU), (TANH, nn.RNN))
]


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@each(CASES)
def test_computes_what_pytorch_computes(case: Case) -> None:
    case.check()


@each(REFUSALS)
def test_refuses_with_a_reason(case: Refusal) -> None:
    case.check()


@pytest.mark.parametrize("cell", [nn.LSTMCell, nn.GRUCell, nn.RNNCell])
def test_cells_go_into_one_engine(cell: type[nn.RNNCellBase]) -> None:
    module = cell(4, 5)

    def step(x: torch.Tensor, h: torch.Tensor) -> object:
        return module(x, (h, h) if cell is nn.LSTMCell else h)

    check_op(step, floats(3, 4), floats(3, 5), dynamic={0: {0: (1, 3, 4)}, 1: {0: (1, 3, 4)}})


def test_what_follows_the_last_state_has_its_shape() -> None:
    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = nn.LSTM(4, 5, batch_first=True)
            self.head = nn.Linear(5, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.lstm(x)[1][0][-1])

    check_op(Classifier(), floats(3, 6, 4), converts=LSTM, dynamic={0: {0: (1, 3, 4)}})


def test_a_length_that_is_not_known_cannot_be_captured() -> None:
    with pytest.raises(UnsupportedGraphError, match="specialized it to be a constant"):
        capture_for_test(nn.GRU(4, 5), [input_spec(floats(6, 3, 4), {0: (2, 6, 8)})])
