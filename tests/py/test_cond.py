"""``torch.cond``: PyTorch runs it with its branches, and engines what is around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn

import trtcompile
from trtcompile import Dim, UnsupportedGraphError
from trtcompile.backend import compiled_graph
from trtcompile.lowering.retarget import set_device
from trtcompile.ptq import DataLoaderCalibrator


class Chooses(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.small = nn.Linear(4, 4)
        self.large = nn.Linear(4, 4)
        self.last = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.first(x).tanh()
        z = torch.cond(
            x.mean() > 0,
            lambda y: self.large(y).relu() * 3,
            lambda y: self.small(y) - torch.ones(4, device=y.device),
            (y,),
        )
        return self.last(z).sigmoid()


class Nests(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        def positive(y: torch.Tensor) -> torch.Tensor:
            return torch.cond(y.mean() > 1, lambda z: z + 5, lambda z: z - 7, (y,))

        return torch.cond(x.mean() > 0, positive, lambda y: y * 2, (x.tanh() * 4,)) * 3


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Chooses:
    install_oracle(monkeypatch)
    chooses = Chooses()
    randomize(chooses, 0)
    return chooses


def samples(rows: int = 2) -> list[torch.Tensor]:
    """For each branch one."""
    x = torch.randn(rows, 4)
    return [x - x.mean() + 1, x - x.mean() - 1]


def compile_(model: nn.Module, shape: Any = (2, 4), **options: Any) -> trtcompile.TRTModule:
    options = {"device": build_device(), "min_block_size": 1, **options}
    return trtcompile.compile(model.eval(), [shape], **options)


def check(run: Any, model: nn.Module, inputs: list[torch.Tensor], tolerance: float = 1e-5) -> None:
    results = []
    for x in inputs:
        with torch.no_grad():
            results.append(model(x))
            torch.testing.assert_close(run(x), results[-1], rtol=tolerance, atol=tolerance)
    assert not torch.allclose(results[0], results[1], atol=0.1)  # the branches do differ


def test_both_branches(model: Chooses) -> None:
    module = compile_(model)
    check(module, model, samples())
    check(module.lowered, model, samples())
    assert len(module.engines) == 2
    (row,) = module.report.fallbacks  # type: ignore[union-attr]
    assert row.operator == "cond"
    assert (
        row.reason == "cond runs graphs of its own, such as one of two branches, which PyTorch does"
    )
    assert "<eval_with_key>" not in row.source


def test_a_dynamic_batch(model: Chooses) -> None:
    module = compile_(model, (Dim("batch", min=1, opt=2, max=5), 4))
    for rows in (1, 2, 5):
        check(module, model, samples(rows))


@pytest.mark.parametrize("precision", [torch.half, torch.int8])
def test_other_precisions(model: Chooses, precision: torch.dtype) -> None:
    options: dict[str, Any] = {"enabled_precisions": {precision}}
    if precision == torch.int8:
        options["calibrator"] = DataLoaderCalibrator([torch.cat(samples(8))])
    check(compile_(model, **options), model, samples(), tolerance=0.1)


def test_nested(monkeypatch: pytest.MonkeyPatch) -> None:
    install_oracle(monkeypatch)
    module = compile_(Nests())
    x = torch.rand(2, 4)
    check(module, Nests(), [x * 0.01 + 0.01, -x, x + 2])


def test_an_exported_program(model: Chooses) -> None:
    with torch.no_grad():
        program = torch.export.export(model, (torch.randn(2, 4),))
    module = trtcompile.compile(program, device=build_device(), min_block_size=1)
    check(module, model, samples())


def test_torch_compile(model: Chooses, monkeypatch: pytest.MonkeyPatch) -> None:
    torch._dynamo.reset()
    modules = []
    compile_captured = compiled_graph.compile_captured

    def remembering(*args: Any, **kwargs: Any) -> trtcompile.TRTModule:
        modules.append(compile_captured(*args, **kwargs))
        return modules[-1]

    monkeypatch.setattr(compiled_graph, "compile_captured", remembering)
    options = {"device": build_device(), "min_block_size": 1}
    check(torch.compile(model, backend="trt", fullgraph=True, options=options), model, samples())
    torch._dynamo.reset()
    (module,) = modules
    assert [row.operator for row in module.report.fallbacks] == ["cond"]  # type: ignore[union-attr]
    assert len(module.engines) == 2


def test_the_branches_count_for_what_identifies_a_model(model: Chooses) -> None:
    class Other(Chooses):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.first(x).tanh()
            z = torch.cond(
                x.mean() > 0,
                lambda y: self.large(y).relu() * 4,  # instead of 3
                lambda y: self.small(y) - torch.ones(4, device=y.device),
                (y,),
            )
            return self.last(z).sigmoid()

    other = Other().eval()
    other.load_state_dict(model.state_dict())
    assert compile_(model).graph_hash == compile_(model).graph_hash != compile_(other).graph_hash


def test_devices_in_the_branches_follow_and_those_of_the_simulation_stay(model: Chooses) -> None:
    module = compile_(model)

    def devices(graph: torch.fx.GraphModule) -> set[str]:
        nodes = [
            n for m in graph.modules() if isinstance(m, torch.fx.GraphModule) for n in m.graph.nodes
        ]
        return {str(node.kwargs["device"]) for node in nodes if "device" in node.kwargs}

    set_device(module.executor, torch.device("meta"))
    assert devices(module.executor) == {"meta"}
    assert devices(module.lowered) == {"cpu"}


def test_saving_is_refused(model: Chooses, tmp_path: Path) -> None:
    module = compile_(model)
    with pytest.raises(UnsupportedGraphError, match=r"a call of cond.*torch\.cond, graphs of"):
        trtcompile.save(module, tmp_path / "module")
    assert list(tmp_path.iterdir()) == []
