"""What the oracle refuses to guess, and what it finds wrong in a network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from network_oracle import NetworkMismatchError, UnsupportedLayer, run_network
from network_oracle.registry import HANDLERS, Handler
from oracle_bench import Bench, defining_bench
from oracle_networks.network_case import Net


@pytest.fixture(scope="module")
def bench() -> Bench:
    return defining_bench()


def _run(net: Net, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
    return run_network(net.network, inputs)


def _input(net: Net, *shape: int, name: str = "x", dtype: str = "FLOAT") -> Any:
    return net.network.add_input(name, getattr(net.trt.DataType, dtype), shape)


def _mark(net: Net, layer: Any) -> None:
    net.network.mark_output(layer.get_output(0))


def test_inputs_by_name_or_in_order(bench: Bench) -> None:
    net = bench.net()
    a, b = _input(net, 2, name="a"), _input(net, 2, name="b")
    _mark(net, net.network.add_elementwise(a, b, bench.trt.ElementWiseOperation.SUB))
    one, two = torch.ones(2), torch.full((2,), 2.0)
    (by_name,) = run_network(net.network, {"b": two, "a": one}).values()
    (in_order,) = run_network(net.network, [one, two], trt=bench.trt).values()
    assert by_name.tolist() == in_order.tolist() == [-1.0, -1.0]
    with pytest.raises(NetworkMismatchError, match=r"inputs are \['a', 'b'\]"):
        run_network(net.network, {"a": one, "c": two})
    with pytest.raises(NetworkMismatchError, match="2 inputs"):
        run_network(net.network, [one])
    with pytest.raises(NetworkMismatchError, match="shape"):
        run_network(net.network, [one, torch.ones(3)])
    with pytest.raises(NetworkMismatchError, match=r"float32, is torch\.float16"):
        run_network(net.network, [one, two.half()])


def test_runs_twice_and_after_the_layers_were_read_elsewhere(bench: Bench) -> None:
    net = bench.net()
    x = _input(net, 1, 1, 4, 4)
    pool = net.network.add_pooling_nd(x, bench.trt.PoolingType.AVERAGE, (2, 2))
    _mark(net, pool)
    net.network.get_layer(0).__class__ = bench.trt.IPoolingLayer
    value = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert all(
        torch.equal(first, second)
        for first, second in zip(_run(net, value).values(), _run(net, value).values(), strict=True)
    )


def test_layers_made_after_those_that_read_them(bench: Bench) -> None:
    net = bench.net()
    x = _input(net, 1, 1, 3, 3)
    conv = net.network.add_convolution_nd(x, 1, (1, 1), net.weights(None), net.weights(None))
    _mark(net, conv)
    conv.set_input(1, net.constant(torch.full((1, 1, 1, 1), 3.0)))
    (output,) = _run(net, torch.ones(1, 1, 3, 3)).values()
    assert torch.equal(output, torch.full((1, 1, 3, 3), 3.0))


def test_outputs_do_not_alias_weights(bench: Bench) -> None:
    net = bench.net()
    weights = torch.ones(3)
    net.network.mark_output(net.constant(weights))
    (output,) = _run(net).values()
    output.zero_()
    assert torch.equal(weights, torch.ones(3))


def _random_fill(net: Net) -> None:
    op = net.trt.FillOperation.RANDOM_UNIFORM
    _mark(net, net.network.add_fill((3,), op, net.trt.float32))


def _if_conditional(net: Net) -> None:
    conditional = net.network.add_if_conditional()
    condition = net.constant(torch.tensor(True))
    conditional.set_condition(condition)
    value = net.constant(torch.ones(3))
    then = net.network.add_unary(
        conditional.add_input(value).get_output(0), net.trt.UnaryOperation.NEG
    )
    _mark(net, conditional.add_output(then.get_output(0), value))


def _scale_to_a_broken_size(net: Net) -> None:
    layer = net.network.add_resize(net.constant(torch.ones(1, 1, 3, 3)))
    layer.scales = [1, 1, 1.5, 1.5]
    _mark(net, layer)


def _integer_division_by_zero(net: Net) -> None:
    zero = net.constant(torch.zeros(3, dtype=torch.int32))
    _mark(net, net.network.add_elementwise(zero, zero, net.trt.ElementWiseOperation.FLOOR_DIV))


def _scatter_twice(net: Net) -> None:
    indices = net.constant(torch.tensor([[1], [1]], dtype=torch.int32))
    data, updates = net.constant(torch.ones(3)), net.constant(torch.tensor([2.0, 3.0]))
    _mark(net, net.network.add_scatter(data, indices, updates, net.trt.ScatterMode.ND))


def _window_in_the_padding(net: Net) -> None:
    x = net.constant(torch.ones(1, 1, 2, 2))
    layer = net.network.add_pooling_nd(x, net.trt.PoolingType.MAX, (1, 1))
    layer.padding_nd = (1, 1)
    _mark(net, layer)


def _cast_out_of_range(net: Net) -> None:
    _mark(net, net.network.add_cast(net.constant(torch.tensor([3e9])), net.trt.int32))


def _integer_mean(net: Net) -> None:
    x = net.constant(torch.tensor([1, 2], dtype=torch.int32))
    _mark(net, net.network.add_reduce(x, net.trt.ReduceOperation.AVG, 1, False))


def _negative_scale(net: Net) -> None:
    x, scale = net.constant(torch.ones(3)), net.constant(torch.tensor(-1.0))
    _mark(net, net.network.add_quantize(x, scale, net.trt.int8))


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (_random_fill, "RANDOM_UNIFORM"),
        (_if_conditional, "CONDITION layer"),
        (_scale_to_a_broken_size, "broken size"),
        (_integer_division_by_zero, "division by zero"),
        (_scatter_twice, "written twice"),
        (_window_in_the_padding, "wholly in the padding"),
        (_cast_out_of_range, "does not fit"),
        (_integer_mean, r"AVG of torch\.int32"),
        (_negative_scale, "not positive"),
    ],
)
def test_refuses_what_it_does_not_model(
    define: Callable[[Net], None], message: str, bench: Bench
) -> None:
    net = bench.net()
    define(net)
    with pytest.raises(UnsupportedLayer, match=message):
        _run(net)


def _mixed_types(net: Net) -> None:
    a, b = net.constant(torch.ones(3)), net.constant(torch.ones(3).half())
    _mark(net, net.network.add_elementwise(a, b, net.trt.ElementWiseOperation.SUM))


def _weights_of_another_type(net: Net) -> None:
    x = net.constant(torch.ones(1, 1, 3, 3).half())
    kernel = net.weights(torch.ones(1, 1, 1, 1))
    _mark(net, net.network.add_convolution_nd(x, 1, (1, 1), kernel, net.weights(None)))


def _gather_beyond(net: Net) -> None:
    x, index = net.constant(torch.ones(3)), net.constant(torch.tensor([3], dtype=torch.int32))
    _mark(net, net.network.add_gather(x, index, 0))


def _failing_assertion(net: Net) -> None:
    net.network.add_assertion(net.constant(torch.tensor([False])), "never true")
    net.network.mark_output(net.constant(torch.ones(1)))


def _scales_without_axis(net: Net) -> None:
    x, scale = net.constant(torch.ones(3, 2)), net.constant(torch.tensor([0.5, 0.5]))
    _mark(net, net.network.add_quantize(x, scale, net.trt.int8))


@pytest.mark.parametrize(
    ("define", "message"),
    [
        (_mixed_types, r"one type, they have torch\.float32, torch\.float16"),
        (_weights_of_another_type, r"kernel weights are torch\.float32, its input torch\.float16"),
        (_gather_beyond, "out of range for length 3"),
        (_failing_assertion, "never true"),
        (_scales_without_axis, "axis is not set"),
    ],
)
def test_finds_contradictions(define: Callable[[Net], None], message: str, bench: Bench) -> None:
    net = bench.net()
    define(net)
    with pytest.raises(NetworkMismatchError, match=message):
        _run(net)


def test_negative_index_of_a_dynamic_axis(bench: Bench) -> None:
    """Undefined, says the header."""
    net = bench.net()
    index = net.constant(torch.tensor([-1], dtype=torch.int32))
    _mark(net, net.network.add_gather(_input(net, -1), index, 0))
    with pytest.raises(UnsupportedLayer, match="on a static axis only"):
        _run(net, torch.ones(3))


def test_slice_out_of_bounds_of_a_dynamic_shape(bench: Bench) -> None:
    """The definition cannot know; the values do."""
    net = bench.net()
    x = _input(net, -1)
    _mark(net, net.network.add_slice(x, (0,), (4,), (1,)))
    (output,) = _run(net, torch.arange(5.0)).values()
    assert output.tolist() == [0.0, 1.0, 2.0, 3.0]
    with pytest.raises(NetworkMismatchError, match="leaves dimension 0"):
        _run(net, torch.arange(3.0))


def test_declared_shape_is_checked(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """An evaluation with a result of the wrong shape or type cannot pass unseen."""
    net = bench.net()
    _mark(net, net.network.add_unary(_input(net, 2, 3), bench.trt.UnaryOperation.NEG))
    wrong = Handler("IUnaryLayer", lambda view: view.value().t(), 0, ())
    monkeypatch.setitem(HANDLERS, "UNARY", wrong)
    with pytest.raises(NetworkMismatchError, match=r"shape \(2, 3\), has \(3, 2\)"):
        _run(net, torch.ones(2, 3))
    wrong = Handler("IUnaryLayer", lambda view: view.value().half(), None, ())
    monkeypatch.setitem(HANDLERS, "UNARY", wrong)
    with pytest.raises(NetworkMismatchError, match=r"declared torch\.float32, is torch\.float16"):
        _run(net, torch.ones(2, 3))
