"""``Analysis``: what quantization costs, as a table, as JSON, and as a page."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompile.atomic_files import replace_files
from trtcompile.ptq.analysis.findings import Findings
from trtcompile.ptq.analysis.page import as_page
from trtcompile.ptq.analysis.text import as_text

#: Of the JSON form; it changes with the meaning of a field.
SCHEMA = 1


@dataclass(frozen=True)
class Analysis(Findings):
    """``Findings`` that can be shown; ``print(analysis)`` gives a table, the most sensitive layer first."""

    def __str__(self) -> str:
        return as_text(self)

    def to_json(self) -> dict[str, Any]:
        """The analysis as JSON-able values, with the names of the attributes."""
        return {"schema": SCHEMA, **dataclasses.asdict(self)}

    def save_json(self, path: str | os.PathLike[str]) -> None:
        """Writes ``to_json()`` as a file, in one step.

        Raises:
            OSError: the file cannot be written.
        """
        text = json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n"
        replace_files({Path(path): text.encode()})

    def save_html(self, path: str | os.PathLike[str], *, title: str = "INT8 accuracy") -> None:
        """Writes one page with tables and pictures that needs nothing else, in one step.

        Args:
            path: the file.
            title: the page's heading, such as the model's name.

        Raises:
            OSError: the file cannot be written.
        """
        replace_files({Path(path): as_page(self, title).encode()})
