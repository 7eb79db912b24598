"""The oracle's networks in NVIDIA's builder, with no GPU, and in its engines, with one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from network_oracle import run_network, supported_layer_types
from oracle_bench import Bench, assert_same, defining_bench, named, running_flavour
from oracle_networks import NETWORKS, OracleNetwork
from oracle_networks.engines import build, run_plan

RUNNING = running_flavour()
TOLERANCES = {torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.fixture(scope="module")
def bench() -> Bench:
    return defining_bench()


@named(NETWORKS)
def test_builder_accepts(case: OracleNetwork, bench: Bench) -> None:
    if not hasattr(bench.trt, "ComputeCapability"):
        pytest.skip("only TensorRT-RTX builds with no GPU: pip install 'trtcompile[rtx]'")
    bench.errors.clear()
    _network, feeds, plan = build(bench.trt, bench.builder, case, ahead_of_time=True)
    assert feeds
    if bench.trt.__name__ in case.refused:
        assert plan is None, "the builder accepts it by now: take it out of `refused`"
    else:
        assert plan is not None and plan.nbytes > 0, bench.errors


def _why_not_on_the_gpu(case: OracleNetwork) -> str | None:
    """Why the flavour that runs engines here cannot run this network; None where it can."""
    if RUNNING is None:
        return None
    lacking = case.missing(RUNNING)
    if lacking is not None:
        return f"{RUNNING.__name__} {RUNNING.__version__} has no {lacking}"
    return case.refused.get(RUNNING.__name__)


# Left out at collection, not skipped: where GPU tests are required, a skip is a failure.
ON_THE_GPU = [case for case in NETWORKS if _why_not_on_the_gpu(case) is None]
NOT_ON_THE_GPU = {case.name: why for case in NETWORKS if (why := _why_not_on_the_gpu(case))}
# Kinds that TensorRT 10.6 lacks or does not build, or TensorRT-RTX does not: known to stay unchecked.
MAY_STAY_UNCHECKED = {"CUMULATIVE", "NON_ZERO", "PADDING", "SQUEEZE", "UNSQUEEZE"}


@pytest.fixture(scope="module")
def gpu_bench() -> Bench:
    assert RUNNING is not None
    bench = Bench(RUNNING)
    bench.runtime = RUNNING.Runtime(bench.logger)
    return bench


@pytest.mark.gpu
@named(ON_THE_GPU)
def test_engine_equals_oracle(case: OracleNetwork, gpu_bench: Bench) -> None:
    trt = gpu_bench.trt
    gpu_bench.errors.clear()
    network, feeds, plan = build(trt, gpu_bench.builder, case, ahead_of_time=False)
    assert plan is not None, gpu_bench.errors
    expected = run_network(network, feeds)
    outputs = run_plan(trt, gpu_bench.runtime, plan, feeds)
    assert set(outputs) == set(expected), gpu_bench.errors
    tolerances = dict(TOLERANCES)
    if case.tolerance is not None:
        tolerances = dict.fromkeys(tolerances, case.tolerance)
    for name, reference in expected.items():
        assert_same(outputs[name], reference, tolerances)


@pytest.mark.gpu
def test_layers_not_checked_on_the_gpu_are_listed(
    request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    record_property("not_on_the_gpu", NOT_ON_THE_GPU)
    reporter = request.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        for name, why in NOT_ON_THE_GPU.items():
            reporter.write_line(f"not checked on the GPU: {name}: {why}")
    checked = {case.kind for case in ON_THE_GPU}
    assert set(supported_layer_types()) - checked <= MAY_STAY_UNCHECKED
