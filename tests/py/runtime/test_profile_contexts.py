"""Which execution context a session takes; and, on a GPU, engines with several optimization profiles."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from checks import randomize
from hand_compiled import BUILT_BY
from loaded_modules import saved_and_loaded
from torch import nn

import trtcompile
from trtcompile import Device, Dim, InputMismatchError, TRTModule
from trtcompile.engine import Engine
from trtcompile.errors import EngineLoadError
from trtcompile.runtime.session import EngineSession

ONE = (((1, 3), (1, 3), (1, 3)),)
MANY = (((2, 3), (16, 3), (32, 3)),)


class Context:
    def __init__(self, accepts: bool) -> None:
        self.accepts = accepts
        self.profiles: list[tuple[int, int]] = []

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.profiles.append((index, stream))
        return self.accepts


def session_of(*profiles: Any, accepts: bool = True) -> tuple[EngineSession, list[Context]]:
    """A session without TensorRT and without a GPU, which can choose contexts and do nothing else."""
    made: list[Context] = []

    def create_execution_context() -> Context:
        made.append(Context(accepts))
        return made[-1]

    session = object.__new__(EngineSession)
    session._engine = Engine("engine_0", b"", (), (), profiles, BUILT_BY)
    session._contexts = {}
    session._cuda_engine = SimpleNamespace(create_execution_context=create_execution_context)
    session._stream = SimpleNamespace(cuda_stream=77, synchronize=lambda: None)  # type: ignore[assignment]
    session._logger = SimpleNamespace(lines=["out of memory"])
    return session, made


def rows(count: int) -> list[torch.Tensor]:
    return [torch.zeros(count, 3)]


def test_each_profile_has_a_context_of_its_own() -> None:
    session, made = session_of(ONE, MANY)
    large = session._context_for(rows(16))
    small = session._context_for(rows(1))
    assert made == [large, small]
    assert session._context_for(rows(32)) is session._context_for(rows(2)) is large
    assert session._context_for(rows(1)) is small
    assert len(made) == 2
    assert (large.profiles, small.profiles) == ([(1, 77)], [(0, 77)])


def test_the_first_profile_that_takes_the_shapes() -> None:
    session, made = session_of(MANY, MANY)
    session._context_for(rows(5))
    assert [context.profiles for context in made] == [[(0, 77)]]


def test_with_one_profile_there_is_nothing_to_choose() -> None:
    session, made = session_of(MANY)
    assert session._context_for(rows(5)) is session._context_for(rows(7))
    assert [context.profiles for context in made] == [[]]


def test_shapes_that_no_profile_takes() -> None:
    session, made = session_of(ONE, MANY)
    with pytest.raises(InputMismatchError, match=r"engine_0 have the shapes \[33, 3\].*its 2 opt"):
        session._context_for(rows(33))
    assert not made


def test_tensorrt_refuses() -> None:
    session, _ = session_of(ONE, MANY, accepts=False)
    with pytest.raises(EngineLoadError, match=r"engine_0 for optimization profile 1: out of mem"):
        session._context_for(rows(4))
    assert not session._contexts


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.block = nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.tanh(self.conv(x))
        return self.head(torch.relu(self.block(y) + y).mean((2, 3)))


PROFILES = [{"batch": (1, 1, 1)}, {"batch": (2, 16, 32)}]


def compile_(model: nn.Module, **options: Any) -> TRTModule:
    batch = Dim("batch", min=1, opt=8, max=32)
    return trtcompile.compile(
        model,
        [(batch, 3, 16, 16)],
        **{
            "optimization_profiles": PROFILES,
            "device": Device(disable_tf32=True),
            "min_block_size": 1,
            "optimization_level": 1,
            **options,
        },
    )


def check(compiled: nn.Module, model: nn.Module) -> None:
    """Back and forth between the profiles; a result that is kept stays as it was."""
    kept = []
    for batch in (1, 16, 2, 1, 32, 16, 1, 2):
        x = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(batch)).cuda()
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            kept.append((compiled(x), model(x)))
    for result, expected in kept:
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-4)


@pytest.fixture
def model() -> nn.Module:
    return randomize(Net(), 0).cuda()


@pytest.mark.gpu
@pytest.mark.parametrize("use_cuda_graphs", [False, True], ids=["plain", "CUDA graphs"])
@pytest.mark.parametrize("fallbacks", [set(), {"aten.tanh"}], ids=["one engine", "two engines"])
def test_batches_of_both_profiles(
    model: nn.Module, fallbacks: set[str], use_cuda_graphs: bool
) -> None:
    compiled = compile_(model, torch_executed_ops=fallbacks, use_cuda_graphs=use_cuda_graphs)
    assert [len(engine.profiles) for engine in compiled.engines] == [2] * (1 + len(fallbacks))
    check(compiled, model)
    for module in compiled.engine_modules:
        session = module.session()
        assert session._cuda_engine.num_optimization_profiles == 2
        assert {index: c.active_optimization_profile for index, c in session._contexts.items()} == {
            0: 0,
            1: 1,
        }
        name = module.engine.inputs[0].name
        ranges = [session._cuda_engine.get_tensor_profile_shape(name, i) for i in range(2)]
        found = [tuple(tuple(shape) for shape in one) for one in ranges]
        assert found == [profile[0] for profile in module.engine.profiles]


@pytest.mark.gpu
@pytest.mark.parametrize("use_cuda_graphs", [False, True], ids=["plain", "CUDA graphs"])
def test_a_loaded_module(model: nn.Module, use_cuda_graphs: bool, tmp_path: Path) -> None:
    compiled = compile_(model, use_cuda_graphs=use_cuda_graphs)
    check(saved_and_loaded(compiled, tmp_path / "module"), model)


@pytest.mark.gpu
def test_other_streams(model: nn.Module) -> None:
    """The contexts of two profiles, made and used on streams of the caller."""
    compiled = compile_(model)
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    results = []
    for index, batch in enumerate((1, 16, 2, 1, 32, 1)):
        x = torch.randn(batch, 3, 16, 16, generator=torch.Generator().manual_seed(index)).cuda()
        torch.cuda.synchronize()
        with torch.cuda.stream(streams[index % 2]):
            results.append((x, compiled(x * 2 / 2)))
    torch.cuda.synchronize()
    for x, result in results:
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            torch.testing.assert_close(result, model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize("use_cuda_graphs", [False, True], ids=["plain", "CUDA graphs"])
@pytest.mark.parametrize("sizes", [(4,), (1, 4)])
def test_profiles_of_one_size_each(
    model: nn.Module, sizes: tuple[int, ...], use_cuda_graphs: bool
) -> None:
    profiles = [{"batch": (size,) * 3} for size in sizes]
    compiled = compile_(model, optimization_profiles=profiles, use_cuda_graphs=use_cuda_graphs)
    for size in (*sizes, *sizes):
        x = torch.randn(size, 3, 16, 16).cuda()
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.gpu
def test_the_gap(model: nn.Module) -> None:
    batch = Dim("batch", min=1, opt=8, max=32)
    compiled = trtcompile.compile(
        model,
        [(batch, 3, 16, 16)],
        optimization_profiles=[{"batch": (1, 1, 1)}, {"batch": (8, 16, 32)}],
        optimization_level=0,
    )
    with pytest.raises(InputMismatchError, match="no optimization profile takes"):
        compiled(torch.zeros(4, 3, 16, 16).cuda())


@pytest.mark.gpu
def test_torch_compile_with_a_range() -> None:
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 8)).eval().cuda()
    torch._dynamo.reset()
    options = {"device": Device(disable_tf32=True), "min_block_size": 1, "optimization_level": 1}
    compiled = torch.compile(model, backend="trt", options=options)
    for batch in (4, 2, 32, 7):
        x = torch.randn(batch, 16).cuda()
        torch._dynamo.mark_dynamic(x, 0, min=2, max=32)
        with torch.no_grad(), torch.backends.cudnn.flags(allow_tf32=False):
            torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()
