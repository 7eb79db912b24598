"""Which scale of a cache that TensorRT wrote belongs to which tensor of a model. Nothing is guessed."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import torch
from torch.fx import Node

from trtcompile.errors import CalibrationError
from trtcompile.node_info import layer_name, module_path
from trtcompile.ptq.movement import moved_values, only_moves, picks_part
from trtcompile.ptq.native_cache.onnx_file import OnnxGraph, pair_with_onnx
from trtcompile.ptq.native_cache.report import CacheReport, TensorMatch
from trtcompile.ptq.native_cache.scopes import is_scoped, pair_by_module
from trtcompile.ptq.native_cache.sequence import is_unnamed, pair_by_sequence
from trtcompile.ptq.request import CalibrationRequest

#: Movements that may leave values out, or have several results.
_MAY_PICK = frozenset(
    {
        operator.getitem,
        torch.ops.aten.index_select.default,
        torch.ops.aten.split_with_sizes.default,
    }
)
_GIVEN = "given in names"
_IN_ORDER = (
    "The layers have no names: they are taken to have been added in the order in which the model computes, which "
    "matters where branches have the same kinds of layers."
)


@dataclass(frozen=True)
class _Pairs:
    """Nodes and their entries, and why there are no more."""

    entries: Mapping[Node, tuple[str, str]]
    notes: tuple[str, ...]
    reason: str


def match_cache(
    scales: Mapping[str, float],
    source: str,
    request: CalibrationRequest,
    names: Mapping[str, str] | None = None,
    onnx_file: Path | None = None,
) -> CacheReport:
    """Matches the entries of a cache with the tensors that a model needs scales for.

    In this order: ``names``; the ONNX file, by weights and structure; names that tell the module and the operator;
    names that tell the kinds of all layers, if their sequence is the model's. A tensor without an entry of its own
    shares that of a tensor whose values move to or from it unchanged, as TensorRT itself has it for max-pooling.
    Tensors that must share a scale get the largest of theirs. Of a max-pool's two sides, for each of which TensorRT has
    a scale, the one behind counts, where the values are read.

    Args:
        scales: name in the cache -> scale, in the cache's order.
        source: names the cache.
        request: the tensors that need scales.
        names: tensor -> name in the cache.
        onnx_file: the ONNX file that TensorRT's parser was given when the cache was made.

    Raises:
        CalibrationError: ``names`` has a tensor or an entry that is not there, or the ONNX file cannot be read.
        SettingsError: the ONNX file cannot be read without the package ``onnx``.
    """
    given = dict(names or {})
    _check_given(given, scales, source, request)
    pairs = _pairs(scales, request, onnx_file)
    entries = dict(pairs.entries)
    if not given and onnx_file is None:  # an incomplete cache of ours
        own = [name for name in request.names if name in scales]
        entries.update({request.nodes[name]: (name, "the same name") for name in own})
    entries.update({request.nodes[tensor]: (entry, _GIVEN) for tensor, entry in given.items()})
    matched: dict[str, TensorMatch] = {}
    missing: dict[str, str] = {}
    notes = list(pairs.notes)
    for group, measured in zip(request.groups, request.measured, strict=True):
        found = _of_group(group, measured, request, entries)
        if not found:
            missing.update(dict.fromkeys(group, pairs.reason))
            continue
        chosen, note = _shared(found, measured, scales)
        notes += [note] if note else []
        for tensor in group:
            entry, how = found.get(tensor, chosen)
            if scales[entry] != scales[chosen[0]] or tensor not in found:
                entry, how = chosen[0], f"shares the scale of {chosen[1]}"
            path = module_path(request.nodes[tensor])
            matched[tensor] = TensorMatch(tensor, path, entry, scales[entry], how)
    used = {match.entry for match in matched.values()}
    return CacheReport(
        source=source,
        matched=tuple(matched[name] for name in request.names if name in matched),
        missing=missing,
        unused=tuple(name for name in scales if name not in used),
        notes=tuple(notes),
    )


def _pairs(
    scales: Mapping[str, float], request: CalibrationRequest, onnx_file: Path | None
) -> _Pairs:
    if onnx_file is not None:
        onnx_graph = OnnxGraph(onnx_file)
        entries, notes = pair_with_onnx(request.graph, onnx_graph)
        reason = "the cache has no entry for what computes it in the ONNX file"
    elif any(map(is_scoped, scales)):
        entries, notes = pair_by_module(request.graph, scales), []
        reason = "no entry has the name of its module and operator"
    elif any(map(is_unnamed, scales)):
        entries, problem = pair_by_sequence(request.graph, scales)
        notes = [_IN_ORDER if problem is None else problem]
        reason = "the cache has another sequence of layers than the model"
    else:
        entries, notes = {}, []
        reason = "the names in the cache tell neither modules nor operators"
    entries = {**_inputs(scales, request), **entries}
    return _Pairs({n: e for n, e in entries.items() if e[0] in scales}, tuple(notes), reason)


def _inputs(
    scales: Mapping[str, float], request: CalibrationRequest
) -> dict[Node, tuple[str, str]]:
    """The model's only input is the only name in front of the first layer's."""
    inputs = [node for node in request.graph.graph.nodes if node.op == "placeholder"]
    leading = list(itertools.takewhile(lambda name: not _is_of_layer(name), scales))
    if len(inputs) != 1 or len(leading) != 1 or len(leading) == len(scales):
        return {}
    return {inputs[0]: (leading[0], "the only input")}


def _is_of_layer(name: str) -> bool:
    """Whether a layer computes the tensor; the parser names what it adds itself after the layer: ..._output."""
    return is_scoped(name) or is_unnamed(name) or name.endswith("_output")


def _of_group(
    group: Sequence[str],
    measured: Sequence[str],
    request: CalibrationRequest,
    entries: Mapping[Node, tuple[str, str]],
) -> dict[str, tuple[str, str]]:
    """What is known of the tensors of a group: of themselves, or else of what moves to and from them."""
    own = {name: entries[request.nodes[name]] for name in group if request.nodes[name] in entries}
    given = {name: entry for name, entry in own.items() if entry[1] == _GIVEN}
    if given:
        return given
    # What is measured comes first: behind a max-pool, an entry of the pool says more than one of the other side.
    for name in (*measured, *group):
        if name in own:
            return own
        moved = next(_moved(request.nodes[name], entries), None)
        if moved is not None:
            return {**own, name: moved}
    return {}


def _moved(node: Node, entries: Mapping[Node, tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Entries of tensors with the same values: those that the node only moves, and those that only move the node."""
    source = _only_source(node)
    while source is not None and source not in entries:
        source = _only_source(source)
    if source is not None:
        yield entries[source][0], f"values of {layer_name(source)}, moved: {entries[source][1]}"
    waiting = [node]
    while waiting:
        for user in waiting.pop(0).users:
            if _only_source(user) is not None and _keeps_all(user):
                waiting.append(user)
                if user in entries:
                    yield entries[user][0], f"moved to {layer_name(user)}: {entries[user][1]}"


