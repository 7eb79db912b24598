"""Whether a cache file's scales may serve a model."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

from trtcompile.errors import CalibrationError, CalibrationWarning
from trtcompile.ptq.algorithms import CalibrationAlgo, options_of
from trtcompile.ptq.cache_file import CachedTable, read_cache
from trtcompile.ptq.native_cache import CacheReport
from trtcompile.ptq.request import CalibrationRequest
from trtcompile.ptq.table import CalibrationTable, Provenance

_LISTED = 5


def table_from_cache(
    cache_file: Path,
    request: CalibrationRequest,
    algo: CalibrationAlgo,
    algo_options: Mapping[str, float] | None = None,
) -> CalibrationTable:
    """Reads the scales that a request needs from a cache file.

    Args:
        cache_file: the text; its sidecar lies beside it.
        request: the tensors that need scales.
        algo: the algorithm that the scales must have been chosen with.
        algo_options: its options, where the sidecar tells them; None for whatever they were.

    Raises:
        CalibrationError: the file is unreadable or corrupted, or does not fit; see ``matched_table``.
    """
    source = f"The calibration cache {str(cache_file)!r}"
    return matched_table(read_cache(cache_file), source, request, algo, algo_options)


def matched_table(
    cached: CachedTable,
    source: str,
    request: CalibrationRequest,
    algo: CalibrationAlgo,
    algo_options: Mapping[str, float] | None = None,
) -> CalibrationTable:
    """The scales that a request needs out of those of a cache; other names in it do not matter.

    With a sidecar, each tensor's fingerprint must be the request's. Without one, or where it
    describes another text, the names must all be there, and a ``CalibrationWarning`` says that
    nothing else could be verified.

    Args:
        cached: what the cache holds.
        source: names it in messages, at the start of a sentence.
        request: the tensors that need scales.
        algo: the algorithm that the scales must have been chosen with.
        algo_options: its options, where the sidecar tells them; None for whatever they were.

    Raises:
        CalibrationError: it was made with another algorithm or other options or for another model,
            lacks tensors, or gives different scales to tensors that must share one.
    """
    _check_algorithm(cached, source, algo)
    provenance = cached.table.provenance
    if provenance is not None and algo_options is not None:
        used = options_of(algo, provenance.algo_options)
        if used != algo_options:
            raise CalibrationError(
                f"{source} was made with the algo_options {dict(used)}, not {dict(algo_options)}. Pass those, or "
                "calibrate again."
            )
    missing = [name for name in request.names if name not in cached.table]
    if provenance is not None:
        changed = [
            name
            for name in request.names
            if name in cached.table
            and provenance.fingerprints.get(name) != request.fingerprints[name]
        ]
        if missing or changed:
            differing = [f"{name!r} (not in it)" for name in missing]
            differing += [f"{name!r} (computed differently)" for name in changed]
            raise CalibrationError(
                f"{source} was made for another model: {len(differing)} of {len(request.names)} "
                f"tensors differ: {_listed(differing)}. Calibrate this model, or give its own "
                "cache."
            )
    elif missing:
        raise CalibrationError(
            f"{source} lacks {len(missing)} of the {len(request.names)} tensors of this model: "
            f"{_listed([repr(name) for name in missing])}. Calibrate this model, or give its own "
            "cache; a CacheCalibrator also matches the names of one that TensorRT wrote."
        )
    check_shared(cached.table, source, request)
    if cached.doubt is not None:
        warnings.warn(
            f"{source} is used unverified: {cached.doubt}. It has the names of all "
            f"{len(request.names)} tensors of this model, but may have been made for another one. "
            "Calibrate again to be sure.",
            CalibrationWarning,
            stacklevel=2,
        )
    scales = {name: cached.table[name] for name in request.names}
    return CalibrationTable(scales, algo=algo, provenance=_restricted(provenance, request))


def check_shared(table: CalibrationTable, source: str, request: CalibrationRequest) -> None:
    """Checks that tensors which must share a scale do so.

    Args:
        table: has a scale for all tensors of the request.
        source: names where it comes from, at the start of a sentence.
        request: the groups of tensors.

    Raises:
        CalibrationError: they do not.
    """
    for first, *others in request.groups:
        for name in others:
            if table[name] != table[first]:
                raise CalibrationError(
                    f"{source} gives {first!r} the scale {table[first]:g} and {name!r} "
                    f"{table[name]:g}, but values pass unchanged from one to the other, so they must "
                    "share one scale. Calibrate this model, or give both the same scale."
                )


def has_names_of(cached: CachedTable, request: CalibrationRequest) -> bool:
    """Whether a cache speaks of tensors by the names that trtcompile gives them: ``matched_table`` is for it."""
    return cached.table.provenance is not None or all(n in cached.table for n in request.names)


def check_is_native(cached: CachedTable, source: str, algo: CalibrationAlgo) -> None:
    """Checks that the entries of a cache may be matched with a model's tensors.

    Raises:
        CalibrationError: it was made with another algorithm, or has a sidecar, which says what its names are.
    """
    _check_algorithm(cached, source, algo)
    if cached.table.provenance is not None:
        raise CalibrationError(
            f"{source} has a sidecar that says which tensors its scales are for, so that names= and onnx_file= have "
            "no use. Leave them out."
        )


def table_of_report(
    report: CacheReport,
    algo: CalibrationAlgo,
    shown_by: str = "print(calibrator.report) shows how",
) -> CalibrationTable:
    """The scales of a cache that was matched with all tensors of a model, and a ``CalibrationWarning`` about it.

    Args:
        report: what was matched.
        algo: the algorithm that the scales were chosen with.
        shown_by: where the user finds the report, for the warning.

    Raises:
        CalibrationError: tensors are missing.
    """
    total = len(report.matched) + len(report.missing)
    if report.missing:
        raise CalibrationError(
            f"{report.source} lacks {len(report.missing)} of the {total} tensors of this model: "
            f"{_listed([repr(name) for name in report.missing])}. Calibrate this model, or give "
            "CacheCalibrator(names={tensor: name in the cache}) or, for a cache that was made from ONNX, "
            f"CacheCalibrator(onnx_file=...).\n{report}"
        )
    warnings.warn(
        f"{report.source} is used unverified: nothing in it says which model it is for. All {total} tensors of this "
        f"model were matched with its entries; {shown_by}.",
        CalibrationWarning,
        stacklevel=3,
    )
    return CalibrationTable({match.tensor: match.scale for match in report.matched}, algo=algo)


def _check_algorithm(cached: CachedTable, source: str, algo: CalibrationAlgo) -> None:
    if cached.table.algo is not algo:
        raise CalibrationError(
            f"{source} was made with {cached.table.algo.name}, not {algo.name}. Pass "
            f"algo_type=CalibrationAlgo.{cached.table.algo.name}, or calibrate again."
        )


def _restricted(provenance: Provenance | None, request: CalibrationRequest) -> Provenance | None:
    if provenance is None:
        return None
    return Provenance(
        graph_hash=provenance.graph_hash,
        fingerprints={name: provenance.fingerprints[name] for name in request.names},
        amax={name: provenance.amax[name] for name in request.names},
        samples=provenance.samples,
        algo_options=provenance.algo_options,
    )


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _LISTED
    return ", ".join(items[:_LISTED]) + (f", and {more} more" if more > 0 else "")
