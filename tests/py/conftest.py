"""What every test shares: which tests a machine can run, its threads, and the summary of a run.

- A test marked ``gpu`` runs an engine. Without a GPU and a TensorRT for it the test is skipped,
  with the reason; with ``--require-gpu`` every skip of such a test is a failure.
- One marked ``two_gpus`` as well is also skipped with one GPU, which is no failure.
- ``--summary PATH`` writes what passed, failed, and was skipped, on which commit, versions, and
  device, as JSON.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from gpu_requirements import missing_for_gpu_tests, missing_for_two_gpus
from run_summary import write_summary

# No deadline: a busy machine is not a bug. The same examples in every run: a red run repeats.
hypothesis.settings.register_profile("trtcompile", deadline=None, derandomize=True)
hypothesis.settings.load_profile("trtcompile")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("trtcompile")
    group.addoption(
        "--require-gpu",
        action="store_true",
        help="a skipped GPU test, or a module skipped whole, is a failure",
    )
    group.addoption(
        "--sweep",
        action="store_true",
        help="also go through all operators of PyTorch's database of samples",
    )
    group.addoption("--summary", type=Path, metavar="PATH", help="write a JSON summary of the run")
    group.addoption("--commit", help="the commit named in the summary, where git cannot tell")


def pytest_configure(config: pytest.Config) -> None:
    workers = getattr(config, "workerinput", {}).get("workercount", 1)
    if workers > 1:
        # Otherwise each worker starts a thread per core, and they wait for one another.
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


@pytest.fixture(autouse=True)
def _seed() -> None:
    """The same random tensors in every run and on every worker: a red run repeats."""
    torch.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _builder_library() -> Iterator[None]:
    """TensorRT's kernel library stays loaded: otherwise every test that builds loads it for 3 s."""
    if missing_for_gpu_tests() is not None:
        yield
        return
    # Here, so that a tree in which the package cannot be imported still runs the tests that say so.
    from trtcompile._tensorrt import builder_library_kept

    with builder_library_kept():
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    missing = missing_for_gpu_tests()
    if missing is not None:
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason=missing))
        return
    one_gpu = missing_for_two_gpus()
    if one_gpu is not None:
        for item in items:
            if item.get_closest_marker("two_gpus"):
                item.add_marker(pytest.mark.skip(reason=one_gpu))


def _must_run(item: pytest.Item) -> bool:
    """Whether a machine with a GPU can run a test that needs one."""
    if not item.get_closest_marker("gpu"):
        return False
    needs_two = item.get_closest_marker("two_gpus") is not None
    return not needs_two or missing_for_gpu_tests() is not None or missing_for_two_gpus() is None


def _fail_if_skipped(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{report.nodeid} was skipped under --require-gpu: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    report = yield
    if item.config.getoption("require_gpu") and _must_run(item):
        _fail_if_skipped(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Any:
    report = yield
    if collector.config.getoption("require_gpu"):
        # A module skipped whole could hide GPU tests.
        _fail_if_skipped(report)
    return report


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    path = config.getoption("summary")
    # A worker that loses its controller ends a session of its own, with its own few tests.
    if path is not None and not hasattr(config, "workerinput"):
        write_summary(path, terminalreporter.stats, int(exitstatus), config.getoption("commit"))
        terminalreporter.write_line(f"summary: {path}")