def _only_source(node: Node) -> Node | None:
    moved = list(moved_values(node)) if only_moves(node) else []
    return moved[0] if len(moved) == 1 else None


def _keeps_all(node: Node) -> bool:
    """Whether a movement's result has all values that it is given; a max-pool counts, as it does for TensorRT."""
    return not picks_part(node) and node.target not in _MAY_PICK


def _shared(
    found: Mapping[str, tuple[str, str]], measured: Sequence[str], scales: Mapping[str, float]
) -> tuple[tuple[str, str], str | None]:
    """The entry with the largest scale of those that count and its tensor, and a note if there are others."""
    counting = {name: found[name] for name in measured if name in found} or found
    tensor = max(counting, key=lambda name: scales[counting[name][0]])
    chosen = counting[tensor][0]
    others = {entry: scales[entry] for entry, _ in counting.values()}
    if len(set(others.values())) == 1:
        return (chosen, tensor), None
    listed = ", ".join(f"{entry!r} {scale:.6g}" for entry, scale in others.items())
    return (chosen, tensor), (
        f"{', '.join(counting)} must share one scale, but the cache has {listed}: the largest is taken."
    )


def _check_given(
    given: Mapping[str, str],
    scales: Mapping[str, float],
    source: str,
    request: CalibrationRequest,
) -> None:
    for tensor, entry in given.items():
        for name, known, where in (
            (tensor, list(request.names), "a tensor that needs a scale in this model"),
            (entry, list(scales), f"in {source[0].lower()}{source[1:]}"),
        ):
            if name not in known:
                near = get_close_matches(str(name), known, n=1, cutoff=0)
                hint = f" Did you mean {near[0]!r}?" if near else " Leave names out."
                raise CalibrationError(
                    f"names has {tensor!r}: {entry!r}, but {name!r} is not {where}.{hint}"
                )
