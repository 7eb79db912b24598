"""The table of latency results, and whether the bars of the project are met."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from metrics import geometric_mean, median_of_medians
from row import LONG_BUILD_SECONDS

OURS, OURS_FP16, ROUTE = "ours-int8", "ours-fp16", "onnx-int8"

#: Upper limits of our INT8 latency over the route's, by model and batch size.
LATENCY_BARS = {
    ("vgg16", 1): 1.05,
    ("vgg16", 128): 1.0,
    ("resnet50", 1): 0.70,
    ("resnet50", 32): 0.85,
}
#: Upper limit of our build time over the route's.
BUILD_BAR = 0.5
#: Milliseconds of the route as seen before: no bar is met because the reference got slower.
ROUTE_SEEN_BEFORE = {
    ("NVIDIA H200", "vgg16", 1): 0.104,
    ("NVIDIA H200", "vgg16", 128): 0.194,
    ("NVIDIA H200", "resnet50", 1): 0.37,
    ("NVIDIA H200", "resnet50", 32): 0.93,
}
TOLERANCE = 1.03  # a bar is met within 3 %
LEAST_ROUNDS, LEAST_BUILDS = 5, 3
SHORT_MS = 0.15  # shorter rows are judged by the geometric mean of their group


@dataclass(frozen=True)
class Side:
    """The builds of one side that were timed.

    Attributes:
        build_medians_ms: the median over the rounds of each build.
        build_seconds: build times.
        rounds: the fewest rounds that any build was timed in.
        checks: the output checks of each build.
        calibrated: whether each build calibrated.
        ms: the median over builds of the medians.
        seconds: the median build time.
    """

    build_medians_ms: list[float]
    build_seconds: list[float]
    rounds: int
    checks: list[Mapping[str, Any]]
    calibrated: bool
    ms: float
    seconds: float

    @property
    def problem(self) -> str | None:
        """Why the measurements do not suffice for a verdict, or None."""
        if not all(check["passed"] for check in self.checks):
            return "wrong outputs"
        if self.rounds < LEAST_ROUNDS:
            return f"only {self.rounds} rounds"
        builds = len(self.build_medians_ms)
        if builds < LEAST_BUILDS and max(self.build_seconds) <= LONG_BUILD_SECONDS:
            return f"only {builds} builds"
        return None


def side(result: Mapping[str, Any], name: str) -> Side | None:
    """A side of a result; None if it was not timed."""
    builds = [b for b in result["contenders"].get(name, {"builds": []})["builds"] if b["rounds"]]
    if not builds:
        return None
    rounds = [[one["median_ms"] for one in build["rounds"]] for build in builds]
    seconds = [build["seconds"] for build in builds]
    return Side(
        build_medians_ms=[median_of_medians([one]) for one in rounds],
        build_seconds=seconds,
        rounds=min(map(len, rounds)),
        checks=[build["checks"] for build in builds],
        calibrated=all(build.get("calibrated", True) for build in builds),
        ms=median_of_medians(rounds),
        seconds=median_of_medians([seconds]),
    )


def verdicts(results: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """For each result the verdict on latency, on INT8 against FP16, and on build time."""
    return [
        {
            "latency": _latency_verdict(result, results),
            "faster than FP16": _faster_than_fp16(result),
            "build": _build_verdict(result),
        }
        for result in results
    ]


def _problem(*sides: Side | None) -> str | None:
    if None in sides:
        return "a side is missing"
    return next((s.problem for s in sides if s is not None and s.problem is not None), None)


def _key(result: Mapping[str, Any]) -> tuple[str, int]:
    return result["row"]["model"], result["row"]["batch"]


def _over_bar(result: Mapping[str, Any], route_ms: float | None = None) -> float | None:
    """Our latency over the route's (as measured, or ``route_ms``), over the bar."""
    ours, route, bar = side(result, OURS), side(result, ROUTE), LATENCY_BARS.get(_key(result))
    if ours is None or route is None or bar is None:
        return None
    return ours.ms / (route.ms if route_ms is None else route_ms) / bar


def _is_short(result: Mapping[str, Any]) -> bool:
    sides = (side(result, OURS), side(result, ROUTE))
    return all(s is not None and s.ms < SHORT_MS for s in sides)


