"""``Input`` and ``parse_inputs``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trtcompile import Input, SettingsError
from trtcompile.inputs import flat_inputs, parse_inputs

sizes = st.lists(st.integers(0, 64), max_size=5)


@pytest.mark.parametrize(
    ("tensor", "kind"),
    [
        (torch.eye(3).to_sparse(), "torch.sparse_coo"),
        (torch.quantize_per_tensor(torch.eye(3), 0.1, 0, torch.qint8), "quantized"),
    ],
)
def test_tensors_that_are_not_dense_are_refused(tensor: torch.Tensor, kind: str) -> None:
    with pytest.raises(SettingsError, match=rf"a {kind} tensor of shape \(3, 3\)"):
        parse_inputs([tensor])


class TestShapes:
    @pytest.mark.parametrize("shape", [(1, 3, 32, 32), [1, 3, 32, 32], torch.Size([1, 3, 32, 32])])
    def test_one_shape(self, shape: Any) -> None:
        spec = Input(shape)
        assert spec.min_shape == spec.opt_shape == spec.max_shape == (1, 3, 32, 32)
        assert spec.dtype == torch.float32
        assert not spec.is_dynamic and spec.dynamic_dims == ()
        assert spec == Input((1, 3, 32, 32)) and hash(spec) == hash(Input((1, 3, 32, 32)))

    @given(st.lists(st.tuples(*[st.integers(0, 9)] * 3).map(sorted), max_size=4))
    def test_ranges(self, dims: list[list[int]]) -> None:
        low, opt, high = ([d[i] for d in dims] for i in range(3))
        spec = Input(min_shape=low, opt_shape=opt, max_shape=high)
        assert spec.dynamic_dims == tuple(i for i, d in enumerate(dims) if d[0] != d[2])
        assert all(spec.accepts(shape) for shape in (low, opt, high))
        assert not spec.accepts([*opt, 1])
        for i, d in enumerate(dims):
            assert not spec.accepts([*opt[:i], d[2] + 1, *opt[i + 1 :]])
            assert not spec.accepts([*opt[:i], d[0] - 1, *opt[i + 1 :]])

    @given(sizes, sizes, sizes)
    def test_unordered_ranges_are_refused_with_their_values(
        self, low: list[int], opt: list[int], high: list[int]
    ) -> None:
        ordered = len(low) == len(opt) == len(high) and all(
            a <= b <= c for a, b, c in zip(low, opt, high, strict=True)
        )
        if ordered:
            Input(min_shape=low, opt_shape=opt, max_shape=high)
            return
        with pytest.raises(SettingsError) as caught:
            Input(min_shape=low, opt_shape=opt, max_shape=high)
        assert all(str(tuple(shape)) in str(caught.value) for shape in (low, opt, high))

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            ({}, "either one shape or a range"),
            ({"shape": (1,), "opt_shape": (1,)}, "either one shape or a range"),
            ({"min_shape": (1,)}, "lacks opt_shape, max_shape"),
            ({"min_shape": (1,), "max_shape": (2,)}, "lacks opt_shape"),
            ({"shape": 5}, "Input shape is 5"),
            ({"shape": "abc"}, "Input shape is 'abc'"),
            ({"shape": torch.tensor(3)}, "Input shape is"),
            ({"shape": (1, -1)}, "at least 0"),
            ({"shape": (1, 2.0)}, "whole numbers"),
            ({"shape": (1, True)}, "whole numbers"),
            ({"shape": (1, None)}, "whole numbers"),
            ({"shape": (1,), "dtype": "float32"}, "dtype is 'float32'"),
            ({"shape": (1,), "dtype": float}, "dtype is"),
            ({"shape": (1,), "name": 3}, "name is 3"),
        ],
    )
    def test_refused(self, arguments: dict[str, Any], said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            Input(**arguments)

    def test_describe_names_min_opt_max(self) -> None:
        spec = Input(min_shape=(1, 3), opt_shape=(2, 3), max_shape=(4, 3), dtype=torch.float16)
        assert spec.describe() == "min [1, 3] opt [2, 3] max [4, 3] float16"
        assert Input((1, 3)).describe() == "[1, 3] float32"


class TestExample:
    @pytest.mark.parametrize(
        "dtype", [torch.float32, torch.float16, torch.int64, torch.int32, torch.bool, torch.uint8]
    )
    @pytest.mark.parametrize("which", ["min", "opt", "max"])
    def test_shape_and_dtype(self, dtype: torch.dtype, which: str) -> None:
        spec = Input(min_shape=(1, 4), opt_shape=(3, 4), max_shape=(9, 4), dtype=dtype)
        example = spec.example_tensor(which=which)
        assert example.shape == (getattr(spec, f"{which}_shape")) and example.dtype == dtype
        assert torch.equal(example, spec.example_tensor(which=which))

    def test_the_random_state_is_left_alone(self) -> None:
        before = torch.get_rng_state()
        Input((3, 4)).example_tensor()
        Input((3, 4), dtype=torch.int64).example_tensor()
        assert torch.equal(torch.get_rng_state(), before)

    def test_values_are_signed_and_integers_can_index(self) -> None:
        assert (Input((64,)).example_tensor() < 0).any()
        values = Input((64,), dtype=torch.int64).example_tensor()
        assert set(values.tolist()) == {0, 1}


class TestParse:
    @pytest.mark.parametrize(
        "given_",
        [
            [Input((2, 3))],
            (Input((2, 3)),),
            Input((2, 3)),
            [(2, 3)],
            [[2, 3]],
            [torch.Size((2, 3))],
            [torch.randn(2, 3)],
            torch.randn(2, 3),
            [torch.randn(2, 6)[:, ::2]],
        ],
        ids=[
            "inputs",
            "tuple",
            "input",
            "shapes",
            "lists",
            "sizes",
            "tensors",
            "tensor",
            "strided",
        ],
    )
    def test_one_tensor(self, given_: Any) -> None:
        assert parse_inputs(given_) == (Input((2, 3)),)

    def test_a_tensor_gives_its_dtype(self) -> None:
        assert parse_inputs([torch.ones(2, dtype=torch.int64)]) == (Input((2,), dtype=torch.int64),)

    def test_nested(self) -> None:
        a, b = Input((1,)), Input((2, 2))
        parsed = parse_inputs([{"a": a, "b": [b, (3, 4)]}, (a, {"c": torch.zeros(5)})])
        assert parsed == ({"a": a, "b": [b, Input((3, 4))]}, (a, {"c": Input((5,))}))
        assert flat_inputs(parsed) == (a, b, Input((3, 4)), a, Input((5,)))

    @pytest.mark.parametrize(
        ("given_", "said"),
        [
            ([], "Give a list with an Input"),
            (None, "Give a list with an Input"),
            ("x", "Give a list with an Input"),
            ({"x": Input((1,))}, "Give a list with an Input"),
            ((1, 3, 32, 32), r"Write inputs=\[Input\(\(1, 3, 32, 32\)\)\]"),
            ([1, 3, 32, 32], r"Write inputs=\[Input\(\(1, 3, 32, 32\)\)\]"),
            (torch.Size((1, 3)), "Write inputs="),
            ([object()], "Input shape is"),
        ],
    )
    def test_refused(self, given_: Any, said: str) -> None:
        with pytest.raises(SettingsError, match=said):
            parse_inputs(given_)
