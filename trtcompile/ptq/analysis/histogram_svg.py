"""A histogram of absolute values as SVG, with the range that each algorithm chooses."""

from __future__ import annotations

import math
from html import escape

from trtcompile.ptq.analysis.findings import TensorRow
from trtcompile.ptq.analysis.text import number, short_name

_WIDTH, _HEIGHT = 360, 170
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 10, 10, 22
#: How far the axis of counts goes below 1, in decades.
_BELOW_ONE = 0.4
#: Dash patterns, so that lines can be told apart without their colours.
_DASHES = ("none", "6 3", "2 3", "9 3 2 3", "4 2", "1 2")


def histogram_svg(row: TensorRow) -> str:
    """An ``<svg>`` with logarithmic counts over absolute values; colours come from the page's style sheet."""
    thresholds = [row.amax or 0.0, *row.amax_by_algorithm.values()]
    right = max(row.peak, *thresholds) or 1.0
    decades = max(1, math.ceil(math.log10(max(row.histogram.counts, default=1) + 1)))
    parts = [
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(row.name)}: how often each absolute value occurs</title>",
        *_grid(decades),
        f'<path class="counts" d="{_bars(row, right, decades)}"/>',
        *_value_axis(right),
    ]
    if row.amax is not None:
        parts.append(_line(row.amax / right, f"in use {number(row.amax)}", "used", 0))
    for index, (name, amax) in enumerate(row.amax_by_algorithm.items()):
        parts.append(
            _line(amax / right, f"{short_name(name)} {number(amax)}", _colour(index), index)
        )
    return "".join([*parts, "</svg>"])


def legend(row: TensorRow) -> str:
    """The ranges as a list, each with the line that stands for it."""
    entries = [("used", 0, "in use", row.amax)] if row.amax is not None else []
    entries += [
        (_colour(index), index, short_name(name), amax)
        for index, (name, amax) in enumerate(row.amax_by_algorithm.items())
    ]
    items = (
        f'<li><svg class="key" viewBox="0 0 24 8"><path class="{kind}" stroke-dasharray="{_dash(index)}" d="M0 4H24"/>'
        f"</svg>{escape(label)} <b>{number(amax)}</b></li>"
        for kind, index, label, amax in entries
    )
    return f'<ul class="legend">{"".join(items)}</ul>'


def _colour(index: int) -> str:
    """The class of a line in the page's style sheet, which has six."""
    return f"algo{index % 6}"


def _dash(index: int) -> str:
    return _DASHES[index % len(_DASHES)]


def _x(part: float) -> float:
    return _LEFT + part * (_WIDTH - _LEFT - _RIGHT)


def _y(part: float) -> float:
    return _HEIGHT - _BOTTOM - part * (_HEIGHT - _TOP - _BOTTOM)


def _height_of(exponent: float, decades: int) -> float:
    """Where a power of ten lies between the bottom and the top: a single value still shows."""
    return (exponent + _BELOW_ONE) / (decades + _BELOW_ONE)


def _bars(row: TensorRow, right: float, decades: int) -> str:
    """One path over all bins."""
    base = _y(0)
    path = []
    for index, count in enumerate(row.histogram.counts):
        if count == 0:
            continue
        start = _x(min(index * row.histogram.bin_width / right, 1.0))
        end = _x(min((index + 1) * row.histogram.bin_width / right, 1.0))
        top = _y(_height_of(math.log10(count), decades))
        path.append(f"M{start:.1f} {base:.1f}V{top:.1f}H{max(end, start + 1):.1f}V{base:.1f}Z")
    return "".join(path)


def _grid(decades: int) -> list[str]:
    step = math.ceil(decades / 5)
    parts = []
    for decade in range(0, decades + 1, step):
        height = _y(_height_of(decade, decades))
        parts.append(f'<path class="grid" d="M{_LEFT} {height:.1f}H{_WIDTH - _RIGHT}"/>')
        label = f'10<tspan class="exponent" dy="-4">{decade}</tspan>'
        parts.append(f'<text x="{_LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{label}</text>')
    return parts


def _value_axis(right: float) -> list[str]:
    places = ((0.0, "start"), (0.5, "middle"), (1.0, "end"))
    return [
        f'<text x="{_x(part):.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{number(part * right)}</text>'
        for part, anchor in places
    ]


def _line(part: float, label: str, kind: str, index: int) -> str:
    place = _x(min(part, 1.0))
    return (
        f'<path class="{kind}" stroke-dasharray="{_dash(index)}" d="M{place:.1f} {_TOP}V{_y(0):.1f}">'
        f"<title>{escape(label)}</title></path>"
    )
