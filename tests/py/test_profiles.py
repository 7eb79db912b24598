"""``optimization_profiles``: what each engine is built with, and which profile a call takes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import Dim, Input, InputMismatchError, SettingsError, engine
from trtcompile.engine import Engine, Provenance
from trtcompile.profiles import check_in_a_profile, resolve_profiles
from trtcompile.settings import CompileSpec

BATCH = Dim("batch", min=1, opt=8, max=32)
LENGTH = Dim("length", min=4, opt=8, max=16)
TWO = [{"batch": (1, 1, 1)}, {"batch": (4, 16, 32)}]


def resolved(inputs: list[Input], *profiles: Any) -> Any:
    return resolve_profiles(
        inputs, CompileSpec(optimization_profiles=profiles).optimization_profiles
    )


class TestResolve:
    def test_a_dimension_that_is_not_named_keeps_its_range(self) -> None:
        inputs = [Input((BATCH, LENGTH, 2)), Input((5, BATCH))]
        first, second = resolved(inputs, *TWO)
        assert [(i.min_shape, i.opt_shape, i.max_shape) for i in first] == [
            ((1, 4, 2), (1, 8, 2), (1, 16, 2)),
            ((5, 1), (5, 1), (5, 1)),
        ]
        assert [(i.min_shape, i.opt_shape, i.max_shape) for i in second] == [
            ((4, 4, 2), (16, 8, 2), (32, 16, 2)),
            ((5, 4), (5, 16), (5, 32)),
        ]
        assert resolve_profiles(inputs, None) == (tuple(inputs),)

    @pytest.mark.parametrize(
        ("profile", "said"),
        [
            ({"rows": (1, 1, 1)}, r"profile 1 has the dimension 'rows', .* have 'batch', 'length'"),
            ({"batch": (0, 1, 1)}, r"profile 1 has min 0 opt 1 max 1 for 'batch'.*from 1 to 32"),
            ({"batch": (1, 8, 33)}, "max 33 for 'batch'"),
        ],
    )
    def test_refused(self, profile: Any, said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            resolved([Input((BATCH, LENGTH))], {}, profile)

    def test_no_named_dimension_at_all(self) -> None:
        with pytest.raises(SettingsError, match="the inputs have none with a name"):
            resolved([Input((3, 4))], *TWO)

    def test_the_first_check_is_of_all_inputs_together(self) -> None:
        inputs = [Input((BATCH, 2)), Input((LENGTH,))]
        profiles = resolved(
            inputs,
            {"batch": (1, 1, 1)},
            {"batch": (2, 2, 4), "length": (4, 4, 8)},
        )
        check_in_a_profile(profiles, [(1, 2), (16,)])
        check_in_a_profile(profiles, [(2, 2), (8,)])
        with pytest.raises(InputMismatchError) as caught:
            check_in_a_profile(profiles, [(2, 2), (16,)])
        assert "[2, 2], [16]" in str(caught.value)
        assert "batch min 1 opt 1 max 1, length min 4 opt 8 max 16" in str(caught.value)
        assert "batch min 2 opt 2 max 4, length min 4 opt 4 max 8" in str(caught.value)


class Net(nn.Module):
    """Two engines where the sigmoid is left to PyTorch; the second one's batch is twice the first one's."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4)
        self.last = nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.sigmoid(self.first(x).relu())
        return self.last(torch.cat([y, -y])).tanh()


