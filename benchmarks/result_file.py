"""Result files: JSON, replaced in one step, so that a run that ends early leaves what it had."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1


class ResultFileError(ValueError):
    """A file is not a result of this format."""


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Writes a result; its ``"kind"`` says which benchmark it is of.

    Raises:
        ValueError: a value is NaN or infinite, which JSON cannot hold.
    """
    text = json.dumps({"format": FORMAT, **result}, indent=1, allow_nan=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(text + "\n")
    unfinished.replace(path)


def read_result(path: Path, kind: str) -> dict[str, Any]:
    """Reads a result of one kind.

    Raises:
        ResultFileError: the file holds something else.
    """
    try:
        result = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise ResultFileError(f"{path} cannot be read: {error}.") from error
    if not isinstance(result, dict) or (result.get("kind"), result.get("format")) != (kind, FORMAT):
        raise ResultFileError(f"{path} is not a result of kind {kind!r} and format {FORMAT}.")
    return result
