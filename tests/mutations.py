"""The mutations that ``tests/mutate.py`` applies: mistakes that the named tests must notice."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Mutation:
    """One mistake, made by replacing text in one file.

    ``old`` occurs exactly once in ``file``. Each of ``tests`` (pytest node ids; a parametrized test
    without its brackets, or a whole file, stands for all in it) passes before and fails after.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS: tuple[Mutation, ...] = (
    Mutation(
        name="layering: settings imports the engine",
        file="trtcompile/settings.py",
        old="from trtcompile.errors import SettingsError\n",
        new="import trtcompile.engine\nfrom trtcompile.errors import SettingsError\n",
        tests=("tests/py/test_layering.py::test_imports_point_one_way",),
    ),
    Mutation(
        name="layering: a neighbour may be imported",
        file="tests/py/test_layering.py",
        old="TIER[target] == TIER[unit] and (unit, target) not in SAME_TIER",
        new="TIER[target] == TIER[unit] and False",
        tests=("tests/py/test_layering.py::test_a_bad_file_is_found[a neighbour]",),
    ),
)
