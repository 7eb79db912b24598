from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from trtcompile.atomic_files import replace_files, replacing


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_files_are_written_and_replaced(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    replace_files({tmp_path / "a": b"new", tmp_path / "b": b""})
    assert contents(tmp_path) == {"a": b"new", "b": b""}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("failing_call", [1, 2])
def test_a_failure_while_writing_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, failing_call: int
) -> None:
    (tmp_path / "a").write_bytes(b"old a")
    (tmp_path / "b").write_bytes(b"old b")
    calls = 0
    flush = os.fsync

    def fail(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls == failing_call:
            raise error
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(error)):
        replace_files({tmp_path / "a": b"new a", tmp_path / "b": b"new b"})
    assert contents(tmp_path) == {"a": b"old a", "b": b"old b"}


def test_everything_is_on_disk_before_anything_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    flush, replace = os.fsync, Path.replace

    def record_flush(descriptor: int) -> None:
        mode = os.fstat(descriptor).st_mode
        events.append("flush folder" if stat.S_ISDIR(mode) else "flush")
        flush(descriptor)

    def record_replace(self: Path, target: Any) -> Path:
        events.append(f"replace {Path(target).name}")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", record_flush)
    monkeypatch.setattr(Path, "replace", record_replace)
    replace_files({tmp_path / "b": b"1", tmp_path / "a": b"2"})
    assert events[:4] == ["flush", "flush", "replace b", "replace a"]


def test_an_interruption_between_two_files_leaves_both_complete(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(b"old a")
    (tmp_path / "b").write_bytes(b"old b")
    replace = Path.replace

    def fail_on_second(self: Path, target: Any) -> Path:
        if Path(target).name == "b":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", fail_on_second)
    with pytest.raises(KeyboardInterrupt):
        replace_files({tmp_path / "a": b"new a", tmp_path / "b": b"new b"})
    assert contents(tmp_path) == {"a": b"new a", "b": b"old b"}


def test_links_and_permissions_stay(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link = tmp_path / "link"
    link.symlink_to(real)
    replace_files({link: b"new"})
    assert link.is_symlink()
    assert real.read_bytes() == b"new"
    assert stat.S_IMODE(real.stat().st_mode) == 0o640


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        replace_files({tmp_path / "missing" / "a": b"new"})


def write_at_once(path: Path) -> None:
    with replacing(path) as file:
        file.write(b"new")


@pytest.mark.skipif(os.name != "posix", reason="os.mkfifo is of POSIX; run on Linux or macOS")
@pytest.mark.parametrize("write", [lambda path: replace_files({path: b"new"}), write_at_once])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, write: Any) -> None:
    """Such as /dev/null, which root could replace."""
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(OSError, match="is a device or a pipe"):
            write(path)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "pipe"]
