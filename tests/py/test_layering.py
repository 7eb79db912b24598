"""Imports inside trtcompile point one way, and only ``_tensorrt`` imports TensorRT."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "trtcompile"

# A module imports from tiers above its own line only.
TIERS = (
    ("errors", "atomic_files"),
    ("dims",),
    (
        "settings",
        "inputs",
        "_tensorrt",
        "node_info",
        "products",
        "scale_shift",
        "default_device",
        "one_thread",
        "export_repairs",
        "fake_quantizers",
        "float8",
        "int4_blocks",
    ),
    ("exported", "profiles", "ranged_export"),
    ("capture", "lowering", "ptq", "precision", "conversion"),
    ("partition",),
    ("engine", "simulation"),
    ("runtime",),
    ("compiler",),
    ("accuracy_budget", "beside_simulation"),
    ("parity", "output_parity"),
    ("backend", "__init__"),
)
TIER = {name: tier for tier, names in enumerate(TIERS) for name in names}

# (importer, imported) within one tier.
SAME_TIER: frozenset[tuple[str, str]] = frozenset(
    {
        ("ptq", "lowering"),  # Q/DQ insertion adds constants to a graph as lowering does
        ("precision", "lowering"),  # so does cast insertion
    }
)

# Who may import `_tensorrt`: the stages that need an installed TensorRT, and the compiler, which
# asks it only whether there is a GPU.
TENSORRT_USERS = frozenset({"conversion", "engine", "runtime", "compiler"})


def imported_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Every module or member that a file imports, anywhere in it, with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            yield from ((f"{base}.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "attr", getattr(node.func, "id", ""))
            if function in ("import_module", "__import__"):
                yield str(node.args[0].value), node.lineno


def reads_environment(node: ast.AST) -> bool:
    if isinstance(node, ast.ImportFrom) and node.module == "os":
        return any(alias.name in ("environ", "environb", "getenv") for alias in node.names)
    return isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv")


def problem_of_import(unit: str, name: str, units: set[str], package: str) -> str | None:
    root, *rest = name.split(".")
    if root == "":
        return "relative import"
    if root.startswith("tensorrt") and unit != "_tensorrt":
        return "only _tensorrt imports TensorRT"
    if root != package:
        return None
    target = rest[0] if rest and rest[0] in units else "__init__"
    if target == unit:
        return None
    if unit not in TIER or target not in TIER:
        return f"{unit if unit not in TIER else target} has no tier: give it one"
    if target == "_tensorrt" and unit not in TENSORRT_USERS:
        return f"{unit} must not need an installed TensorRT"
    if TIER[target] > TIER[unit] or (
        TIER[target] == TIER[unit] and (unit, target) not in SAME_TIER
    ):
        return f"{unit} must not import {target}"
    return None


def violations(package: Path) -> list[str]:
    """What breaks the rules in a package folder, as ``file:line: what``."""
    found = []
    units = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    for path in sorted(package.rglob("*.py")):
        inside = path.relative_to(package)
        unit = inside.parts[0].removesuffix(".py")
        if path.name in ("utils.py", "util.py"):
            found.append(f"{inside}:1: a file called {path.name} says nothing about its contents")
        tree = ast.parse(path.read_text(), str(path))
        for name, line in imported_names(tree):
            problem = problem_of_import(unit, name, units, package.name)
            if problem is not None:
                found.append(f"{inside}:{line}: {problem} ({name})")
        found.extend(
            f"{inside}:{node.lineno}: environment variables must not alter a result"
            for node in ast.walk(tree)
            if reads_environment(node)
        )
    return found


def circles(package: Path) -> list[set[str]]:
    """Modules that import each other in a loop, also from inside functions; a package's ``__init__`` only hands on."""
    modules = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): path
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    imported = {
        module: {
            known
            for name, _ in imported_names(ast.parse(path.read_text()))
            for known in (name, name.rpartition(".")[0])
            if known in modules and known != module
        }
        for module, path in modules.items()
    }
    while free := [module for module, others in imported.items() if not others]:
        for module in free:
            del imported[module]
        for others in imported.values():
            others.difference_update(free)
    return [{module, *others} for module, others in imported.items()]


