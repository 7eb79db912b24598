"""Running a graph over data: what is counted, and what is left as it was."""

from __future__ import annotations

import copy
import math
import pickle
import random
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from small_requests import Passthrough, SmallNet, make_request
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from trtcompile.errors import CalibrationError
from trtcompile.inputs import Input
from trtcompile.ptq.channel_maxima import ChannelMaxima
from trtcompile.ptq.collect import Statistics, collect, show
from trtcompile.ptq.graph_copy import copied_to
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.request import CalibrationRequest

CPU = torch.device("cpu")


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def histogram_of(*tensors: Tensor) -> AbsHistogram:
    histogram = AbsHistogram()
    for tensor in tensors:
        histogram.update(tensor)
    return histogram


def counted(statistics: Statistics, name: str) -> AbsHistogram:
    return statistics.shared([name])


def test_the_values_of_the_model_are_counted() -> None:
    model = SmallNet()
    data = images(5)
    request = make_request(model, [Input((5, 3, 32, 32))])
    statistics = collect(request, [data], device=CPU)
    assert statistics.samples == 5
    with torch.no_grad():
        relu = torch.relu(nn.functional.conv2d(data, model.weight, padding=1))
        linear = model.linear(relu.mean((2, 3)))
    assert counted(statistics, "x") == histogram_of(data)
    assert counted(statistics, "relu") == histogram_of(relu)
    assert counted(statistics, "linear") == histogram_of(linear)


@pytest.mark.parametrize("loader_batch", [1, 7, 64])
def test_the_loaders_batch_size_does_not_matter(loader_batch: int) -> None:
    data = images(20)
    request = make_request(SmallNet())
    dataset = TensorDataset(data, torch.arange(20))
    statistics = collect(request, DataLoader(dataset, batch_size=loader_batch), device=CPU)
    reference = collect(request, [data], device=CPU)
    assert statistics.samples == 20
    for name in request.names:
        assert counted(statistics, name) == counted(reference, name)


def test_order_does_not_matter() -> None:
    data = images(9)
    request = make_request(SmallNet())
    forward = collect(request, [data], device=CPU)
    backward = collect(request, data.flip(0).split(2), device=CPU)
    for name in request.names:
        assert counted(forward, name) == counted(backward, name)


def test_the_remainder_is_counted() -> None:
    """The only large value is in the last, incomplete batch."""
    data = torch.zeros(10, 2)
    data[9, 1] = 100.0
    request = make_request(Passthrough(), [Input((4, 2))])
    statistics = collect(request, [data[:7], data[7:]], device=CPU)
    assert counted(statistics, "mul").amax == 100.0
    assert counted(statistics, "mul") == histogram_of(data)


def test_rows_that_fill_up_the_batch_are_not_counted() -> None:
    data = torch.arange(1, 6, dtype=torch.float32).reshape(5, 1)
    request = make_request(Passthrough(), [Input((4, 1))])
    assert counted(collect(request, [data], device=CPU), "mul") == histogram_of(data)


class Regrouped(nn.Module):
    """Dimension 0 becomes twice the batch, then no multiple of it, then nothing."""

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        pairs = x.reshape(8, 3) * 1.0
        columns = x.reshape(3, 8) * 1.0
        return pairs, columns, x.sum()


def test_rows_of_regrouped_values() -> None:
    data = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    request = make_request(Regrouped(), [Input((4, 6))])
    statistics = collect(request, [data], device=CPU)
    assert counted(statistics, "mul") == histogram_of(data)
    repeated = torch.cat([data, data[:1]])
    assert counted(statistics, "mul_1") == histogram_of(repeated)
    assert counted(statistics, "sum_1") == histogram_of(repeated.sum())


def test_labels_are_not_inputs() -> None:
    request = make_request(Passthrough(), [Input((2, 3))])
    data, labels = torch.ones(2, 3), torch.full((2, 3), 1000.0)
    statistics = collect(request, [(data, labels)], device=CPU)
    assert counted(statistics, "mul") == histogram_of(data)


class TwoInputs(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor]:
        return (a + b,)


def test_groups_count_the_values_of_all_members() -> None:
    request = make_request(TwoInputs(), [Input((2,)), Input((2,))], groups=[["a", "b"], ["add"]])
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([30.0, 40.0])
    statistics = collect(request, [(a, b)], device=CPU)
    assert statistics.shared(["a", "b"]) == histogram_of(a, b)
    assert counted(statistics, "a") == histogram_of(a)
    assert counted(statistics, "add") == histogram_of(a + b)


