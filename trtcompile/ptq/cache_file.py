"""Calibration cache files: TensorRT's text format, and a JSON sidecar that says what it is for.

The text is what TensorRT's own calibrators write::

    TRT-100600-EntropyCalibration2
    x: 3c010204
    conv1: 3d1ae136

a header with a version and an algorithm, then for each tensor its name and, as eight hexadecimal
digits, the big-endian float32 scale (amax / 127). Names may contain spaces and colons.

The text does not say which model it belongs to. The sidecar ``<cache file>.json`` does: the graph's
hash, a fingerprint and the amax of each tensor, the number of samples, and the SHA-256 of the text.
The text is replaced first, then the sidecar. A reader that meets a text and a sidecar which do not
belong together (an interruption between the two, an edited text, a text that another program wrote)
sees it from the SHA-256 and treats the text as one without a sidecar: its identity is unverified.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trtcompile.atomic_files import file_at, replace_files
from trtcompile.errors import CalibrationError
from trtcompile.ptq.algorithms import ALL_ZERO_SCALE, CalibrationAlgo
from trtcompile.ptq.table import (
    CalibrationTable,
    Provenance,
    problem_of_name,
    problem_of_scale,
)

# TensorRT compares this number with its own version. trtcompile is no TensorRT; 10.6.0 is the one
# that was seen to write and read this format.
CACHE_VERSION = 100600
SIDECAR_FORMAT = 1

_MAGIC = b"TRT-"
_HEADER = re.compile(r"TRT-(\d+)-(\w+)\s*")
_ENTRY = re.compile(
    r"(?P<name>.*): (?P<scale>[0-9a-fA-F]{8}|0)\s*"
)  # greedy: the last ": " separates
_ALGORITHMS = {algo.value: algo for algo in CalibrationAlgo}


@dataclass(frozen=True)
class CachedTable:
    """What a cache file holds.

    Attributes:
        table: the scales; with provenance if the sidecar vouches for them.
        doubt: why the scales' origin is unverified, as a sentence; None if the sidecar vouches for
            them.
    """

    table: CalibrationTable
    doubt: str | None


def sidecar_of(cache_file: Path) -> Path:
    """Where the sidecar of a cache file is."""
    return cache_file.with_name(cache_file.name + ".json")


def write_cache(cache_file: Path, table: CalibrationTable) -> None:
    """Writes a table and its sidecar; on failure the files are left as they were.

    Raises:
        CalibrationError: the table has no provenance, or a file cannot be written.
    """
    if table.provenance is None:
        raise CalibrationError(
            "A calibration table without provenance cannot be written: its sidecar would be empty. "
            "Calibrate with a DataLoaderCalibrator."
        )
    text = format_text(table)
    sidecar = _format_sidecar(table, table.provenance, text)
    check_can_write(cache_file)
    try:
        replace_files({cache_file: text, sidecar_of(cache_file): sidecar})
    except OSError as error:
        raise CalibrationError(
            f"The calibration cache {str(cache_file)!r} cannot be written: {error}. Give a path in "
            "a folder with space where you may write."
        ) from error


def check_can_write(cache_file: Path) -> None:
    """Finds out, such as before a long calibration, whether its result could be written.

    Raises:
        CalibrationError: a path of the two files is a folder or a device, or its folder is missing or not writable.
    """
    for path in (cache_file, sidecar_of(cache_file)):
        try:
            folder = file_at(path).parent
        except OSError as error:
            problem = str(error)
        else:
            if os.access(folder, os.W_OK):
                continue
            problem = f"the folder {str(folder)!r} is not writable. Give a path elsewhere."
        raise CalibrationError(f"The calibration cache cannot be written: {problem}")


def read_cache(cache_file: Path) -> CachedTable:
    """Reads a cache file of any version and algorithm, with its sidecar if there is one.

    Raises:
        CalibrationError: the file or the sidecar is missing, unreadable, or corrupted.
    """
    text = _read(cache_file)
    scales, algo = parse_text(text, str(cache_file))
    sidecar_file = sidecar_of(cache_file)
    if not os.path.exists(sidecar_file):  # noqa: PTH110 - Path.exists raises for names that are too long
        doubt = f"there is no sidecar {str(sidecar_file)!r} that says which model it is for"
        return CachedTable(CalibrationTable(scales, algo=algo), doubt)
    provenance = _parse_sidecar(_read(sidecar_file), str(sidecar_file), text)
    if provenance is None:
        doubt = f"its text is not the one that the sidecar {str(sidecar_file)!r} describes"
        return CachedTable(CalibrationTable(scales, algo=algo), doubt)
    return CachedTable(CalibrationTable(scales, algo=algo, provenance=provenance), None)


def format_text(table: CalibrationTable) -> bytes:
    """The text of a table's cache file."""
    lines = [f"TRT-{CACHE_VERSION}-{table.algo.value}"]
    lines += [f"{name}: {struct.pack('>f', scale).hex()}" for name, scale in table.items()]
    return "".join(line + "\n" for line in lines).encode()


