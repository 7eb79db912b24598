"""Writing files so that neither a crash nor a reader meets half of one."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO


def replace_files(contents: Mapping[Path, bytes]) -> None:
    """Replaces the contents of files, each in one step, in the order given.

    Everything is first written beside its target and flushed to the disk. Only then are the targets
    replaced, so a full disk, an interruption, or a crash before that leaves all of them as they
    were. Symbolic links stay links; what is no file, such as a device, stays what it is.

    Raises:
        OSError: a file cannot be written.
    """
    staged: dict[Path, Path] = {}
    try:
        for path, data in contents.items():
            target = file_at(path)
            temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
            staged[temporary] = target
            with temporary.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if target.exists():
                shutil.copymode(target, temporary)
        for temporary, target in staged.items():
            temporary.replace(target)
        for folder in {target.parent for target in staged.values()}:
            _flush_folder(folder)
    finally:
        for temporary in staged:
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write and read, beside ``path``; at the end of the block it takes the place of ``path`` in one step.

    If the block raises, ``path`` is left as it was. A symbolic link stays a link. Unlike in ``replace_files``, the
    content need not be in memory at once.

    Raises:
        OSError: the file cannot be written.
    """
    target = file_at(path)
    temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("x+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_folder(target.parent)


def file_at(path: Path) -> Path:
    """Where a file of this path is, or would be, behind symbolic links.

    Raises:
        OSError: there is a folder, a device, or the like, which no file may take the place of; there is no folder for
            it; or the path leads nowhere.
    """
    try:
        target = path.resolve()
        is_folder = target.is_dir()
    except (OSError, RuntimeError) as error:  # too long a name; a loop of links
        raise OSError(f"{error}. Give another path.") from error
    if is_folder:
        raise IsADirectoryError(f"{str(path)!r} is a folder, not a file. Give the path of a file.")
    if target.exists() and not target.is_file():
        raise OSError(f"{str(path)!r} is a device or a pipe. Give the path of a file.")
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"{str(path)!r} is in no folder that there is. Make the folder, or give another path."
        )
    return target


def _flush_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere folders cannot be opened
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