def with_alias(request: CalibrationRequest) -> CalibrationRequest:
    """The same request, whose node x also goes by the name alias, in one group with it."""
    return CalibrationRequest(
        graph=request.graph,
        groups=(("x", "alias"), ("mul",)),
        nodes={**request.nodes, "alias": request.nodes["x"]},
        fingerprints={**request.fingerprints, "alias": "f"},
        graph_hash="",
        arguments=request.arguments,
        device=CPU,
    )


def test_two_names_of_one_node_count_it_once() -> None:
    request = with_alias(make_request(Passthrough(), [Input((2,))]))
    data = torch.tensor([1.0, 2.0])
    statistics = collect(request, [data], device=CPU)
    assert statistics.shared(["x", "alias"]) == histogram_of(data)
    assert statistics.merged(statistics).shared(["x", "alias"]) == histogram_of(data, data)


def test_statistics_of_parts_merge_to_those_of_the_whole() -> None:
    data = images(8)
    request = make_request(SmallNet())
    first, second = (collect(request, [part], device=CPU) for part in data.split(5))
    whole = collect(request, [data], device=CPU)
    from_elsewhere = pickle.loads(pickle.dumps(second))  # noqa: S301 - our own bytes
    merged = first.merged(from_elsewhere)
    assert merged.samples == 8
    for name in request.names:
        assert counted(merged, name) == counted(whole, name)
    assert first.samples == 5
    other = collect(make_request(Passthrough(), [Input((2,))]), [torch.ones(2)], device=CPU)
    with pytest.raises(CalibrationError, match="different tensors"):
        first.merged(other)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_nonfinite_values_name_the_tensor_and_the_batch(bad: float) -> None:
    batches = [images(2), images(2), images(2)]
    batches[2][1, 0, 5, 5] = bad
    with pytest.raises(CalibrationError, match=r"Tensor 'x', batch 2 .*NaN or infinity"):
        collect(make_request(SmallNet()), batches, device=CPU)


@pytest.mark.parametrize("bad_batch", [0, 1, 2])
def test_what_is_found_late_names_its_batch(bad_batch: int) -> None:
    """Channel maxima do not look at once; a batch is checked when the next one was run."""
    batches = [torch.ones(2, 3) for _ in range(3)]
    batches[bad_batch][1, 2] = math.inf
    request = make_request(Passthrough(), [Input((2, 3))])
    observers = {node: ChannelMaxima(CPU) for node in request.nodes.values()}
    with pytest.raises(CalibrationError, match=rf"Tensor 'x', batch {bad_batch} .*NaN or infinity"):
        show(request, batches, observers, device=CPU)


