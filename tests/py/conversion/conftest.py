"""What the tests of the converters share."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch.export.decomp_utils
import torch.export.exported_program
from torch._export import utils as export_utils

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(_HERE):
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session", autouse=True)
def _composite_operators_listed_once() -> object:
    """Each ``torch.export`` lists PyTorch's composite operators anew, for half of a case's time.

    The list is that of the registered operators, and no test here registers any.
    """
    found = export_utils._collect_all_valid_cia_ops()
    with pytest.MonkeyPatch.context() as patch:
        for module in (torch.export.exported_program, torch.export.decomp_utils):
            patch.setattr(module, "_collect_all_valid_cia_ops", lambda: set(found))
        yield