def test_imports_point_one_way() -> None:
    assert violations(PACKAGE) == []


def test_no_modules_import_each_other() -> None:
    assert circles(PACKAGE) == []


def test_a_circle_is_found(good_tree: Path) -> None:
    (good_tree / "lowering/fold.py").write_text("from trtcompile.lowering.pipeline import lower")
    assert circles(good_tree) == []
    (good_tree / "lowering/pipeline.py").write_text(
        "def f():\n    from trtcompile.lowering import fold"
    )
    (found, _) = circles(good_tree)
    assert found == {"trtcompile.lowering.fold", "trtcompile.lowering.pipeline"}


BAD_FILES = {
    "a later stage": ("inputs.py", "from trtcompile.engine import build"),
    "a later stage as a module": ("inputs.py", "import trtcompile.engine"),
    "a later stage from the package": ("inputs.py", "from trtcompile import engine"),
    "the package itself": ("engine.py", "from trtcompile import compile"),
    "a neighbour": ("capture.py", "from trtcompile.lowering.pipeline import lower"),
    "a later stage for types only": (
        "inputs.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from trtcompile import engine",
    ),
    "a later stage in a function": (
        "inputs.py",
        "def f():\n    from trtcompile.engine import build",
    ),
    "a later stage from a subfolder": (
        "lowering/fold.py",
        "from trtcompile.partition import partition",
    ),
    "TensorRT": ("engine.py", "import tensorrt"),
    "TensorRT-RTX": ("engine.py", "from tensorrt_rtx import Builder"),
    "TensorRT by name": (
        "engine.py",
        "import importlib\nimportlib.import_module('tensorrt')",
    ),
    "TensorRT through _tensorrt, too early": ("capture.py", "from trtcompile._tensorrt import trt"),
    "a relative import": ("engine.py", "from . import inputs"),
    "a relative import of a member": ("lowering/fold.py", "from .pipeline import lower"),
    "an environment variable": ("engine.py", "import os\nos.environ['X']"),
    "an environment variable by function": ("engine.py", "from os import getenv"),
    "utils.py": ("lowering/utils.py", ""),
    "a module without a tier": ("helpers.py", "from trtcompile.errors import TRTCompileError"),
}
GOOD_FILES = {
    "__init__.py": "from trtcompile.compiler import compile",
    "errors.py": "import os\nos.fspath('x')",
    "inputs.py": "from trtcompile.errors import TRTCompileError",
    "_tensorrt.py": "import importlib\nimportlib.import_module('tensorrt')\nimport tensorrt_rtx",
    "capture.py": "from trtcompile import inputs",
    "lowering/__init__.py": "from trtcompile.lowering.pipeline import lower",
    "lowering/pipeline.py": "import torch\nfrom trtcompile.inputs import Input",
    "partition/__init__.py": "from trtcompile import lowering\nimport trtcompile.errors",
    "engine.py": "from trtcompile import _tensorrt\nfrom trtcompile.partition import partition",
    "compiler.py": "from trtcompile import capture, engine, lowering, partition",
}


@pytest.fixture
def good_tree(tmp_path: Path) -> Path:
    package = tmp_path / "trtcompile"
    for name, text in GOOD_FILES.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return package


def test_a_good_tree_passes(good_tree: Path) -> None:
    assert violations(good_tree) == []


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_found(good_tree: Path, name: str) -> None:
    file, text = BAD_FILES[name]
    (good_tree / file).write_text(text)
    found = violations(good_tree)
    assert len(found) == 1
    assert found[0].startswith(f"{file}:")


def test_importing_the_package_imports_no_tensorrt() -> None:
    code = "import sys, trtcompile; print([m for m in sys.modules if m.startswith('tensorrt')])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent, check=True
    )
    assert done.stdout.strip() == "[]"


def test_each_exception_is_used() -> None:
    """An import that is allowed and no longer made leaves the table."""
    made = set()
    for path in PACKAGE.rglob("*.py"):
        unit = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        names = [name.split(".") for name, _ in imported_names(ast.parse(path.read_text()))]
        made.update((unit, parts[1]) for parts in names if parts[0] == PACKAGE.name and parts[1:])
    assert made >= SAME_TIER
