"""What the tests of the converters share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.export.decomp_utils
import torch.export.exported_program
from torch._export import utils as export_utils

_HERE = Path(__file__).parent
_BACKENDS = ("CPU", "CUDA", "Meta")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leaves out the sweep, whose collection alone takes seconds, unless it is asked for."""
    is_sweep = collection_path == _HERE / "test_sweep.py"
    return True if is_sweep and not config.getoption("--sweep") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="module", autouse=True)
def _export_without_other_backends() -> Iterator[None]:
    """Makes ``torch.export`` take a sixth of its time; it gives the same graphs.

    For each export it lists PyTorch's composite operators anew, though none is registered meanwhile, and overrides
    each of them for a dozen kinds of devices that no tensor of these tests is on.
    """
    found = export_utils._collect_all_valid_cia_ops()
    program = torch.export.exported_program
    keys = {
        "_BACKEND_KEYS_TO_OVERRIDE": [getattr(torch._C.DispatchKey, b) for b in _BACKENDS],
        "_AUTOGRAD_ALIAS_BACKEND_KEYS_TO_OVERRIDE": [
            getattr(torch._C.DispatchKey, f"Autograd{b}") for b in _BACKENDS
        ],
    }
    with pytest.MonkeyPatch.context() as patch:
        for module in (program, torch.export.decomp_utils):
            patch.setattr(module, "_collect_all_valid_cia_ops", lambda: set(found))
        for name, value in keys.items():
            assert set(value) <= set(getattr(program, name))
            patch.setattr(program, name, value)
        yield
