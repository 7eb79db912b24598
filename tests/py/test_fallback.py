"""What goes to PyTorch: by option, and because TensorRT turns out to refuse it; and the report of a dry run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import (
    CompileSpec,
    ConversionError,
    EngineBuildError,
    SettingsError,
    TRTCompileWarning,
    UnsupportedGraphError,
)
from trtcompile.conversion import REGISTRY
from trtcompile.ptq import CacheCalibrator

aten = torch.ops.aten
X = torch.randn(2, 6)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.linear(x))


class Blocks(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = Block(), Block(), Block()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x))).relu()


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Blocks:
    install_oracle(monkeypatch)
    return Blocks().eval()


def compiled(model: nn.Module, **options: Any) -> trtcompile.TRTModule:
    return trtcompile.compile(
        model, [(2, 6)], **{"device": build_device(), "min_block_size": 1, **options}
    )


def check(module: trtcompile.TRTModule, model: nn.Module) -> list[str]:
    """The names of what runs in PyTorch; the numbers are right all the same."""
    with torch.no_grad():
        torch.testing.assert_close(module(X), model(X), rtol=1e-4, atol=1e-5)
    return [row.name for row in module.report.fallbacks]


class TestOptions:
    def test_by_module(self, model: Blocks) -> None:
        module = compiled(model, torch_executed_modules={"second"})
        assert check(module, model) == ["linear_1", "tanh_1"]
        assert len(module.engines) == 2
        assert "torch_executed_modules leaves second to PyTorch" in str(module.report)

    def test_by_pattern(self, model: Blocks) -> None:
        module = compiled(model, torch_executed_modules={"*ird*", "first.lin*"})
        assert check(module, model) == ["linear", "linear_2", "tanh_2"]

    def test_by_node(self, model: Blocks) -> None:
        module = compiled(model, torch_executed_nodes={"tanh_2", "linear"})
        assert check(module, model) == ["linear", "tanh_2"]

    def test_names_that_are_not_there(self, model: Blocks) -> None:
        with pytest.warns(TRTCompileWarning, match=r"torch_executed_nodes has relu_7, which"):
            compiled(model, torch_executed_nodes={"relu_7"})
        with pytest.warns(TRTCompileWarning, match=r"torch_executed_modules has fourth\.\*, which"):
            compiled(model, torch_executed_modules={"fourth.*"})

    def test_names_that_int8_could_leave_out_are_not_there(self, model: Blocks) -> None:
        absent = {
            "int8_excluded_ops": {"aten.convolution"},
            "int8_excluded_nodes": {"linear_9"},
            "int8_excluded_modules": {"fourth"},
        }
        with pytest.warns(TRTCompileWarning) as caught:
            report = trtcompile.dry_run(
                model, [(2, 6)], enabled_precisions={torch.int8}, device=build_device(), **absent
            )
        said = {str(warning.message).partition(", which")[0] for warning in caught}
        assert said == {f"{option} has {name}" for option, (name,) in absent.items()}
        assert report.multiply_add_share("INT8") == 1.0

    @pytest.mark.parametrize("value", ["second", {1}, [""], 3])
    @pytest.mark.parametrize("option", ["torch_executed_modules", "torch_executed_nodes"])
    def test_refused(self, option: str, value: Any) -> None:
        with pytest.raises(SettingsError, match=f"{option} is"):
            trtcompile.CompileSpec(**{option: value})


@pytest.fixture
def failing() -> Iterator[Callable[..., None]]:
    """Makes an operator's converter fail, or give what TensorRT's builder refuses."""
    saved = dict(REGISTRY._converters)

    def replace(target: Any, convert: Callable[..., Any]) -> None:
        REGISTRY._converters[target] = dataclasses.replace(saved[target], convert=convert)

    yield replace
    REGISTRY._converters.clear()
    REGISTRY._converters.update(saved)


def refuse(net: Any, **arguments: Any) -> Any:
    raise ValueError("not today")


class TestDemotion:
    def test_a_failing_converter(self, model: Blocks, failing: Callable[..., None]) -> None:
        failing(aten.relu.default, refuse)
        with pytest.warns(TRTCompileWarning, match="relu goes to PyTorch, since TensorRT refused"):
            module = compiled(model)
        assert check(module, model) == ["relu"]
        (row,) = module.report.fallbacks
        assert row.reason == "TensorRT refused it: not today"

    def test_an_error_without_words(self, model: Blocks, failing: Callable[..., None]) -> None:
        def refuse_silently(net: Any, **arguments: Any) -> Any:
            raise AssertionError

        failing(aten.relu.default, refuse_silently)
        with pytest.warns(TRTCompileWarning, match="relu goes to PyTorch"):
            (row,) = compiled(model).report.fallbacks
        assert row.reason == "TensorRT refused it: AssertionError"

    def test_each_node_that_fails(self, model: Blocks, failing: Callable[..., None]) -> None:
        failing(aten.tanh.default, refuse)
        with pytest.warns(TRTCompileWarning) as warned:
            module = compiled(model)
        assert check(module, model) == ["tanh", "tanh_1", "tanh_2"]
        assert len(warned) == 3

    def test_a_layer_that_the_builder_names(
        self, model: Blocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from trtcompile import compiler

        build = compiler.build_engine

        def build_or_refuse(name: str, network: Any, *rest: Any) -> Any:
            names = [
                network.definition.get_layer(i).name for i in range(network.definition.num_layers)
            ]
            if "tanh_1/activation" in names:
                said = [
                    "IBuilder: no implementation for node {linear_1/matmul + tanh_1/activation}",
                ]
                raise EngineBuildError("TensorRT could not build it.", said)
            return build(name, network, *rest)

        monkeypatch.setattr(compiler, "build_engine", build_or_refuse)
        with pytest.warns(TRTCompileWarning, match="linear_1, tanh_1 goes to PyTorch"):
            module = compiled(model)
        assert check(module, model) == ["linear_1", "tanh_1"]
        assert {row.reason for row in module.report.fallbacks} == {
            "TensorRT refused it: IBuilder: no implementation for node {linear_1/matmul + tanh_1/activation}"
        }

    def test_an_error_that_names_no_layer(
        self, model: Blocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse_all(*args: Any) -> Any:
            raise EngineBuildError("out of memory", ["out of memory"])

        monkeypatch.setattr("trtcompile.compiler.build_engine", refuse_all)
        with pytest.raises(EngineBuildError, match="out of memory"):
            compiled(model)

    def test_full_compilation_fails(self, model: Blocks, failing: Callable[..., None]) -> None:
        failing(aten.relu.default, refuse)
        with pytest.raises(ConversionError, match="not today") as raised:
            compiled(model, require_full_compilation=True)
        assert raised.value.node == "relu"


class TestDryRun:
    def test_it_is_the_report_of_compile(self, model: Blocks) -> None:
        options = {"torch_executed_nodes": {"tanh_1"}, "min_block_size": 1}
        assert str(trtcompile.dry_run(model, [(2, 6)], **options)) == str(
            compiled(model, **options).report
        )

    def test_it_needs_no_tensorrt_and_no_data(
        self, model: Blocks, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*args: Any, **kwargs: Any) -> Any:
            raise AssertionError("not in a dry run")

        for name in ("_tensorrt.load", "compiler.convert", "compiler.build_engine"):
            monkeypatch.setattr(f"trtcompile.{name}", never)
        report = trtcompile.dry_run(
            model, kwarg_inputs={"x": (2, 6)}, enabled_precisions={torch.half, torch.int8}
        )
        assert [row.precision for row in report.rows if "linear" in row.operator] == ["INT8"] * 3

    @pytest.mark.parametrize(
        "value", [8, "int8", None, [[]], {"int8"}, {torch.bfloat16}, torch.float64]
    )
    @pytest.mark.parametrize("run", [trtcompile.compile, trtcompile.dry_run])
    def test_malformed_precisions(self, model: Blocks, run: Any, value: Any) -> None:
        with pytest.raises(SettingsError, match="enabled_precisions"):
            run(model, [(2, 6)], enabled_precisions=value)

    def test_something_else_for_a_spec(self, model: Blocks) -> None:
        with pytest.raises(SettingsError, match="spec is a dict"):
            trtcompile.dry_run(model, [(2, 6)], spec={})  # type: ignore[arg-type]

    def test_precisions_of_a_spec(self, model: Blocks) -> None:
        spec = CompileSpec(enabled_precisions={torch.int8}, calibrator=CacheCalibrator("no file"))
        report = trtcompile.dry_run(model, [(2, 6)], spec=spec)
        assert [row.precision for row in report.rows if "linear" in row.operator] == ["INT8"] * 3

    def test_refusals_are_those_of_compile(self, model: Blocks) -> None:
        with pytest.raises(SettingsError, match="min_block_size"):
            trtcompile.dry_run(model, [(2, 6)], min_block_siez=3)
        with pytest.raises(UnsupportedGraphError, match="require_full_compilation"):
            trtcompile.dry_run(
                model, [(2, 6)], torch_executed_ops={"aten.relu"}, require_full_compilation=True
            )
