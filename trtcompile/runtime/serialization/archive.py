"""The container: a zip file that any zip tool lists, and that is read without trusting a byte of it.

Members are stored uncompressed, ``manifest.json`` first, the others in the order in which the manifest names them::

    manifest.json    format, version, provenance; name, size, and SHA-256 of every other member
    ...              the other members
    (directory)      zip's own directory; its comment is the SHA-256 of all bytes that are not in a member listed above

The manifest and its hashes decide where members are; zip's directory, which could say something else, is not read.
So each byte of the file is covered by one hash and by one member at most: there is nothing to decompress, nothing is
written to disk, and a file with duplicated, overlapping, additional, or renamed members is refused.

Hashes detect damage, not forgery: whoever makes a file can also make its hashes.
"""

from __future__ import annotations

import hashlib
import os
import re
import struct
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from trtcompile.runtime.serialization.json_values import (
    MalformedError,
    as_int,
    as_mapping,
    as_text,
    dump,
    fields,
    parse,
    shown,
)

FORMAT = "trtcompile module"
FORMAT_VERSION = 3
MANIFEST = "manifest.json"

LARGEST_JSON = 64 * 2**20
"""Bytes that a JSON member may have; real ones have a few hundred for each operator."""

_MEMBER_NAME = re.compile(r"[a-z]+(/[0-9]+)?\.(json|plan|bin)")
_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_DIGEST_LENGTH = 64
_CHUNK = 2**20
_COPY_AGAIN = "Copy the file again, or save the module again."

Buffer = bytes | memoryview


class ArchiveError(MalformedError):
    """The file itself is damaged, or no archive; the message names the member where one is concerned."""


@dataclass(frozen=True)
class _Span:
    """Where a member's bytes are, and what they should hash to."""

    start: int
    size: int
    sha256: str

    @property
    def end(self) -> int:
        return self.start + self.size


def write_archive(
    file: BinaryIO, provenance: Mapping[str, Any], members: Mapping[str, Buffer]
) -> None:
    """Writes an archive; equal content gives equal bytes.

    Args:
        file: empty, open for writing and reading.
        provenance: further entries of the manifest, as JSON values.
        members: the content of each member.
    """
    listed = {
        name: {"size": memoryview(data).nbytes, "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in members.items()
    }
    manifest = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        **provenance,
        "members": listed,
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_zip_info(MANIFEST), dump(manifest, indent=1))
        for name, data in members.items():
            archive.writestr(_zip_info(name), data)
        archive.comment = b"0" * _DIGEST_LENGTH
    reader = ArchiveReader(file, check_structure=False)
    file.seek(-_DIGEST_LENGTH, os.SEEK_END)
    file.write(reader.structure_digest().encode())


def _zip_info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
    info.create_system = (
        3  # Unix, wherever the file is written: the bytes depend on the content alone
    )
    info.external_attr = 0o644 << 16
    return info


