"""From a module to a flat functional graph, the module left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from checks import operators
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from trtcompile import Input, SettingsError, TRTCompileWarning, UnsupportedGraphError
from trtcompile.capture import CapturedGraph, capture, own_constants
from trtcompile.inputs import parse_inputs


class Function(nn.Module):
    """A function as a module whose forward takes any number of tensors."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function
        self.eval()

    def forward(self, *args: Any) -> Any:
        return self.function(*args)


def captured(model: nn.Module, *inputs: Any) -> CapturedGraph:
    return capture(model, parse_inputs(list(inputs)))


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.register_buffer("offset", torch.randn(4, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.norm(self.conv(x))) + self.offset


class TestGraph:
    def test_flat_inputs_and_outputs(self) -> None:
        class Nested(nn.Module):
            def forward(self, x: dict[str, Any], y: list[torch.Tensor]) -> dict[str, Any]:
                return {"sum": x["a"] + y[0], "rest": (x["b"] * y[1], None, 3)}

        graph = captured(Nested().eval(), {"a": (2,), "b": (3,)}, [Input((2,)), (3,)])
        placeholders = [n for n in graph.graph_module.graph.nodes if n.op == "placeholder"]
        assert [tuple(n.meta["val"].shape) for n in placeholders] == [(2,), (3,), (2,), (3,)]
        a, b, c, d = (torch.randn(s) for s in (2, 3, 2, 3))
        outputs = torch.fx.Interpreter(graph.graph_module).run(a, b, c, d)
        structured = torch.utils._pytree.tree_unflatten(list(outputs), graph.out_spec)
        assert torch.equal(structured["sum"], a + c)
        assert torch.equal(structured["rest"][0], b * d)
        assert structured["rest"][1:] == (None, 3)

    def test_weights_are_shared_until_they_are_owned(self) -> None:
        model = Net().eval()
        result = captured(model, (1, 3, 8, 8))
        graph = result.graph_module
        x = torch.randn(1, 3, 8, 8)
        expected = model(x)
        theirs = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
        assert result.borrowed and result.borrowed <= theirs
        own_constants(result, graph)
        own = {t.data_ptr() for t in graph.buffers()}
        held = {n.meta["val"].data_ptr() for n in graph.graph.nodes if n.op == "get_attr"}
        assert held == own
        assert own and not own & {t.data_ptr() for t in (*model.parameters(), *model.buffers())}
        with torch.no_grad():
            for tensor in (*model.parameters(), *model.buffers()):
                tensor.zero_()
        torch.testing.assert_close(graph(x)[0], expected)
        assert not list(graph.parameters()) and all(not t.requires_grad for t in graph.buffers())

    def test_a_shared_weight_is_kept_once(self) -> None:
        class Twice(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Linear(4, 4, bias=False)
                self.b = nn.Linear(4, 4, bias=False)
                self.b.weight = self.a.weight

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return self.b(self.a(x))

        graph = captured(Twice().eval(), (1, 4)).graph_module
        assert len(list(graph.buffers())) == 1

    def test_operators_to_keep_whole(self) -> None:
        model = Function(torch.nn.functional.hardswish)
        whole = torch.ops.aten.hardswish.default
        graph = capture(model.eval(), parse_inputs([(3,)]), undecomposed=[whole]).graph_module
        assert operators(graph) == ["aten.hardswish.default"]

    @pytest.mark.parametrize(
        "make",
        [
            lambda x: x.to(memory_format=torch.channels_last),
            lambda x: x.transpose(2, 3).contiguous().transpose(2, 3),
        ],
    )
    def test_layout_of_weights_does_not_matter(self, make: Any) -> None:
        model = Net().eval()
        x = torch.randn(1, 3, 8, 8)
        expected = model(x)
        model.conv.weight = nn.Parameter(make(model.conv.weight))
        torch.testing.assert_close(captured(model, x).graph_module(x)[0], expected)


class TestDynamicShapes:
    @given(st.integers(1, 8))
    def test_every_size_in_range(self, batch: int) -> None:
        graph = self._dynamic()
        x = torch.randn(batch, 3, 8, 8)
        assert graph(x)[0].shape == (batch, 4, 6, 6)

    def _dynamic(self) -> Any:
        if not hasattr(type(self), "_graph"):
            model = Net().eval()
            spec = Input(min_shape=(1, 3, 8, 8), opt_shape=(1, 3, 8, 8), max_shape=(8, 3, 8, 8))
            type(self)._graph = captured(model, spec).graph_module  # type: ignore[attr-defined]
        return type(self)._graph  # type: ignore[attr-defined]

    def test_sizes_that_must_be_equal_become_one(self) -> None:
        ranged = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3))
        graph = captured(Function(lambda x, y: x + y), ranged, ranged).graph_module
        x, y = torch.randn(5, 3), torch.randn(5, 3)
        torch.testing.assert_close(graph(x, y)[0], x + y)

    def test_sizes_that_may_differ_stay_apart(self) -> None:
        ranged = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3))
        graph = captured(Function(lambda x, y: torch.cat([x, y])), ranged, ranged).graph_module
        assert graph(torch.randn(2, 3), torch.randn(7, 3))[0].shape == (9, 3)

    def test_equal_sizes_need_equal_ranges(self) -> None:
        one = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3))
        other = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(9, 3))
        with pytest.raises(UnsupportedGraphError, match="same range"):
            captured(Function(lambda x, y: x + y), one, other)

    @pytest.mark.parametrize(
        "function",
        [
            lambda x: x.reshape(4, 3) * 2,
            lambda x: x.reshape(-1, 2, 3),
            lambda x: x + 1 if x.shape[0] > 4 else x,
        ],
        ids=["fixed", "even", "branch"],
    )
    def test_a_model_that_does_not_take_the_range(self, function: Any) -> None:
        ranged = Input(min_shape=(1, 3), opt_shape=(4, 3), max_shape=(8, 3))
        with pytest.raises(UnsupportedGraphError, match="cannot trace the model"):
            captured(Function(function), ranged)


