"""Trees, structures, and tensors come back as they were; what has no form in a file is refused."""

from __future__ import annotations

import io
from collections import OrderedDict, defaultdict, deque, namedtuple
from typing import Any

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given
from torch.utils import _pytree as pytree

from trtcompile.inputs import Input
from trtcompile.runtime.serialization.archive import ArchiveReader, write_archive
from trtcompile.runtime.serialization.json_values import DTYPES, MalformedError, dump, parse
from trtcompile.runtime.serialization.records import argument_from_json, argument_to_json
from trtcompile.runtime.serialization.tensors import (
    bytes_of,
    tensor_from_archive,
    tensor_to_json,
)
from trtcompile.runtime.serialization.trees import (
    UnsavableError,
    tree_from_json,
    tree_to_json,
    treespec_from_json,
    treespec_to_json,
)

Point = namedtuple("Point", "x y")  # noqa: PYI024

KEYS = st.one_of(
    st.text(max_size=3),
    st.integers(),
    st.booleans(),
    st.none(),
    st.floats(allow_nan=False, allow_infinity=False),
)
TREES = st.recursive(
    st.integers(),
    lambda children: st.one_of(
        st.lists(children, max_size=3),
        st.lists(children, max_size=3).map(tuple),
        st.dictionaries(KEYS, children, max_size=3),
        st.dictionaries(KEYS, children, max_size=3).map(OrderedDict),
    ),
    max_leaves=12,
)


def through_json(value: Any) -> Any:
    return parse(dump(value))


@given(TREES)
def test_trees_come_back(tree: Any) -> None:
    read = tree_from_json(through_json(tree_to_json(tree, lambda leaf: leaf)), lambda leaf: leaf)
    assert read == tree
    # Equality takes an ordered dictionary for a dictionary, and 1 for True.
    assert repr(read) == repr(tree)


@given(TREES)
def test_structures_come_back(tree: Any) -> None:
    spec = pytree.tree_structure(tree)
    read = treespec_from_json(through_json(treespec_to_json(spec)))
    assert read == spec
    leaves = list(range(spec.num_leaves))
    assert repr(pytree.tree_unflatten(leaves, read)) == repr(pytree.tree_unflatten(leaves, spec))


def test_return_types_of_pytorch_come_back() -> None:
    returned = torch.max(torch.randn(2, 3), dim=1)
    read = treespec_from_json(through_json(treespec_to_json(pytree.tree_structure(returned))))
    again = pytree.tree_unflatten(list(returned), read)
    assert type(again) is torch.return_types.max
    assert again.values is returned.values
    assert again.indices is returned.indices


@pytest.mark.parametrize(
    ("tree", "what"),
    [
        (Point(1, 2), "test_serialization_values.Point"),
        ([defaultdict(list, a=1)], "collections.defaultdict"),
        ({"a": deque([1])}, "collections.deque"),
        ({(1, 2): 1}, r"key \(1, 2\)"),
        ({float("inf"): 1}, "key inf"),
    ],
)
def test_other_containers_are_refused_by_name(tree: Any, what: str) -> None:
    with pytest.raises(UnsavableError, match=what):
        treespec_to_json(pytree.tree_structure(tree))


@pytest.mark.parametrize(
    "value",
    [
        {"collections.defaultdict": [["a", "*"]]},
        {"builtins.eval": ["*"]},
        {"torch.return_types.load": ["*"]},
        {"tuple": "*"},
        {"dict": [["a"]]},
        {"dict": [[["unhashable"], "*"]]},
        {"tuple": ["*"], "list": ["*"]},
        {"__enum__": True, "fqn": "os:environ", "name": "x"},
        ["*"],
        None,
        3,
    ],
)
def test_other_structures_are_refused(value: Any) -> None:
    with pytest.raises(MalformedError):
        treespec_from_json(value)


