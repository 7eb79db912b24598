"""``--require-gpu`` and ``--summary``, on a small suite of their own in another process."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SUITE = """
import pytest

@pytest.mark.gpu
def test_on_gpu():
    pytest.skip("skipped by hand")

def test_elsewhere():
    pytest.skip("not about GPUs")

def test_passes():
    pass

@pytest.mark.gpu
@pytest.mark.xfail(reason="known")
def test_known():
    assert False
"""

ON_TWO_GPUS = """
import pytest

@pytest.mark.gpu
@pytest.mark.two_gpus
def test_on_two():
    pass
"""

SKIPPED_MODULE = "import pytest\npytest.importorskip('no_such_module')\n"


def run_suite(
    folder: Path, *options: str, missing: str | None = None, second: str | None = None
) -> tuple[subprocess.CompletedProcess[str], dict]:
    """Runs the small suite on a machine that lacks ``missing`` and a second GPU for the reason ``second``."""
    for name in ("conftest.py", "run_summary.py"):
        shutil.copy(HERE / name, folder)
    requirements = f"def missing_for_gpu_tests():\n    return {missing!r}\n"
    requirements += f"def missing_for_two_gpus():\n    return {second!r}\n"
    (folder / "gpu_requirements.py").write_text(requirements)
    (folder / "pytest.ini").write_text("[pytest]\nmarkers =\n    gpu\n    two_gpus\n")
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTEST_ADDOPTS": ""}
    done = subprocess.run(
        [*command, "--summary", "out/summary.json", "--commit", "abc", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done, json.loads((folder / "out" / "summary.json").read_text())


def test_a_skip_is_a_skip_without_the_option(tmp_path: Path) -> None:
    (tmp_path / "test_more.py").write_text(SKIPPED_MODULE)
    done, summary = run_suite(tmp_path, missing="no GPU here")
    assert done.returncode == 0, done.stdout
    assert summary["failed"] == 0
    assert summary["passed"] == 1
    assert summary["skipped"] == 4
    assert summary["skips"]["test_suite.py::test_elsewhere"] == "not about GPUs"
    assert summary["skips"]["test_suite.py::test_on_gpu"] == "no GPU here"
    assert "no_such_module" in summary["skips"]["test_more.py"]
    assert summary["commit"] == "abc"


def test_a_skipped_gpu_test_fails_with_the_option(tmp_path: Path) -> None:
    done, summary = run_suite(tmp_path, "--require-gpu")
    assert done.returncode == 1
    assert summary["failures"] == ["test_suite.py::test_on_gpu"]
    assert summary["failed"] == 1
    assert "was skipped under --require-gpu" in done.stdout
    assert set(summary["skips"]) == {"test_suite.py::test_elsewhere"}
    assert summary["passed"] == 1
    assert summary["xfailed"] == 1


def test_a_missing_gpu_fails_with_the_option(tmp_path: Path) -> None:
    done, summary = run_suite(tmp_path, "--require-gpu", missing="no GPU here")
    assert done.returncode == 1
    assert summary["failures"] == ["test_suite.py::test_known", "test_suite.py::test_on_gpu"]
    assert "no GPU here" in done.stdout


def test_a_module_skipped_whole_fails_with_the_option(tmp_path: Path) -> None:
    (tmp_path / "test_more.py").write_text(SKIPPED_MODULE)
    done, summary = run_suite(tmp_path, "--require-gpu")
    assert done.returncode != 0
    assert summary["failures"] == ["test_more.py"]


@pytest.mark.parametrize(
    ("missing", "second", "fails"),
    [(None, "one GPU", False), (None, None, False), ("no GPU here", "no GPU", True)],
)
def test_a_second_gpu_may_be_missing(
    tmp_path: Path, missing: str | None, second: str | None, fails: bool
) -> None:
    (tmp_path / "test_more.py").write_text(ON_TWO_GPUS)
    _, summary = run_suite(tmp_path, "--require-gpu", missing=missing, second=second)
    name = "test_more.py::test_on_two"
    assert (name in summary["failures"]) == fails
    assert summary["skips"].get(name) == (None if fails else second)