def test_nonfinite_values_that_the_model_makes() -> None:
    class Log(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            return (x.log(),)

    request = make_request(Log(), [Input((2,))])
    with pytest.raises(CalibrationError, match=r"Tensor 'log', batch 0 "):
        collect(request, [torch.tensor([1.0, 0.0])], device=CPU)


@pytest.mark.parametrize("loader", [[], [torch.zeros(0, 3, 32, 32)]])
def test_no_samples_are_an_error(loader: list[Tensor]) -> None:
    with pytest.raises(CalibrationError, match="no samples"):
        collect(make_request(SmallNet()), loader, device=CPU)


def test_a_model_that_fails_on_the_data_is_explained() -> None:
    class Lookup(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(10, 4)

        def forward(self, tokens: Tensor) -> tuple[Tensor]:
            return (self.table(tokens),)

    request = make_request(Lookup(), [Input((2,), dtype=torch.int64)], observe=["table"])
    collect(request, [torch.tensor([0, 9])], device=CPU)
    with pytest.raises(
        CalibrationError, match=r"fails on batch 1 .*IndexError: index out of range"
    ):
        collect(request, [torch.tensor([0, 9]), torch.tensor([0, 10])], device=CPU)


def test_tensors_that_the_graph_creates_are_created_where_it_runs() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    elsewhere = {"device": torch.device("meta")}
    created = graph.call_function(torch.full, ((2,), 3.0), elsewhere)
    graph.output((graph.call_function(torch.add, (x, created)),))
    request = make_request(torch.fx.GraphModule(nn.Module(), graph), [Input((2,))])
    statistics = collect(request, [torch.ones(2)], device=CPU)
    assert counted(statistics, "add").amax == 4.0


def test_values_without_a_scale_are_explained() -> None:
    class Split(nn.Module):
        def forward(self, x: Tensor) -> Any:
            return torch.split(x, 1)

    request = make_request(Split(), [Input((2,))], observe=["split"])
    with pytest.raises(CalibrationError, match=r"'split', batch 0.* tuple has no scale"):
        collect(request, [torch.ones(2)], device=CPU)


def test_the_graph_and_the_model_stay_as_they_were() -> None:
    model = SmallNet()
    request = make_request(model)
    before = copy.deepcopy(request.graph.state_dict())
    pointers = {name: p.data_ptr() for name, p in request.graph.named_parameters()}
    code = request.graph.code
    collect(request, [images(3)], device=CPU)
    after = request.graph.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert {name: p.data_ptr() for name, p in request.graph.named_parameters()} == pointers
    assert all(p.grad is None and p.requires_grad for p in request.graph.parameters())
    assert request.graph.code == code


def test_random_states_stay_as_they_were() -> None:
    class Noisy(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            noise = random.random() + float(np.random.rand()) + torch.rand(1).item()  # noqa: NPY002
            return (super().__getitem__(index)[0] + noise,)

    loader = DataLoader(Noisy(images(4)), batch_size=2, shuffle=True)
    request = make_request(SmallNet())
    states = random.getstate(), np.random.get_state()[1].copy(), torch.get_rng_state()  # noqa: NPY002
    first = collect(request, loader, device=CPU)
    second = collect(request, loader, device=CPU)
    assert random.getstate() == states[0]
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), states[2])
    assert counted(first, "x") == counted(second, "x")


def test_the_loaders_code_runs_with_gradients() -> None:
    """A dataset may cache tensors that somebody trains with later."""
    seen = []

    def loader() -> Iterator[Tensor]:
        for _ in range(2):
            seen.append(torch.is_grad_enabled() and not torch.is_inference_mode_enabled())
            yield images(1)

    collect(make_request(SmallNet()), loader(), device=CPU)
    assert seen == [True, True]


def test_the_callers_autocast_does_not_change_the_values() -> None:
    request = make_request(SmallNet())
    plain = collect(request, [images(2)], device=CPU)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = collect(request, [images(2)], device=CPU)
    for name in request.names:
        assert counted(plain, name) == counted(under_autocast, name)


def test_copies_of_weights_are_freed_at_once() -> None:
    """Without waiting for the garbage collector: on a GPU they may be much of its memory."""
    request = make_request(SmallNet())
    copied, _ = copied_to(request.graph, torch.device("meta"))
    tensors = [*copied.parameters(), *copied.buffers()]
    assert len(tensors) == 3 and all(tensor.is_meta for tensor in tensors)
    assert all(not tensor.is_meta for tensor in request.graph.parameters())
    copies = [weakref.ref(tensor) for tensor in tensors]
    del copied, tensors
    assert [ref() for ref in copies] == [None] * 3


def test_batches_are_freed_while_more_are_read() -> None:
    """At most the batch in use and the one being made are alive."""
    alive: list[weakref.ref[Tensor]] = []

    def loader() -> Iterator[Tensor]:
        for seed in range(6):
            batch = images(3, seed)
            alive.append(weakref.ref(batch))
            yield batch
            del batch
            assert sum(ref() is not None for ref in alive) <= 2

    collect(make_request(SmallNet(), [Input((2, 3, 32, 32))]), loader(), device=CPU)


@pytest.mark.gpu
def test_calibrating_on_cuda_counts_nearly_the_same() -> None:
    class MakesTensors(SmallNet):
        def forward(self, x: Tensor) -> tuple[Tensor]:
            ramp = torch.arange(32, dtype=torch.float32, device=torch.device("cpu"))
            return super().forward(x + ramp / 32)

    request = make_request(MakesTensors(), [Input((4, 3, 32, 32))])
    on_cpu = collect(request, [images(10)], device=CPU)
    on_cuda = collect(request, [images(10)], device=torch.device("cuda:0"))
    assert all(parameter.device.type == "cpu" for parameter in request.graph.parameters())
    for name in request.names:
        cpu, cuda = counted(on_cpu, name), counted(on_cuda, name)
        assert cuda.device.type == "cuda"
        assert cuda.total == cpu.total
        assert cuda.amax == pytest.approx(cpu.amax, rel=1e-2)
    bad = images(2)
    bad[1, 0, 0, 0] = math.nan
    with pytest.raises(CalibrationError, match=r"Tensor 'x', batch 1 .*NaN or infinity"):
        collect(request, [images(4), bad], device=torch.device("cuda:0"))