def parse_text(text: bytes, source: str) -> tuple[dict[str, float], CalibrationAlgo]:
    """Reads the text of a cache file; ``source`` names it in messages.

    Raises:
        CalibrationError: a line is not what the format asks for; the message has its number and
            content.
    """

    def refuse(number: int, line: object, problem: str) -> CalibrationError:
        return CalibrationError(
            f"The calibration cache {source!r} is corrupted: line {number} is {_short(line)}: "
            f"{problem}. Calibrate again, or restore the file."
        )

    if not text.startswith(_MAGIC):
        problem = "a cache starts with a header such as TRT-100600-EntropyCalibration2"
        raise refuse(1, text.split(b"\n", 1)[0], problem)
    try:
        lines = text.decode().split("\n")
    except UnicodeDecodeError as error:
        number = text.count(b"\n", 0, error.start) + 1
        raise refuse(number, text.split(b"\n")[number - 1], "this is no UTF-8 text") from error
    header = _HEADER.fullmatch(lines[0])
    if header is None or header[2] not in _ALGORITHMS:
        names = ", ".join(_ALGORITHMS)
        raise refuse(1, lines[0], f"a header is TRT-<version>-<algorithm>, with one of {names}")
    scales: dict[str, float] = {}
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        entry = _ENTRY.fullmatch(line)
        if entry is None:
            raise refuse(number, line, "a line is '<tensor name>: <8 hexadecimal digits>'")
        # TensorRT 10.6 writes 0 for a tensor that was zero throughout calibration.
        digits = entry["scale"]
        scale = ALL_ZERO_SCALE if digits == "0" else struct.unpack(">f", bytes.fromhex(digits))[0]
        name = entry["name"]
        wrong = problem_of_name(name) or problem_of_scale(scale)
        if name in scales:
            wrong = f"{name!r} has a scale already"
        if wrong is not None:
            raise refuse(number, line, wrong)
        scales[name] = scale
    return scales, _ALGORITHMS[header[2]]


def _format_sidecar(table: CalibrationTable, provenance: Provenance, text: bytes) -> bytes:
    content = {
        "format": SIDECAR_FORMAT,
        "cache_sha256": hashlib.sha256(text).hexdigest(),
        "algorithm": table.algo.value,
        "algorithm_options": dict(provenance.algo_options),
        "graph_hash": provenance.graph_hash,
        "samples": provenance.samples,
        "tensors": {
            name: {"fingerprint": provenance.fingerprints[name], "amax": provenance.amax[name]}
            for name in table
        },
    }
    return (json.dumps(content, indent=2) + "\n").encode()


def _parse_sidecar(data: bytes, source: str, text: bytes) -> Provenance | None:
    """The provenance that a sidecar states, or None if it describes another text."""
    try:
        content = json.loads(data)
        form = content["format"]
        if form != SIDECAR_FORMAT:
            raise CalibrationError(
                f"The calibration cache's sidecar {source!r} has the format {_short(form)}, not "
                f"{SIDECAR_FORMAT}. Update trtcompile, or calibrate again."
            )
        if content["cache_sha256"] != hashlib.sha256(text).hexdigest():
            return None
        tensors: dict[str, Any] = content["tensors"]
        return Provenance(
            graph_hash=str(content["graph_hash"]),
            fingerprints={name: str(entry["fingerprint"]) for name, entry in tensors.items()},
            amax={name: float(entry["amax"]) for name, entry in tensors.items()},
            samples=int(content["samples"]),
            algo_options={k: float(v) for k, v in content.get("algorithm_options", {}).items()},
        )
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise CalibrationError(
            f"The calibration cache's sidecar {source!r} is corrupted: {_short(error)}. Calibrate "
            "again, or remove it to use the cache unverified."
        ) from error


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CalibrationError(
            f"The calibration cache {str(path)!r} cannot be read: {error.strerror or error}. Give "
            "the path of a file that a DataLoaderCalibrator wrote with cache_file=."
        ) from error


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