def _latency_verdict(result: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> str:
    over = _over_bar(result)
    problem = _problem(side(result, OURS), side(result, ROUTE))
    if over is None:
        return "no bar" if _key(result) not in LATENCY_BARS else f"not judged: {problem}"
    if problem is not None:
        return f"not judged: {problem}"
    seen = ROUTE_SEEN_BEFORE.get((result["environment"]["machine"]["gpu"], *_key(result)))
    if _is_short(result):
        # All rows of the model that are as short: one of them alone is within the noise.
        group = [r for r in results if _is_short(r) and r["row"]["model"] == result["row"]["model"]]
        over = geometric_mean([value for r in group if (value := _over_bar(r)) is not None])
    if over > TOLERANCE:
        return "not met"
    if seen is not None and (_over_bar(result, seen) or 0) > TOLERANCE:
        return f"not met: the route was faster before ({seen:.3f} ms)"
    return "met"


def _faster_than_fp16(result: Mapping[str, Any]) -> str:
    int8, fp16 = side(result, OURS), side(result, OURS_FP16)
    problem = _problem(int8, fp16)
    if problem is not None or int8 is None or fp16 is None:
        return f"not judged: {problem}"
    return "met" if int8.ms < fp16.ms else "not met"


def _build_verdict(result: Mapping[str, Any]) -> str:
    ours, route = side(result, OURS), side(result, ROUTE)
    if ours is None or route is None:
        return "not judged: a side is missing"
    if not (ours.calibrated and route.calibrated):
        return "not judged: scales of an earlier build"
    return "met" if ours.seconds / route.seconds <= BUILD_BAR * TOLERANCE else "not met"


def markdown(results: Sequence[Mapping[str, Any]]) -> str:
    """Two tables and a line about the machine, in Markdown."""
    order = {key: index for index, key in enumerate(LATENCY_BARS)}
    results = sorted(results, key=lambda r: (order.get(_key(r), len(order)), _key(r)))
    names = list(dict.fromkeys(name for r in results for name in r["contenders"]))
    judged = verdicts(results)
    latency = [
        [
            "model",
            "batch",
            *(f"{n}, ms" for n in names),
            "ours/route",
            "bar",
            "verdict",
            "INT8/FP16",
        ]
    ]
    build = [
        [
            "model",
            "batch",
            *(f"{n}, s" for n in names),
            "ours/route",
            "bar",
            "verdict",
            "before the builder, s",
        ]
    ]
    for result, verdict in zip(results, judged, strict=True):
        model, batch = _key(result)
        sides = {name: side(result, name) for name in names}
        bar = LATENCY_BARS.get((model, batch))
        latency.append(
            [
                model,
                str(batch),
                *(_times(s.build_medians_ms, s.ms, 4) if s else "not run" for s in sides.values()),
                _ratio(sides.get(OURS), sides.get(ROUTE), "ms"),
                "-" if bar is None else f"{bar:.2f}",
                verdict["latency"],
                _ratio(sides.get(OURS), sides.get(OURS_FP16), "ms"),
            ]
        )
        build.append(
            [
                model,
                str(batch),
                *(
                    _times(s.build_seconds, s.seconds, 1) if s else "not run"
                    for s in sides.values()
                ),
                _ratio(sides.get(OURS), sides.get(ROUTE), "seconds"),
                f"{BUILD_BAR:.2f}",
                verdict["build"],
                _before_builder(result),
            ]
        )
    machines = dict.fromkeys(machine_line(result) for result in results)
    return "\n\n".join(["\n".join(_table(latency)), "\n".join(_table(build)), *machines])


def _times(values: Sequence[float], middle: float, digits: int) -> str:
    if len(values) == 1:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def _ratio(a: Side | None, b: Side | None, what: str) -> str:
    return "-" if a is None or b is None else f"{getattr(a, what) / getattr(b, what):.3f}"


def _before_builder(result: Mapping[str, Any]) -> str:
    builds = result["contenders"].get(OURS, {"builds": []})["builds"]
    values = [build["stages"]["before_builder"] for build in builds]
    return f"{median_of_medians([values]):.1f}" if values else "-"


def machine_line(result: Mapping[str, Any]) -> str:
    """The GPU, the versions, the commit, and the date of a result."""
    environment = result["environment"]
    machine, versions = environment["machine"], environment["versions"]
    packages = ", ".join(
        f"{name} {version}"
        for name, version in versions.items()
        if name.lower().startswith("tensorrt") or name in ("torch", "cuda")
    )
    commit = (environment["commit"] or "unknown")[:12]
    driver = machine.get("driver_version", "unknown")
    date = environment["date"][:10]
    return f"{machine['gpu']}, driver {driver}, {packages}, commit {commit}, {date}"


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(row) + " |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]