def test_pytorch_itself_would_import_what_a_structure_names() -> None:
    """Why ``treespec_loads`` is not used; if this fails, PyTorch has changed and it may be."""
    context = {
        "default_factory_module": "this_module_does_not_exist",
        "default_factory_name": "x",
        "dict_context": [],
    }
    schema = {"type": "collections.defaultdict", "context": context, "children_spec": []}
    with pytest.raises(ModuleNotFoundError, match="this_module_does_not_exist"):
        pytree.treespec_loads(dump([1, schema]).decode())


@pytest.mark.parametrize(
    "value",
    [
        Input((1, 3, 8, 8), name="image"),
        Input(min_shape=(1, 2), opt_shape=(4, 2), max_shape=(8, 2), dtype=torch.int64),
        Input(min_shape=(), opt_shape=(), max_shape=(), dtype=torch.bool),
    ],
)
def test_inputs_come_back(value: Input) -> None:
    assert argument_from_json(through_json(argument_to_json(value))) == value


def through_archive(tensor: torch.Tensor, described: Any = None) -> torch.Tensor:
    file = io.BytesIO()
    write_archive(file, {}, {"constants/0.bin": bytes_of(tensor)})
    value = tensor_to_json(tensor) if described is None else described
    return tensor_from_archive(through_json(value), ArchiveReader(file), "constants/0.bin")


def random_bits(dtype: torch.dtype, *shape: int) -> torch.Tensor:
    """Any value of the dtype, NaN and infinity among them."""
    generator = torch.Generator().manual_seed(0)
    if dtype is torch.bool:
        return torch.randint(2, shape, generator=generator).bool()
    count = torch.Size(shape).numel() * dtype.itemsize
    raw = torch.randint(256, (count,), dtype=torch.uint8, generator=generator)
    return raw.view(dtype).reshape(shape)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)], ids=str)
@pytest.mark.parametrize("dtype", DTYPES.values(), ids=DTYPES)
def test_tensors_come_back_bit_by_bit(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    tensor = random_bits(dtype, *shape)
    read = through_archive(tensor)
    assert read.dtype == dtype
    assert read.shape == tensor.shape
    assert bytes(bytes_of(read)) == bytes(bytes_of(tensor))
    assert bytes(bytes_of(read)) == tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        torch.randn(3, 4).t(),
        torch.randn(3, 1).expand(3, 4),
        torch.randn(4, 4)[1::2, ::3],
        torch.randn(3, dtype=torch.complex64).conj(),
        torch.randn(3, dtype=torch.complex64).conj().imag,
        torch.nn.Parameter(torch.randn(2)),
    ],
    ids=[
        "channels last",
        "transposed",
        "expanded",
        "strided",
        "conjugated",
        "negated",
        "parameter",
    ],
)
def test_views_come_back_as_values(tensor: torch.Tensor) -> None:
    read = through_archive(tensor)
    assert torch.equal(read, tensor)
    assert read.is_contiguous()
    assert not read.requires_grad


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(3).to_sparse(),
        torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "quantized"],
)
@pytest.mark.filterwarnings("ignore:.*torch.ao.quantization is deprecated")
def test_other_tensors_are_refused(tensor: torch.Tensor) -> None:
    with pytest.raises(UnsavableError, match="a tensor of dtype"):
        tensor_to_json(tensor)


@pytest.mark.parametrize(
    "described",
    [
        {"dtype": "float32", "shape": [2, 2]},
        {"dtype": "float16", "shape": [3]},
        {"dtype": "float32", "shape": [10**30]},
        {"dtype": "float32", "shape": [-3]},
        {"dtype": "float32", "shape": [-1, -3]},
        {"dtype": "float32", "shape": [True, 3]},
        {"dtype": "float32", "shape": "3"},
        {"dtype": "qint8", "shape": [12]},
        {"dtype": "float32", "shape": [3], "more": 1},
        {"dtype": "float32"},
    ],
)
def test_a_description_that_does_not_fit_is_refused(described: Any) -> None:
    with pytest.raises(MalformedError):
        through_archive(torch.randn(3), described)
