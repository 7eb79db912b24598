"""The text format, its sidecar, and what is refused."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trtcompile.errors import CalibrationError
from trtcompile.ptq import CalibrationAlgo, CalibrationTable
from trtcompile.ptq.cache_file import (
    check_can_write,
    format_text,
    parse_text,
    read_cache,
    sidecar_of,
    write_cache,
)
from trtcompile.ptq.table import Provenance

ENTROPY = CalibrationAlgo.ENTROPY_CALIBRATION_2
HEADER = "TRT-100600-EntropyCalibration2\n"


def make_table(scales: dict[str, float] | None = None) -> CalibrationTable:
    scales = {"x": 1 / 127, "conv 1: relu": 0.5} if scales is None else scales
    provenance = Provenance(
        graph_hash="graph",
        fingerprints={name: f"of {name}" for name in scales},
        amax={name: 127 * scale for name, scale in scales.items()},
        samples=12,
    )
    return CalibrationTable(scales, algo=ENTROPY, provenance=provenance)


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    path = tmp_path / "calibration.cache"
    write_cache(path, make_table())
    return path


def test_golden_text() -> None:
    text = "TRT-100600-EntropyCalibration2\nx: 3c010204\nconv 1: relu: 3f000000\n"
    assert format_text(make_table()) == text.encode()


def test_a_cache_as_tensorrt_writes_it() -> None:
    text = "TRT-100600-EntropyCalibration2\nx: 3d1ae136\n(Unnamed Layer* 0) [Convolution]_output: 3d192d9f\n"
    scales, algo = parse_text(text.encode(), "cache")
    assert algo is ENTROPY
    assert scales == {
        "x": pytest.approx(0.0378125, rel=1e-4),
        "(Unnamed Layer* 0) [Convolution]_output": pytest.approx(0.0374, rel=1e-2),
    }


names = st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), min_size=1).filter(
    lambda name: name.strip() != ""
)
scales = st.floats(min_value=2.0**-126, max_value=2.0**127, width=32)


@given(st.dictionaries(names, scales, max_size=5), st.sampled_from(list(CalibrationAlgo)))
def test_text_round_trip(given: dict[str, float], algo: CalibrationAlgo) -> None:
    text = format_text(CalibrationTable(given, algo=algo))
    read, read_algo = parse_text(text, "cache")
    assert read == given
    assert list(read) == list(given)
    assert read_algo is algo


@pytest.mark.parametrize("version", ["7103", "8501", "100300", "110000"])
def test_any_version_is_read(version: str) -> None:
    scales, algo = parse_text(f"TRT-{version}-MinMaxCalibration\nx: 3f800000".encode(), "cache")
    assert (scales, algo) == ({"x": 1.0}, CalibrationAlgo.MINMAX_CALIBRATION)


def test_line_ends_case_and_blank_lines_do_not_matter() -> None:
    text = "TRT-1-EntropyCalibration2\r\nx: 3F800000\r\n\r\ny: 3f000000 \n\n"
    assert parse_text(text.encode(), "cache")[0] == {"x": 1.0, "y": 0.5}


@pytest.mark.parametrize(
    ("text", "line", "content"),
    [
        (b"", 1, "b''"),
        (b"\x89PNG\r\n\x1a\n\x00\x00", 1, "PNG"),
        (b"x: 3f800000\n", 1, "x: 3f800000"),
        (b"TRT-100600\nx: 3f800000\n", 1, "TRT-100600"),
        (b"TRT-100600-MedianCalibration\n", 1, "Median"),
        (b"TRT-abc-EntropyCalibration2\n", 1, "abc"),
        (HEADER.encode() + b"x: 3f80000\n", 2, "3f80000"),
        (HEADER.encode() + b"x: 3f8000000\n", 2, "3f8000000"),
        (HEADER.encode() + b"x: 3f80000g\n", 2, "3f80000g"),
        (HEADER.encode() + b"x 3f800000\n", 2, "x 3f800000"),
        (HEADER.encode() + b"x:3f800000\n", 2, "x:3f800000"),
        (HEADER.encode() + b": 3f800000\n", 2, "empty"),
        (HEADER.encode() + b"a: 3f800000\nx: 00000000\n", 3, "x: 00000000"),
        (HEADER.encode() + b"x: 80000000\n", 2, "80000000"),
        (HEADER.encode() + b"x: bf800000\n", 2, "-1"),
        (HEADER.encode() + b"x: 7fc00000\n", 2, "nan"),
        (HEADER.encode() + b"x: 7f800000\n", 2, "inf"),
        (HEADER.encode() + b"x: 00000001\n", 2, "normal"),
        (HEADER.encode() + b"x: 3f800000\ny: 3f800000\nx: 3f800000\n", 4, "already"),
        (HEADER.encode() + b"x: 3f800000\n\xff\xfe\x00: 3f800000\n", 3, "UTF-8"),
        (HEADER.encode() + b"x: 3f800000\n\x00\x01\x02", 3, r"\x00\x01\x02"),
    ],
)
def test_corrupted_text_is_refused_with_its_line(
    tmp_path: Path, text: bytes, line: int, content: str
) -> None:
    path = tmp_path / "calibration.cache"
    path.write_bytes(text)
    with pytest.raises(CalibrationError) as caught:
        read_cache(path)
    message = str(caught.value)
    assert f"line {line} " in message
    assert content in message
    assert str(path) in message
    assert path.read_bytes() == text
    assert list(tmp_path.iterdir()) == [path]


@given(st.binary(max_size=200))
def test_rubbish_is_never_more_than_an_error(rubbish: bytes) -> None:
    for text in (rubbish, HEADER.encode() + rubbish):
        try:
            scales, _ = parse_text(text, "cache")
        except CalibrationError:
            continue
        assert all(scale > 0 for scale in scales.values())


def test_file_round_trip(cache_file: Path) -> None:
    cached = read_cache(cache_file)
    assert cached.doubt is None
    assert cached.table == make_table()
    assert cached.table.provenance == make_table().provenance


def test_the_sidecar_tells_what_the_cache_is_for(cache_file: Path) -> None:
    assert json.loads(sidecar_of(cache_file).read_text()) == {
        "format": 1,
        "cache_sha256": hashlib.sha256(cache_file.read_bytes()).hexdigest(),
        "algorithm": "EntropyCalibration2",
        "algorithm_options": {},
        "graph_hash": "graph",
        "samples": 12,
        "tensors": {
            "x": {"fingerprint": "of x", "amax": pytest.approx(1.0)},
            "conv 1: relu": {"fingerprint": "of conv 1: relu", "amax": 63.5},
        },
    }
    assert sidecar_of(cache_file).name == "calibration.cache.json"


def test_without_a_sidecar_there_is_doubt(cache_file: Path) -> None:
    sidecar_of(cache_file).unlink()
    cached = read_cache(cache_file)
    assert cached.table == make_table()
    assert cached.table.provenance is None
    assert cached.doubt is not None
    assert "no sidecar" in cached.doubt


def test_an_edited_cache_is_noticed(cache_file: Path) -> None:
    cache_file.write_text(cache_file.read_text().replace("3f000000", "3f000001"))
    cached = read_cache(cache_file)
    assert cached.table["conv 1: relu"] == float(np.nextafter(np.float32(0.5), np.float32(1)))
    assert cached.table.provenance is None
    assert cached.doubt is not None
    assert "not the one" in cached.doubt


def test_a_reader_between_the_two_files_has_doubts(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the text, before the sidecar: new scales, and the sidecar of the old ones."""
    replace = Path.replace

    def stop_before_sidecar(self: Path, target: Any) -> Path:
        if Path(target).suffix == ".json":
            raise KeyboardInterrupt
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", stop_before_sidecar)
    new = make_table({"x": 0.25, "conv 1: relu": 0.125})
    with pytest.raises(KeyboardInterrupt):
        write_cache(cache_file, new)
    cached = read_cache(cache_file)
    assert cached.table == new
    assert cached.doubt is not None


