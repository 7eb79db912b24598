"""``TRTModule.forward``: what it checks before anything runs, and what it says."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle
from torch import nn

import trtcompile
from trtcompile import EngineLoadError, Input, InputMismatchError, TRTModule
from trtcompile.errors import TRTCompileError
from trtcompile.runtime import engine_module


class Scores(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)

    def forward(self, x: torch.Tensor, extra: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        y = self.conv(x).relu()
        return {"y": y.mean((2, 3)) * extra["scale"], "kept": y}


IMAGE = Input(min_shape=(1, 3, 8, 8), opt_shape=(2, 3, 8, 8), max_shape=(4, 3, 8, 8), name="image")


@pytest.fixture(scope="module")
def model() -> Scores:
    return Scores().eval()


@pytest.fixture(scope="module")
def built(model: Scores) -> TRTModule:
    return trtcompile.compile(
        model, [IMAGE, {"scale": (4,)}], device=build_device(), min_block_size=1
    )


@pytest.fixture
def compiled(model: Scores, monkeypatch: pytest.MonkeyPatch) -> TRTModule:
    install_oracle(monkeypatch)
    return trtcompile.compile(
        model, [IMAGE, {"scale": (4,)}], device=build_device(), min_block_size=1
    )


def good() -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return torch.randn(2, 3, 8, 8), {"scale": torch.randn(4)}


class TestChecks:
    @pytest.mark.parametrize(
        ("shape", "said"),
        [
            ((5, 3, 8, 8), r"min \[1, 3, 8, 8\] opt \[2, 3, 8, 8\] max \[4, 3, 8, 8\] float32"),
            ((0, 3, 8, 8), r"has shape \[0, 3, 8, 8\]"),
            ((2, 1, 8, 8), r"has shape \[2, 1, 8, 8\]"),
            ((2, 3, 8), r"has shape \[2, 3, 8\]"),
            ((2, 3, 8, 8, 1), r"input 0 \(image\)"),
        ],
    )
    def test_shape(self, built: TRTModule, shape: tuple[int, ...], said: str) -> None:
        with pytest.raises(InputMismatchError, match=said):
            built(torch.randn(shape), good()[1])

    def test_a_static_shape_is_named(self, built: TRTModule) -> None:
        with pytest.raises(InputMismatchError, match=r"input 1 has shape \[3\].*for \[4\] float32"):
            built(good()[0], {"scale": torch.randn(3)})

    @pytest.mark.parametrize("dtype", [torch.float16, torch.float64, torch.int64, torch.uint8])
    def test_dtype(self, built: TRTModule, dtype: torch.dtype) -> None:
        with pytest.raises(InputMismatchError, match=f"has dtype {dtype}.*float32. Cast it"):
            built(good()[0].to(dtype), good()[1])

    @pytest.mark.parametrize("value", [1.0, None, "x", [1.0, 2.0]])
    def test_no_tensor(self, built: TRTModule, value: Any) -> None:
        with pytest.raises(InputMismatchError):
            built(value, good()[1])

    @pytest.mark.parametrize(
        "make",
        [
            lambda x, e: (),
            lambda x, e: (x,),
            lambda x, e: (x, e, x),
            lambda x, e: (x, e["scale"]),
            lambda x, e: (x, {"scal": e["scale"]}),
            lambda x, e: (x, {**e, "more": x}),
            lambda x, e: (x, [e["scale"]]),
            lambda x, e: ([x], e),
        ],
    )
    def test_structure(self, built: TRTModule, make: Any) -> None:
        with pytest.raises(InputMismatchError) as caught:
            built(*make(*good()))
        assert "min [1, 3, 8, 8] opt [2, 3, 8, 8] max [4, 3, 8, 8] float32" in str(caught.value)
        assert "'scale': '[4] float32'" in str(caught.value)

    def test_device(self, compiled: TRTModule) -> None:
        said = r"input 0 \(image\) is on meta, but the engines run on"
        with pytest.raises(InputMismatchError, match=said):
            compiled(good()[0].to("meta"), good()[1])

    def test_layout(self, compiled: TRTModule) -> None:
        with pytest.raises(InputMismatchError, match=r"layout torch.sparse_coo.*to_dense"):
            compiled(good()[0].to_sparse(), good()[1])

    def test_nothing_runs_after_a_failed_check(
        self, compiled: TRTModule, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def run(*args: Any) -> Any:
            raise AssertionError("an engine was run")

        monkeypatch.setattr(engine_module.EngineModule, "forward", run)
        for arguments in [
            (),
            (good()[0].double(), good()[1]),
            (torch.randn(9, 3, 8, 8), good()[1]),
        ]:
            with pytest.raises(InputMismatchError):
                compiled(*arguments)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="a machine with no GPU is needed")
    def test_bad_input_is_named_before_the_missing_gpu(self, built: TRTModule) -> None:
        with pytest.raises(InputMismatchError):
            built(torch.randn(9, 3, 8, 8), good()[1])
        with pytest.raises(EngineLoadError):
            built(*good())


class TestModule:
    def test_results(self, compiled: TRTModule, model: Scores) -> None:
        x, extra = good()
        with torch.no_grad():
            for batch in (1, 2, 4):
                x = torch.randn(batch, 3, 8, 8)
                torch.testing.assert_close(compiled(x, extra), model(x, extra))
                torch.testing.assert_close(compiled(x=x, extra=extra), model(x, extra))

    def test_inside_of_another_module(self, compiled: TRTModule, model: Scores) -> None:
        class Pipeline(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.engine = compiled
                self.head = nn.Linear(4, 2)

            def forward(self, x: torch.Tensor, extra: Any) -> torch.Tensor:
                return self.head(self.engine(x, extra)["y"])

        pipeline = Pipeline()
        assert list(pipeline.state_dict()) == ["head.weight", "head.bias"]
        pipeline(*good()).sum().backward()
        assert pipeline.head.weight.grad is not None

    @pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
    def test_a_copy_works_on_its_own(self, compiled: TRTModule, copied: Any) -> None:
        x, extra = good()
        expected = compiled(x, extra)
        clone = copied(compiled)
        torch.testing.assert_close(clone(x, extra), expected)
        torch.testing.assert_close(clone.lowered(x, extra["scale"]), expected)
        assert clone.engines[0].plan is compiled.engines[0].plan

    def test_a_deep_copy_loads_its_engines_itself(self, built: TRTModule) -> None:
        class Loaded:
            """As a session of TensorRT's objects, which cannot be copied."""

            def __reduce__(self) -> Any:
                raise TypeError("cannot be copied")

        (module,) = built.engine_modules
        module._session = Loaded()  # type: ignore[assignment]
        try:
            clone = copy.deepcopy(built)
        finally:
            module._session = None
        assert clone.engine_modules[0]._session is None
        assert clone.executor is not built.executor and clone.spec is built.spec

    def test_pickling_is_refused(self, built: TRTModule) -> None:
        with pytest.raises(TRTCompileError, match=r"cannot be pickled.*trtcompile\.save"):
            pickle.dumps(nn.Sequential(built))

    def test_attributes(self, built: TRTModule) -> None:
        assert built.argument_names == ("x", "extra")
        assert [engine.name for engine in built.engines] == ["engine_0"]
        assert len(built.engine_modules) == 1
        assert built.calibration_table is None
        assert len(built.graph_hash) == 64
        assert "min [1, 3, 8, 8]" in repr(built)
        with pytest.raises(AttributeError, match="no_such_thing"):
            _ = built.no_such_thing