class TestRefused:
    def test_no_module(self) -> None:
        with pytest.raises(UnsupportedGraphError, match=r"is a function, not an nn.Module"):
            capture(torch.nn.functional.relu, parse_inputs([(1,)]))

    def test_too_many_inputs(self) -> None:
        with pytest.raises(
            SettingsError, match=r"inputs has 2 entries, and the model is forward\(input"
        ):
            captured(nn.ReLU().eval(), (1,), (1,))

    def test_too_few_inputs(self) -> None:
        with pytest.raises(SettingsError, match="missing a required argument: 'y'"):
            captured(Adds(), (1,))

    def test_data_dependent_code(self) -> None:
        with pytest.raises(
            UnsupportedGraphError, match=r"(?s)cannot trace.*data-dependent.*torch.compile"
        ):
            captured(Function(lambda x: x + 1 if x.sum() > 0 else x), (3,))

    def test_the_model_itself_fails(self) -> None:
        with pytest.raises(UnsupportedGraphError, match="no kernel for that"):
            captured(Function(_raise), (3,))

    @pytest.mark.parametrize("what", ["buffer", "input"])
    def test_a_model_that_writes(self, what: str) -> None:
        class Writes(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.register_buffer("count", torch.zeros(3))

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                (self.count if what == "buffer" else x).add_(1)
                return x * self.count

        model = Writes().eval()
        with pytest.raises(UnsupportedGraphError, match=r"writes to .*an engine has no state"):
            captured(model, (3,))
        assert torch.equal(model.count, torch.zeros(3))


class Adds(nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


def _raise(x: torch.Tensor) -> torch.Tensor:
    raise ValueError("no kernel for that")


class TestTheModelStaysAsItWas:
    def test_train_mode_is_compiled_as_eval_with_a_warning(self) -> None:
        model = Net().train()
        x = torch.randn(2, 3, 8, 8)
        with pytest.warns(TRTCompileWarning, match="train mode.*compiled as in eval mode"):
            graph = captured(model, x).graph_module
        assert all(module.training for module in model.modules())
        torch.testing.assert_close(graph(x)[0], copy.deepcopy(model).eval()(x))

    def test_each_training_flag_is_kept(self) -> None:
        model = Net().train()
        model.norm.eval()
        with pytest.warns(TRTCompileWarning):
            captured(model, (2, 3, 8, 8))
        assert [m.training for m in model.modules()] == [True, True, False, True]

    @pytest.mark.parametrize("fails", [False, True])
    def test_attributes_that_forward_sets(self, fails: bool) -> None:
        class Counts(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(3, 3)
                self.calls = 0

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                self.calls += 1
                self.late = "set in forward"
                self.inner.seen = tuple(x.shape)
                if fails:
                    raise ValueError("afterwards")
                return self.inner(x)

        model = Counts().eval()
        before = [dict(vars(m)) for m in model.modules()]
        try:
            captured(model, (1, 3))
        except UnsupportedGraphError:
            assert fails
        assert [dict(vars(m)) for m in model.modules()] == before
        assert model.calls == 0 and not hasattr(model, "late")

    def test_hooks_that_forward_registers(self) -> None:
        """As Transformers' models do at their first call: registered twice, they would record everything twice."""

        class Records(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = nn.Linear(3, 3)
                self.recorded: list[torch.Tensor] = []
                self.is_recording = False

            def forward(self, x: torch.Tensor) -> torch.Tensor:
                if not self.is_recording:
                    self.inner.register_forward_hook(self.record)
                    self.inner.register_forward_pre_hook(lambda module, args: None)
                    self.is_recording = True
                self.inner(x)
                total = torch.stack(self.recorded).sum(0)
                self.recorded.clear()
                return total

            def record(self, module: nn.Module, args: object, output: torch.Tensor) -> None:
                self.recorded.append(output)

        model = Records().eval()
        captured(model, (1, 3))
        assert not model.inner._forward_hooks and not model.inner._forward_pre_hooks
        x = torch.randn(1, 3)
        torch.testing.assert_close(model(x), model.inner.forward(x))
        (graph_output,) = captured(model, x).graph_module(x)
        torch.testing.assert_close(graph_output, model(x))
        assert len(model.inner._forward_hooks) == 1  # what the call itself has registered

    def test_parameters_are_the_same_objects_after_a_failure(self) -> None:
        class Fails(Net):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                super().forward(x)
                raise ValueError("late")

        model = Fails().eval()
        before = {name: (t, t.clone(), t.requires_grad) for name, t in model.named_parameters()}
        with pytest.raises(UnsupportedGraphError):
            captured(model, (1, 3, 8, 8))
        after = dict(model.named_parameters())
        assert list(after) == list(before)
        for name, (tensor, value, requires_grad) in before.items():
            assert after[name] is tensor and type(tensor) is nn.Parameter
            assert torch.equal(tensor, value) and tensor.requires_grad == requires_grad