@pytest.mark.parametrize(
    "sidecar",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff\xfe",
        b'{"format": 1}',
        b'{"format": 2}',
        b'{"format": 1, "cache_sha256": "SHA"}',
        b'{"format": 1, "cache_sha256": "SHA", "tensors": [], "graph_hash": "", "samples": 1}',
        b'{"format": 1, "cache_sha256": "SHA", "tensors": {"x": 1}, "graph_hash": "", "samples": 1}',
        b'{"format": 1, "cache_sha256": "SHA", "tensors": {}, "graph_hash": "", "samples": 1e999}',
    ],
)
def test_a_corrupted_sidecar_is_refused(cache_file: Path, sidecar: bytes) -> None:
    text = cache_file.read_bytes()
    sidecar = sidecar.replace(b"SHA", hashlib.sha256(text).hexdigest().encode())
    sidecar_of(cache_file).write_bytes(sidecar)
    with pytest.raises(CalibrationError, match=r"sidecar .*calibration\.cache\.json"):
        read_cache(cache_file)
    assert cache_file.read_bytes() == text
    assert sidecar_of(cache_file).read_bytes() == sidecar


def test_missing_files_and_folders(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="No such file"):
        read_cache(tmp_path / "missing.cache")
    with pytest.raises(CalibrationError, match="directory"):
        read_cache(tmp_path)


def test_a_failed_write_keeps_the_old_files(
    cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path: path.read_bytes() for path in cache_file.parent.iterdir()}

    def disk_full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", disk_full)
    with pytest.raises(CalibrationError, match="No space left on device"):
        write_cache(cache_file, make_table({"x": 0.1}))
    assert {path: path.read_bytes() for path in cache_file.parent.iterdir()} == before


def test_a_table_without_provenance_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="provenance"):
        write_cache(tmp_path / "cache", CalibrationTable({"x": 0.1}, algo=ENTROPY))
    assert list(tmp_path.iterdir()) == []


def test_problems_of_writing_are_found_beforehand(tmp_path: Path) -> None:
    check_can_write(tmp_path / "cache")
    with pytest.raises(CalibrationError, match="is a folder"):
        check_can_write(tmp_path)
    with pytest.raises(CalibrationError, match="is in no folder"):
        check_can_write(tmp_path / "missing" / "cache")
    (tmp_path / "file").touch()
    with pytest.raises(CalibrationError, match="is in no folder"):
        check_can_write(tmp_path / "file" / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_sidecar_that_cannot_be_written_is_found_beforehand(tmp_path: Path) -> None:
    (tmp_path / "cache.json").mkdir()
    with pytest.raises(CalibrationError, match=r"cache\.json' is a folder"):
        check_can_write(tmp_path / "cache")
    assert [path.name for path in tmp_path.iterdir()] == ["cache.json"]


@pytest.mark.parametrize("name", ["loop", "x" * 300])
def test_paths_that_lead_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(CalibrationError, match=r"cannot be written: .*Give another path\."):
        check_can_write(tmp_path / name)


def test_a_name_without_room_for_that_of_a_sidecar(tmp_path: Path) -> None:
    cache = tmp_path / ("x" * 252)
    cache.write_bytes(format_text(make_table({"x": 0.1})))
    assert read_cache(cache).doubt is not None
