"""The mutation runner, on a small tree of its own: what it calls killed, and what it does not."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
MODULE = "def double(x):\n    return x + x\n"
SUITE = """
from trtcompile.maths import double

def test_double():
    assert double(3) == 6

def test_zero():
    assert double(0) == 0
"""
DOUBLE = "tests/test_maths.py::test_double"
ZERO = "tests/test_maths.py::test_zero"


@pytest.fixture
def mutate(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(TESTS))
    for name in ("mutate", "mutations"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("mutate")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in {
        "trtcompile/__init__.py": "",
        "trtcompile/maths.py": MODULE,
        "tests/test_maths.py": SUITE,
        "pyproject.toml": "[tool.pytest.ini_options]\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return tmp_path


def mutation(mutate: ModuleType, **changes: Any) -> Any:
    fields = {
        "name": "double",
        "file": "trtcompile/maths.py",
        "old": "x + x",
        "new": "x + 1",
        "tests": (DOUBLE,),
    }
    return mutate.Mutation(**{**fields, **changes})


def outcome(mutate: ModuleType, tree: Path, **changes: Any) -> Any:
    return mutate.try_mutation(mutation(mutate, **changes), tree, 60.0)


def test_a_noticed_mistake_is_killed(mutate: ModuleType, tree: Path) -> None:
    assert outcome(mutate, tree).verdict == "killed"
    assert outcome(mutate, tree, tests=("tests/test_maths.py",)).verdict == "killed"
    assert (tree / "trtcompile/maths.py").read_text() == MODULE


def test_an_unnoticed_mistake_survives(mutate: ModuleType, tree: Path) -> None:
    assert outcome(mutate, tree, new="2 * x").verdict == "SURVIVED"


def test_every_named_test_must_notice(mutate: ModuleType, tree: Path) -> None:
    result = outcome(mutate, tree, new="3 * x", tests=(DOUBLE, ZERO))
    assert result.verdict == "SURVIVED"
    assert ZERO in result.detail
    assert f"{DOUBLE}," not in result.detail


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"new": "x +"}, "did not run the tests"),
        ({"tests": ("tests/test_maths.py::test_missing",)}, "did not run the tests"),
        ({"old": "y + y"}, "0 times"),
        ({"old": "x"}, "3 times"),
        ({"new": "x + x"}, "is the old text"),
        ({"file": "trtcompile/missing.py"}, "does not exist"),
    ],
    ids=["syntax error", "unknown test", "absent text", "ambiguous text", "no change", "no file"],
)
def test_what_proves_nothing_is_invalid(
    mutate: ModuleType, tree: Path, changes: dict[str, Any], reason: str
) -> None:
    result = outcome(mutate, tree, **changes)
    assert result.verdict == "INVALID"
    assert reason in result.detail


def test_a_test_without_end_is_not_killed(mutate: ModuleType, tree: Path) -> None:
    endless = mutation(mutate, new="double(x) if __import__('time').sleep(60) else x")
    assert mutate.try_mutation(endless, tree, 2.0).verdict == "TIMED OUT"


def test_the_copy_is_imported(mutate: ModuleType, tree: Path) -> None:
    with mutate.copied_tree(tree) as copy:
        assert mutate.imported_package(copy) == copy / "trtcompile"
        assert copy != tree


def test_the_exit_status_tells(
    mutate: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    killed = mutation(mutate)
    survivor = mutation(mutate, name="twice", new="2 * x")
    assert mutate.run_all([killed], tree, 2, 60.0) == 0
    assert "1 of 1 mutations killed" in capsys.readouterr().out
    assert mutate.run_all([killed, survivor], tree, 2, 60.0) == 1
    assert "twice   SURVIVED" in capsys.readouterr().out


def test_failing_before_the_mutation_proves_nothing(
    mutate: ModuleType, tree: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / "trtcompile/maths.py").write_text("def double(x):\n    return x + x + 0.5\n")
    assert mutate.run_all([mutation(mutate)], tree, 1, 60.0) == 1
    assert "do not pass on the unchanged tree" in capsys.readouterr().out


def test_the_mutations_fit_the_tree(mutate: ModuleType) -> None:
    names = [m.name for m in mutate.MUTATIONS]
    assert len(set(names)) == len(names)
    for m in mutate.MUTATIONS:
        assert m.tests
        assert m.new != m.old
        assert (mutate.REPOSITORY / m.file).read_text().count(m.old) == 1, m.name
