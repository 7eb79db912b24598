"""Applies each mutation of ``mutations.py`` to a copy of the tree and demands that its tests fail.

    python tests/mutate.py [-k TEXT] [-j JOBS] [--list]

A mutation is killed when every test that it names fails: a file that no longer imports, a test that
does not exist, and a time-out prove nothing and count against it. The exit status is 1 unless every
mutation is killed. The same tests are first run on an unchanged copy, where they must pass.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from mutations import MUTATIONS, Mutation

REPOSITORY = Path(__file__).resolve().parents[1]
COPIED = ("trtcompile", "tests", "examples", "benchmarks", "pyproject.toml")
TESTS_FAILED = 1  # pytest's exit status when it ran and tests failed
SECONDS_ALLOWED = 300.0


class MutationError(Exception):
    """A mutation that cannot be applied, or tests that fail without it."""


class Outcome(NamedTuple):
    """What became of one mutation; ``detail`` is empty for one that was killed."""

    mutation: Mutation
    verdict: str
    seconds: float
    detail: str


class PytestRun(NamedTuple):
    """One run of pytest: its exit status (None: out of time), the tests that failed, its output."""

    status: int | None
    failed: tuple[str, ...]
    output: str


@contextlib.contextmanager
def copied_tree(root: Path) -> Iterator[Path]:
    """A throw-away copy of the code and the tests under ``root``."""
    with tempfile.TemporaryDirectory(prefix="mutate-") as folder:
        copy = Path(folder).resolve()
        for name in COPIED:
            source = root / name
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
            elif source.exists():
                shutil.copy(source, copy / name)
        yield copy


def apply(mutation: Mutation, root: Path) -> None:
    """Makes the mistake in the tree at ``root``.

    Raises:
        MutationError: the old text is not in the file exactly once, or the new text equals it.
    """
    path = root / mutation.file
    if not path.is_file():
        raise MutationError(f"{mutation.file} does not exist")
    text = path.read_text()
    if (count := text.count(mutation.old)) != 1:
        raise MutationError(f"the old text is {count} times in {mutation.file}, not once")
    if mutation.new == mutation.old:
        raise MutationError("the new text is the old text")
    path.write_text(text.replace(mutation.old, mutation.new))


def environment(root: Path) -> dict[str, str]:
    """PYTHONPATH comes before an installed trtcompile; one thread each, as several run at once."""
    return {
        **os.environ,
        "PYTHONPATH": str(root),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_ADDOPTS": "",
        "OMP_NUM_THREADS": "1",
    }


def imported_package(root: Path) -> Path:
    """The folder from which a test run at ``root`` imports trtcompile."""
    code = "import trtcompile; print(trtcompile.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env=environment(root),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise MutationError(f"trtcompile cannot be imported from the copy:\n{done.stderr}")
    return Path(done.stdout.strip()).resolve().parent


def run_tests(root: Path, tests: Sequence[str], seconds_allowed: float) -> PytestRun:
    """Runs tests in the tree at ``root``; the exit status is None when they ran out of time."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    try:
        done = subprocess.run(
            [*command, "-q", "--tb=line", "-rfE", *tests],
            cwd=root,
            env=environment(root),
            capture_output=True,
            text=True,
            timeout=seconds_allowed,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        return PytestRun(None, (), str(error))
    # An error is a fixture that failed; a file that does not import has no "::".
    summary = r"^(?:FAILED|ERROR) (\S+?::.+?)(?: - .*)?$"
    failed = tuple(re.findall(summary, done.stdout, flags=re.MULTILINE))
    return PytestRun(done.returncode, failed, done.stdout + done.stderr)


def covers(test: str, failed: str) -> bool:
    """Whether a failed node id is the test, or one of the cases or functions in it."""
    return failed == test or failed.startswith((test + "[", test + "::"))


def judge(mutation: Mutation, run: PytestRun) -> tuple[str, str]:
    """The verdict, and what explains one other than ``killed``."""
    if run.status is None:
        return "TIMED OUT", run.output
    if run.status == 0:
        return "SURVIVED", "every test passed"
    if run.status != TESTS_FAILED:
        return "INVALID", f"pytest did not run the tests (status {run.status}):\n{run.output}"
    spared = [t for t in mutation.tests if not any(covers(t, failed) for failed in run.failed)]
    if spared:
        return "SURVIVED", f"these tests did not fail: {', '.join(spared)}\n{run.output}"
    return "killed", ""


def try_mutation(mutation: Mutation, root: Path, seconds_allowed: float) -> Outcome:
    """Applies one mutation to its own copy of the tree at ``root`` and runs its tests there."""
    start = time.perf_counter()
    with copied_tree(root) as copy:
        try:
            apply(mutation, copy)
            verdict, detail = judge(mutation, run_tests(copy, mutation.tests, seconds_allowed))
        except MutationError as error:
            verdict, detail = "INVALID", str(error)
    return Outcome(mutation, verdict, time.perf_counter() - start, detail)


def check_unmutated(mutations: Sequence[Mutation], root: Path, seconds_allowed: float) -> None:
    """Makes sure that the tests import the copy and pass on it.

    Raises:
        MutationError: they do not, so that their failing later would prove nothing.
    """
    tests = sorted({test for mutation in mutations for test in mutation.tests})
    with copied_tree(root) as copy:
        package = imported_package(copy)
        if package != copy / "trtcompile":
            raise MutationError(f"tests import trtcompile from {package}, not from the copy {copy}")
        print(f"tests import the copy: {package}")
        run = run_tests(copy, tests, seconds_allowed * max(1, len(mutations)))
        if run.status != 0:
            raise MutationError(f"the tests do not pass on the unchanged tree:\n{run.output}")


def report(outcomes: Sequence[Outcome]) -> int:
    """Prints the explanations of what was not killed, then the total; returns the exit status."""
    alive = [outcome for outcome in outcomes if outcome.verdict != "killed"]
    for outcome in alive:
        print(f"\n{outcome.mutation.name}: {outcome.verdict}\n{outcome.detail}")
    print(f"\n{len(outcomes) - len(alive)} of {len(outcomes)} mutations killed")
    return 1 if alive else 0


def run_all(mutations: Sequence[Mutation], root: Path, jobs: int, seconds_allowed: float) -> int:
    """Tries each mutation, ``jobs`` at a time, and prints its row; returns the exit status."""
    try:
        check_unmutated(mutations, root, seconds_allowed)
    except MutationError as error:
        print(error)
        return 1
    width = max(len(mutation.name) for mutation in mutations)
    print(f"{'mutation':<{width}}  {'verdict':<9}  seconds")
    outcomes = []
    with ThreadPoolExecutor(jobs) as pool:
        for outcome in pool.map(lambda m: try_mutation(m, root, seconds_allowed), mutations):
            outcomes.append(outcome)
            row = f"{outcome.mutation.name:<{width}}  {outcome.verdict:<9}  {outcome.seconds:7.1f}"
            print(row, flush=True)
    return report(outcomes)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("-k", metavar="TEXT", default="", help="only mutations with TEXT in a name")
    parser.add_argument("-j", "--jobs", type=int, default=2, help="how many at a time (default 2)")
    parser.add_argument("--list", action="store_true", help="print the mutations and do nothing")
    parser.add_argument("--timeout", type=float, default=SECONDS_ALLOWED, help="seconds for each")
    options = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if options.k in mutation.name]
    if not chosen:
        parser.error(f"no mutation has {options.k!r} in its name")
    if options.list:
        for mutation in chosen:
            print(f"{mutation.name}  ({mutation.file})")
        return 0
    return run_all(chosen, REPOSITORY, options.jobs, options.timeout)


if __name__ == "__main__":
    sys.exit(main())
