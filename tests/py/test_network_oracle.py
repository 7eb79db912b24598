"""The oracle against the statement beside each network, and against numbers that NVIDIA prints."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import network_oracle
import oracle_networks
import pytest
import torch
from network_oracle import run_network, supported_layer_types
from oracle_bench import Bench, assert_same, defining_bench, named
from oracle_networks import NETWORKS, OracleNetwork

TOLERANCES = {torch.float32: 1e-5, torch.float16: 1e-3, torch.bfloat16: 8e-3}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return defining_bench()


# --- independence ----------------------------------------------------------------------------


def imported_modules(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield node.module or ""


@pytest.mark.parametrize("package", [network_oracle, oracle_networks])
def test_imports_nothing_of_what_it_judges(package: ModuleType) -> None:
    allowed = {"torch", "numpy", "ml_dtypes", package.__name__, *sys.stdlib_module_names}
    files = sorted(Path(package.__path__[0]).rglob("*.py"))
    assert len(files) > 5
    for path in files:
        source = path.read_text()
        assert {name.split(".")[0] for name in imported_modules(path)} <= allowed, path
        assert "import_module" not in source and "__import__" not in source, path


# --- the oracle and the statements beside the networks ---------------------------------------


def test_names_are_unique() -> None:
    names = [case.name for case in NETWORKS]
    assert len(names) == len(set(names)) >= 120


@named(NETWORKS)
def test_oracle_computes_what_the_network_says(case: OracleNetwork, bench: Bench) -> None:
    lacking = case.missing(bench.trt)
    if lacking is not None:
        pytest.skip(f"{bench.trt.__name__} has no {lacking}: a newer TensorRT has")
    network = bench.network()
    feeds = case(bench.trt, network)
    outputs = run_network(network, feeds)
    expected = case.expected()
    assert list(outputs) == [f"y{index}" for index in range(len(expected))]
    for actual, reference in zip(outputs.values(), expected, strict=True):
        assert_same(actual, reference, TOLERANCES)
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    kinds = {bench.trt.ILayer.type.fget(layer).name for layer in layers}
    assert case.kind in kinds


@named([case for case in NETWORKS if not case.name.startswith(("identity-", "shuffle-nothing"))])
def test_an_oracle_that_returns_an_input_would_fail(case: OracleNetwork) -> None:
    """Otherwise the statement beside the network shows nothing."""
    for expected in case.expected():
        for value in case.inputs:
            assert expected.dtype != value.dtype or not torch.equal(expected, value)


def test_every_modelled_kind_has_a_network() -> None:
    assert {case.kind for case in NETWORKS} == set(supported_layer_types())


# Class and enumerator attributes of a kind; every member must occur in some network.
ENUMERATORS = {
    "ACTIVATION": ("IActivationLayer", ["type"]),
    "CONVOLUTION": ("IConvolutionLayer", ["padding_mode"]),
    "CUMULATIVE": ("ICumulativeLayer", ["op"]),
    "ELEMENTWISE": ("IElementWiseLayer", ["op"]),
    "GATHER": ("IGatherLayer", ["mode"]),
    "GRID_SAMPLE": ("IGridSampleLayer", ["interpolation_mode", "sample_mode"]),
    "MATRIX_MULTIPLY": ("IMatrixMultiplyLayer", ["op0", "op1"]),
    "POOLING": ("IPoolingLayer", ["type", "padding_mode"]),
    "REDUCE": ("IReduceLayer", ["op"]),
    "RESIZE": (
        "IResizeLayer",
        [
            "resize_mode",
            "coordinate_transformation",
            "selector_for_single_pixel",
            "nearest_rounding",
        ],
    ),
    "SCALE": ("IScaleLayer", ["mode"]),
    "SCATTER": ("IScatterLayer", ["mode"]),
    "SLICE": ("ISliceLayer", ["mode"]),
    "TOPK": ("ITopKLayer", ["op"]),
    "UNARY": ("IUnaryLayer", ["op"]),
}
NOT_MODELLED = {
    ("REDUCE", "op"): {"NONE"},
    # TensorRT samples grids with the other three.
    ("GRID_SAMPLE", "sample_mode"): {"STRICT_BOUNDS", "WRAP"},
}


def test_every_enumerator_occurs(bench: Bench) -> None:
    found: dict[tuple[str, str], set[str]] = defaultdict(set)
    members: dict[tuple[str, str], set[str]] = {}
    for case in NETWORKS:
        if case.missing(bench.trt) is not None:
            continue
        network = bench.network()
        feeds = case(bench.trt, network)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            kind = bench.trt.ILayer.type.fget(layer).name
            if kind in ENUMERATORS:
                class_name, attributes = ENUMERATORS[kind]
                layer.__class__ = getattr(bench.trt, class_name)
                for attribute in attributes:
                    value = getattr(layer, attribute)
                    found[kind, attribute].add(value.name)
                    members[kind, attribute] = set(type(value).__members__)
        assert feeds
    for key, names in members.items():
        assert found[key] == names - NOT_MODELLED.get(key, set()), key


# --- numbers that NVIDIA prints in its operator reference ------------------------------------


def test_lrn_of_the_operator_reference(bench: Bench) -> None:
    net = bench.net()
    x = net.network.add_input("x", bench.trt.float32, (1, 5, 2, 2))
    net.network.mark_output(net.network.add_lrn(x, 3, 1.0, 1.0, 0.1).get_output(0))
    channels = torch.arange(5.0).reshape(1, 5, 1, 1).expand(1, 5, 2, 2)
    (output,) = run_network(net.network, [channels]).values()
    printed = torch.tensor([0.0, 0.56603765, 0.4195804, 0.3071672, 0.47430828])
    assert_same(output, printed.reshape(1, 5, 1, 1).expand(1, 5, 2, 2), TOLERANCES)


def test_reduce_of_the_operator_reference(bench: Bench) -> None:
    net = bench.net()
    x = net.network.add_input("x", bench.trt.float32, (1, 2, 2, 3))
    op = bench.trt.ReduceOperation.MAX
    net.network.mark_output(net.network.add_reduce(x, op, 4, True).get_output(0))
    (output,) = run_network(net.network, [torch.arange(-3.0, 9.0).reshape(1, 2, 2, 3)]).values()
    assert output.tolist() == [[[[0.0, 1.0, 2.0]], [[6.0, 7.0, 8.0]]]]


def test_slice_of_the_header(bench: Bench) -> None:
    net = bench.net()
    x = net.network.add_input("x", bench.trt.int32, (2, 3))
    net.network.mark_output(net.network.add_slice(x, (1, 0), (1, 2), (1, 2)).get_output(0))
    values = torch.tensor([[0, 2, 4], [1, 3, 5]], dtype=torch.int32)
    (output,) = run_network(net.network, [values]).values()
    assert output.tolist() == [[1, 5]]
