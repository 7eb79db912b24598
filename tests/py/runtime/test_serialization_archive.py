"""The container: what is written is read, and a file with any byte changed is refused."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

import pytest

from trtcompile.runtime.serialization import archive as archive_module
from trtcompile.runtime.serialization.archive import ArchiveError, ArchiveReader, write_archive
from trtcompile.runtime.serialization.json_values import MalformedError, dump

MEMBERS = {
    "signature.json": b'{"a": 1}\n',
    "plans/0.plan": bytes(range(256)),
    "constants/0.bin": b"",
    "constants/1.bin": memoryview(b"\x80\x04pickle."),
}


def written(members: dict[str, Any] = MEMBERS, **provenance: Any) -> bytes:
    file = io.BytesIO()
    write_archive(file, provenance, members)
    return file.getvalue()


def read_all(data: bytes) -> dict[str, bytes]:
    """What ``load`` does with a file, whatever the members mean."""
    reader = ArchiveReader(io.BytesIO(data))
    members = {name: reader.read(name) for name in MEMBERS}
    reader.check_all_read()
    return members


def test_what_is_written_is_read() -> None:
    reader = ArchiveReader(io.BytesIO(written(graph_hash="abc")))
    assert {name: reader.read(name) for name in MEMBERS} == {
        n: bytes(d) for n, d in MEMBERS.items()
    }
    assert reader.read_json("signature.json") == {"a": 1}
    assert reader.manifest["graph_hash"] == "abc"
    buffer = bytearray(256)
    reader.read_into("plans/0.plan", memoryview(buffer))
    assert buffer == MEMBERS["plans/0.plan"]
    reader.check_all_read()


def test_equal_content_gives_equal_bytes() -> None:
    assert written() == written()


def test_zip_tools_read_it() -> None:
    with zipfile.ZipFile(io.BytesIO(written())) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["manifest.json", *MEMBERS]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in archive.infolist())
        assert archive.read("plans/0.plan") == MEMBERS["plans/0.plan"]


def test_every_altered_byte_is_found() -> None:
    data = written()
    for offset in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            altered = bytearray(data)
            altered[offset] ^= change
            with pytest.raises(ArchiveError):
                read_all(bytes(altered))


def test_every_truncation_is_found() -> None:
    data = written()
    for length in range(len(data)):
        with pytest.raises(ArchiveError):
            read_all(data[:length])


def test_a_truncated_file_names_the_member_and_both_sizes() -> None:
    data = written()
    end = data.index(MEMBERS["plans/0.plan"]) + 256
    with pytest.raises(
        ArchiveError, match=rf"plans/0\.plan ends at byte {end}, and the file has {end - 1} bytes"
    ):
        ArchiveReader(io.BytesIO(data[: end - 1]))


def test_an_altered_member_is_named_with_both_hashes() -> None:
    data = bytearray(written())
    start = data.index(MEMBERS["plans/0.plan"])
    data[start + 7] ^= 1
    expected = hashlib.sha256(MEMBERS["plans/0.plan"]).hexdigest()
    found = hashlib.sha256(data[start : start + 256]).hexdigest()
    reader = ArchiveReader(io.BytesIO(bytes(data)))
    with pytest.raises(ArchiveError, match=rf"plans/0\.plan is altered.*{found}.*{expected}"):
        reader.read("plans/0.plan")
    with pytest.raises(ArchiveError, match=rf"plans/0\.plan is altered.*{found}.*{expected}"):
        reader.read_into("plans/0.plan", memoryview(bytearray(256)))
    assert reader.read("signature.json") == MEMBERS["signature.json"]


def test_swapped_members_are_refused() -> None:
    """Each hash is right for some member: it must be right for its own."""
    one = written({"plans/0.plan": b"aaaa", "plans/1.plan": b"bbbb"})
    two = one.replace(b"bbbb", b"XXXX").replace(b"aaaa", b"bbbb").replace(b"XXXX", b"aaaa")
    assert one != two
    with pytest.raises(ArchiveError, match=r"plans/0\.plan is altered"):
        ArchiveReader(io.BytesIO(two)).read("plans/0.plan")


def added_to(data: bytes, name: str, content: bytes, **options: Any) -> bytes:
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a", **options) as archive:
        archive.writestr(name, content)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    "altered",
    [
        pytest.param(lambda data: data + b"\0", id="something appended"),
        pytest.param(lambda data: b"\0" + data, id="something prepended"),
        pytest.param(lambda data: added_to(data, "data.pkl", b"\x80\x04."), id="a further member"),
        pytest.param(lambda data: added_to(data, "plans/0.plan", b"other"), id="a name twice"),
        pytest.param(
            lambda data: added_to(data, "../../x", b"other"), id="a path out of the folder"
        ),
        pytest.param(
            lambda data: added_to(data, "bomb", bytes(10**6), compression=zipfile.ZIP_DEFLATED),
            id="a compressed member",
        ),
    ],
)
def test_other_zip_structure_is_refused(altered: Any) -> None:
    with pytest.raises(ArchiveError):
        read_all(altered(written()))


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_file_that_was_unpacked_and_packed_again_is_refused(compression: int) -> None:
    file = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(written())) as source,
        zipfile.ZipFile(file, "w", compression) as copy,
    ):
        for name in source.namelist():
            copy.writestr(name, source.read(name))
    with pytest.raises(ArchiveError, match="altered"):
        read_all(file.getvalue())


def test_a_member_that_nobody_asks_for_is_refused() -> None:
    reader = ArchiveReader(
        io.BytesIO(written({"signature.json": b"1", "data/0.bin": b"\x80\x04."}))
    )
    reader.read("signature.json")
    with pytest.raises(ArchiveError, match=r"data/0\.bin"):
        reader.check_all_read()


def test_a_missing_member_is_named() -> None:
    reader = ArchiveReader(io.BytesIO(written()))
    with pytest.raises(ArchiveError, match=r"no member plans/1\.plan"):
        reader.read("plans/1.plan")


@pytest.mark.parametrize("name", ["../x.bin", "/etc/x.bin", "a/b/0.bin", "data.pkl", "A.json", ""])
def test_a_manifest_with_such_a_name_is_refused(name: str) -> None:
    with pytest.raises(ArchiveError, match="lists a member"):
        ArchiveReader(io.BytesIO(written({name: b"content"})))


def test_another_format_version_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "FORMAT_VERSION", 4)
    data = written()
    monkeypatch.undo()
    with pytest.raises(ArchiveError, match="format version 4, and this trtcompile reads version 3"):
        ArchiveReader(io.BytesIO(data))


def test_too_much_json_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written({"signature.json": dump("x" * 5000)})
    monkeypatch.setattr(archive_module, "LARGEST_JSON", 4000)
    reader = ArchiveReader(io.BytesIO(data))
    with pytest.raises(ArchiveError, match=r"signature\.json has 5003 bytes"):
        reader.read_json("signature.json")
    monkeypatch.setattr(archive_module, "LARGEST_JSON", 100)
    with pytest.raises(ArchiveError, match=r"manifest\.json has"):
        ArchiveReader(io.BytesIO(data))


@pytest.mark.parametrize(
    "text", [b"{", b"\xff", b"NaN", b'{"a": -Infinity}', b"[" * 100_000, b"1" * 5000, b""]
)
def test_text_that_is_no_json_is_refused(text: bytes) -> None:
    reader = ArchiveReader(io.BytesIO(written({"signature.json": text})))
    with pytest.raises(MalformedError, match=r"signature\.json is malformed"):
        reader.read_json("signature.json")


def test_a_member_of_another_size_than_the_buffer_is_refused() -> None:
    reader = ArchiveReader(io.BytesIO(written()))
    with pytest.raises(ArchiveError, match="256 bytes, and 255 were expected"):
        reader.read_into("plans/0.plan", memoryview(bytearray(255)))


def test_extra_fields_in_headers_are_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Zip adds such fields to members of 4 GiB and more; here to members of any size."""
    members = {**MEMBERS, "plans/0.plan": bytes(4000)}
    plain = written(members)
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 2000)
    with_extra_fields = written(members)
    monkeypatch.undo()
    assert len(with_extra_fields) > len(plain)
    assert read_all(with_extra_fields) == read_all(plain)
