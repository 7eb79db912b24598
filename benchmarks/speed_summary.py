"""Table and bars of ``speed.py``: INT8 against FP16, and against the ONNX route, on convolution networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metrics import geometric_mean
from summary import OURS, OURS_FP16, ROUTE, SHORT_MS, TOLERANCE, Side, machine_line, side

#: The models of the accuracy benchmark's kinds, which the geometric mean is about.
CNNS = ("vgg16", "resnet18", "mobilenet_v2", "densenet")
#: The models whose rows have bars each; transformers in the table are extras.
ALL_CNNS = (*CNNS, "resnet50", "densenet121")
#: Models whose engine must have no floating-point convolution but by a rule.
INSPECTED = ("vgg16", "resnet50", "mobilenet_v2")
MEAN_OVER_ROUTE = 0.85  # geometric mean of our latency over the route's
MOST_OVER_ROUTE = 1.05  # of any row
MOST_OVER_FP16 = 1.0


def problems(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which bars are missed or cannot be judged, a sentence each."""
    judged = [result for result in results if result["row"]["model"] in ALL_CNNS]
    found = []
    for result in judged:
        found += [f"{_name(result)}, {name}: {why}" for name, why in _unusable(result)]
        found += _floating(result)
    found += _rows_above(judged, OURS_FP16, MOST_OVER_FP16, "our FP16")
    found += _rows_above(judged, ROUTE, MOST_OVER_ROUTE, "the ONNX route")
    ratios = _ratios(judged, CNNS, ROUTE)
    if ratios and geometric_mean(ratios) > MEAN_OVER_ROUTE * TOLERANCE:
        found.append(
            f"the geometric mean over the ONNX route is {geometric_mean(ratios):.3f} in {len(ratios)} rows, not "
            f"{MEAN_OVER_ROUTE}"
        )
    return found


def _unusable(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    sides = {name: side(result, name) for name in (OURS, OURS_FP16, ROUTE)}
    problems = {n: "not measured" if s is None else s.problem for n, s in sides.items()}
    return [(name, problem) for name, problem in problems.items() if problem is not None]


def _floating(result: Mapping[str, Any]) -> list[str]:
    if result["row"]["model"] not in INSPECTED:
        return []
    found = []
    for build in result["contenders"].get(OURS, {"builds": []})["builds"][:1]:
        layers = build["int8_layers"]
        for verdict in ("not INT8", "not found"):
            found += [f"{_name(result)}: {name} is {verdict}" for name in layers.get(verdict, [])]
        for one in layers.get("floating convolutions", []):
            # A convolution by a rule may be there; a linear layer built as one may be too.
            if not one["rule"] and not one["operator"].startswith("linear"):
                found.append(f"{_name(result)}: {one['layer']} reads {one['reads']} without a rule")
    return found


def _rows_above(
    results: Sequence[Mapping[str, Any]], other: str, bar: float, spoken: str
) -> list[str]:
    """Rows above a bar; those of a model that are too short for a verdict alone are judged together."""
    found = []
    groups: dict[tuple[str, object], list[Mapping[str, Any]]] = {}
    for result in results:
        if _ratio(result, other) is not None:
            row = result["row"]
            key = (row["model"], "short" if _is_short(result, other) else row["batch"])
            groups.setdefault(key, []).append(result)
    for members in groups.values():
        ratio = geometric_mean([r for m in members if (r := _ratio(m, other)) is not None])
        if ratio > bar * TOLERANCE:
            names = ", ".join(_name(member) for member in members)
            found.append(f"{names}: {ratio:.3f} times {spoken}, not {bar}")
    return found


def _is_short(result: Mapping[str, Any], other: str) -> bool:
    sides = (side(result, OURS), side(result, other))
    return all(one is not None and one.ms < SHORT_MS for one in sides)


def _ratio(result: Mapping[str, Any], other: str) -> float | None:
    ours, theirs = side(result, OURS), side(result, other)
    return None if ours is None or theirs is None else ours.ms / theirs.ms


def _ratios(results: Sequence[Mapping[str, Any]], models: Sequence[str], other: str) -> list[float]:
    rows = [result for result in results if result["row"]["model"] in models]
    return [ratio for row in rows if (ratio := _ratio(row, other)) is not None]


def _name(result: Mapping[str, Any]) -> str:
    return f"{result['row']['model']} batch {result['row']['batch']}"


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """The table, the geometric means, and the machines, in Markdown."""
    titles = ["model", "batch", "our INT8, ms", "our FP16, ms", "ONNX route INT8, ms"]
    titles += ["INT8 / FP16", "ours / route", "INT8 convolutions", "floating-point convolutions"]
    lines = ["| " + " | ".join(titles) + " |", "|" + "---|" * len(titles)]
    for result in sorted(results, key=lambda r: (_rank(r), r["row"]["batch"])):
        cells = [result["row"]["model"], str(result["row"]["batch"])]
        cells += [_spoken(side(result, name)) for name in (OURS, OURS_FP16, ROUTE)]
        for other in (OURS_FP16, ROUTE):
            ratio = _ratio(result, other)
            cells.append("-" if ratio is None else f"{ratio:.3f}")
        builds = result["contenders"].get(OURS, {"builds": []})["builds"]
        layers = builds[0]["int8_layers"] if builds else {}
        floating = layers.get("floating convolutions", [])
        cells.append(f"{layers.get('INT8', 0)} of {layers.get('expected', 0)}")
        cells.append(
            "; ".join(f"{f['operator'] or f['layer']}: {f['rule'] or 'no rule'}" for f in floating)
        )
        lines.append("| " + " | ".join(cells) + " |")
    means = []
    for other, spoken in ((OURS_FP16, "our FP16"), (ROUTE, "the ONNX route")):
        for models in (CNNS, ALL_CNNS):
            ratios = _ratios(results, models, other)
            if ratios:
                means.append(
                    f"Geometric mean over {spoken}, {len(ratios)} rows of {', '.join(models)}: "
                    f"{geometric_mean(ratios):.3f}."
                )
    machines = dict.fromkeys(machine_line(result) for result in results)
    return "\n".join([*lines, "", *means, *machines])


def _rank(result: Mapping[str, Any]) -> int:
    model = result["row"]["model"]
    return ALL_CNNS.index(model) if model in ALL_CNNS else len(ALL_CNNS)


def _spoken(one: Side | None) -> str:
    if one is None:
        return "not run"
    return f"{one.ms:.4f}" + (f" ({one.problem})" if one.problem else "")