class ArchiveReader:
    """Reads an archive; a member's content is checked against its hash as it is read.

    Args:
        file: open for reading; stays open.
        check_structure: whether to check everything outside the members now.

    Attributes:
        manifest: the parsed manifest.

    Raises:
        ArchiveError: the file is not an archive, has another format version, is truncated, or is altered outside
            of its members.
    """

    def __init__(self, file: BinaryIO, *, check_structure: bool = True) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        self.manifest, start = self._read_manifest()
        self._spans = dict(self._walk(start))
        self._unread = set(self._spans)
        if check_structure:
            self._check_structure()

    def size_of(self, name: str) -> int:
        """The size of a member in bytes.

        Raises:
            ArchiveError: there is no such member.
        """
        return self._span(name).size

    def read(self, name: str) -> bytes:
        """The content of a member, held in memory once.

        Raises:
            ArchiveError: there is no such member, or its content is altered.
        """
        span = self._span(name)
        self._file.seek(span.start)
        data = self._file.read(span.size)
        self._check(name, span, data)
        return data

    def read_json(self, name: str) -> Any:
        """The value of a JSON member.

        Raises:
            ArchiveError: there is no such member, its content is altered, or it is no JSON.
        """
        _check_json_size(name, self.size_of(name))
        try:
            return parse(self.read(name))
        except ArchiveError:
            raise
        except MalformedError as error:
            raise ArchiveError(f"{name} is malformed: {error.problem}") from error

    def read_into(self, name: str, buffer: memoryview) -> None:
        """Reads a member's content into a buffer of its size.

        Raises:
            ArchiveError: there is no such member, or its content is altered or of another size.
        """
        span = self._span(name)
        if span.size != buffer.nbytes:
            raise ArchiveError(
                f"{name} has {span.size} bytes, and {buffer.nbytes} were expected of it"
            )
        self._file.seek(span.start)
        self._file.readinto(buffer)  # type: ignore[attr-defined]
        self._check(name, span, buffer)

    def check_all_read(self) -> None:
        """Refuses members that nothing has asked for, whose content is therefore unchecked.

        Raises:
            ArchiveError: there are such members.
        """
        if self._unread:
            raise ArchiveError(
                f"it has the members {shown(sorted(self._unread))}, which no saved module has"
            )

    def structure_digest(self) -> str:
        """The SHA-256 of everything but the listed members and the digest itself."""
        digest = hashlib.sha256()
        position = 0
        for span in self._spans.values():
            self._update(digest, position, span.start)
            position = span.end
        self._update(digest, position, self._size - _DIGEST_LENGTH)
        return digest.hexdigest()

    def _update(self, digest: Any, start: int, end: int) -> None:
        self._file.seek(start)
        while start < end:
            chunk = self._file.read(min(_CHUNK, end - start))
            if not chunk:
                return
            digest.update(chunk)
            start += len(chunk)

    def _span(self, name: str) -> _Span:
        if name not in self._spans:
            raise ArchiveError(f"it has no member {name}")
        return self._spans[name]

    def _check(self, name: str, span: _Span, data: Buffer) -> None:
        found = hashlib.sha256(data).hexdigest()
        if found != span.sha256:
            raise ArchiveError(
                f"{name} is altered: its SHA-256 is {found}, and the manifest says {span.sha256}",
                _COPY_AGAIN,
            )
        self._unread.discard(name)

    def _read_manifest(self) -> tuple[dict[str, Any], int]:
        self._file.seek(0)
        start = self._file.read(4)
        if start != _LOCAL_MAGIC:
            raise ArchiveError(
                f"its first bytes are {start!r}, and a file of trtcompile.save starts with {_LOCAL_MAGIC!r}",
                "Give the path of a file that trtcompile.save wrote.",
            )
        name, data_start, size = self._local_header(0)
        if name != MANIFEST:
            raise ArchiveError(
                f"it is a zip file, but its first member is {shown(name)} and not {MANIFEST}, so trtcompile.save did "
                "not write it",
                "Give the path of a file that trtcompile.save wrote; files of torch.save are not read.",
            )
        _check_json_size(MANIFEST, size)
        self._check_within(MANIFEST, data_start + size)
        self._file.seek(data_start)
        try:
            manifest = as_mapping(parse(self._file.read(size)))
        except MalformedError as error:
            raise ArchiveError(f"{MANIFEST} is altered: {error.problem}", _COPY_AGAIN) from error
        if manifest.get("format") != FORMAT:
            raise ArchiveError(
                f"{MANIFEST} says the format {shown(manifest.get('format'))}, not {FORMAT!r}",
                "Give the path of a file that trtcompile.save wrote.",
            )
        version = manifest.get("format_version")
        if version != FORMAT_VERSION:
            raise ArchiveError(
                f"it has format version {shown(version)}, and this trtcompile reads version {FORMAT_VERSION}",
                "Load it with the trtcompile that saved it, or save the module again with this one.",
            )
        return manifest, data_start + size

    def _walk(self, position: int) -> Iterator[tuple[str, _Span]]:
        """The spans of the members that the manifest lists, each checked to begin where the one before ends."""
        for name, size, sha256 in _listed_members(self.manifest):
            _, start, _ = self._local_header(position, expected=name)
            span = _Span(start, size, sha256)
            self._check_within(name, span.end)
            yield name, span
            position = span.end

    def _local_header(self, position: int, expected: str = MANIFEST) -> tuple[str, int, int]:
        """The name of a member, where its content starts, and the size that zip states."""
        self._check_within(f"the header of {expected}", position + _LOCAL_HEADER.size)
        self._file.seek(position)
        values = _LOCAL_HEADER.unpack(self._file.read(_LOCAL_HEADER.size))
        magic, _, flags, method, *_, size, name_length, extra_length = values
        start = position + _LOCAL_HEADER.size + name_length + extra_length
        self._check_within(f"the header of {expected}", start)
        name = self._file.read(name_length).decode("ascii", errors="replace")
        if position == 0 and name != expected:  # the caller says what kind of zip file this is
            return name, start, size
        if (magic, flags, method, name) != (_LOCAL_MAGIC, 0, zipfile.ZIP_STORED, expected):
            raise ArchiveError(
                f"{expected} does not start at byte {position}, where it should: the zip structure is altered",
                _COPY_AGAIN,
            )
        return name, start, size

    def _check_within(self, name: str, end: int) -> None:
        if end > self._size:
            raise ArchiveError(
                f"it is truncated or altered: {name} ends at byte {end}, and the file has {self._size} bytes",
                _COPY_AGAIN,
            )

    def _check_structure(self) -> None:
        self._file.seek(max(0, self._size - _DIGEST_LENGTH))
        expected = self._file.read().decode("ascii", errors="replace")
        found = self.structure_digest()
        if found != expected:
            raise ArchiveError(
                f"{MANIFEST} or the zip structure is altered or truncated: their SHA-256 is {found}, and the file "
                f"ends with {shown(expected)}",
                _COPY_AGAIN,
            )


def _listed_members(manifest: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Name, size, and SHA-256 of each member."""
    try:
        for name, entry in as_mapping(manifest.get("members")).items():
            size, sha256 = fields(entry, "size", "sha256")
            if not _MEMBER_NAME.fullmatch(name) or as_int(size) < 0:
                raise MalformedError(f"it lists a member {shown(name)} of {size} bytes")
            yield name, as_int(size), as_text(sha256)
    except MalformedError as error:
        raise ArchiveError(f"{MANIFEST} is altered: {error.problem}", _COPY_AGAIN) from error


def _check_json_size(name: str, size: int) -> None:
    if size > LARGEST_JSON:
        raise ArchiveError(f"{name} has {size} bytes, and a JSON member may have {LARGEST_JSON}")