class Compiled:
    """Compiles, and keeps the builder configurations."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.configs: list[Any] = []
        configure = engine._configure

        def keeping(config: Any, *args: Any) -> None:
            self.configs.append(config)
            configure(config, *args)

        monkeypatch.setattr(engine, "_configure", keeping)

    def __call__(self, model: nn.Module, inputs: Any, **options: Any) -> trtcompile.TRTModule:
        options = {"device": build_device(), "min_block_size": 1, **options}
        return trtcompile.compile(model.eval(), inputs, **options)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Compiled:
    install_oracle(monkeypatch)
    return Compiled(monkeypatch)


class TestCompile:
    def test_one_engine(self, compiled: Compiled) -> None:
        model = Net()
        module = compiled(model, [(BATCH, 3)], optimization_profiles=TWO)
        assert [config.num_optimization_profiles for config in compiled.configs] == [2]
        assert module.engines[0].profiles == (
            (((1, 3), (1, 3), (1, 3)),),
            (((4, 3), (16, 3), (32, 3)),),
        )
        for batch in (1, 4, 16, 32):
            x = torch.randn(batch, 3)
            with torch.no_grad():
                torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)
        for batch in (2, 3):  # the gap
            with pytest.raises(InputMismatchError, match="batch min 1 opt 1 max 1; batch min 4"):
                module(torch.randn(batch, 3))

    def test_each_engine_has_its_own_ranges(self, compiled: Compiled) -> None:
        model = Net()
        module = compiled(
            model,
            [(BATCH, 3)],
            optimization_profiles=TWO,
            torch_executed_ops={"aten.sigmoid", "aten.cat", "aten.neg"},
        )
        assert [config.num_optimization_profiles for config in compiled.configs] == [2, 2]
        assert module.engines[1].profiles == (
            (((2, 4), (2, 4), (2, 4)),),
            (((8, 4), (32, 4), (64, 4)),),
        )
        for batch in (1, 32):
            x = torch.randn(batch, 3)
            with torch.no_grad():
                torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("sizes", [(4,), (1, 4)])
    def test_profiles_of_one_size_each(self, compiled: Compiled, sizes: tuple[int, ...]) -> None:
        """TensorRT has to be told the shape at each call."""
        model = Net()
        profiles = [{"batch": (size,) * 3} for size in sizes]
        module = compiled(model, [(BATCH, 3)], optimization_profiles=profiles)
        assert [config.num_optimization_profiles for config in compiled.configs] == [len(sizes)]
        assert not module.engines[0].is_static
        for size in sizes:
            x = torch.randn(size, 3)
            with torch.no_grad():
                torch.testing.assert_close(module(x), model(x), rtol=1e-4, atol=1e-5)
        with pytest.raises(InputMismatchError):
            module(torch.randn(2, 3))

    def test_without_the_option_there_is_one(self, compiled: Compiled) -> None:
        module = compiled(Net(), [(BATCH, 3)])
        assert [config.num_optimization_profiles for config in compiled.configs] == [1]
        assert module.engines[0].profiles == ((((1, 3), (8, 3), (32, 3)),),)

    def test_an_engine_that_no_dimension_enters(self, compiled: Compiled) -> None:
        class Apart(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:
                return torch.cumsum(x, 1) * 2, torch.sigmoid(y).tanh()

        module = compiled(
            Apart(),
            [(BATCH, 3), (2, 2)],
            optimization_profiles=TWO,
            torch_executed_ops={"aten.cumsum", "aten.mul"},
        )
        assert [config.num_optimization_profiles for config in compiled.configs] == [0]
        assert module.engines[0].profiles == ((((2, 2),) * 3,),)
        assert module.engines[0].is_static
        x, y = torch.randn(4, 3), torch.randn(2, 2)
        torch.testing.assert_close(module(x, y)[1], y.sigmoid().tanh())
        with pytest.raises(InputMismatchError, match="no optimization profile takes"):
            module(x[:2], y)

    def test_a_size_that_must_be_as_large_follows(self, compiled: Compiled) -> None:
        class Adds(nn.Module):
            def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
                return x.relu() + y

        ranged = Input(min_shape=(1, 3), opt_shape=(8, 3), max_shape=(32, 3))
        module = compiled(Adds(), [ranged, (BATCH, 3)], optimization_profiles=TWO)
        assert module.engines[0].profiles[0] == (((1, 3),) * 3,) * 2

    def test_refused_before_any_work(
        self, compiled: Compiled, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("trtcompile.compiler.capture", None)
        for run in (compiled, trtcompile.dry_run):
            with pytest.raises(SettingsError, match="dimension 'rows'"):
                run(Net(), [(BATCH, 3)], optimization_profiles=[{"rows": (1, 1, 1)}])


def an_engine(*profiles: Any) -> Engine:
    return Engine("engine_0", b"", (), (), profiles, Provenance("TensorRT", "10.6", ("9.0",), None))


class TestChoice:
    def test_the_first_that_takes_all_inputs(self) -> None:
        small = (((1, 2), (1, 2), (4, 2)), ((1,), (1,), (4,)))
        large = (((2, 2), (8, 2), (32, 2)), ((2,), (8,), (32,)))
        built = an_engine(small, large)
        assert built.profile_for([(1, 2), (4,)]) == 0
        assert built.profile_for([(3, 2), (3,)]) == 0  # both take it
        assert built.profile_for([(3, 2), (5,)]) == 1
        assert built.profile_for([(32, 2), (32,)]) == 1
        assert built.profile_for([(1, 2), (5,)]) is None
        assert built.profile_for([(33, 2), (5,)]) is None
        assert built.profile_for([(3, 3), (3,)]) is None
        assert built.profile_for([(3, 2, 1), (3,)]) is None
