"""An analysis as one HTML page that needs nothing else: no network, no script but its own few lines for sorting."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from trtcompile.ptq.analysis.findings import Findings, LayerRow, TensorRow
from trtcompile.ptq.analysis.histogram_svg import histogram_svg, legend
from trtcompile.ptq.analysis.text import number, ratio, share, short_name, summary

#: Bars of ratios end here: what is better than this does not matter for INT8.
_FULL_BAR_DB = 60.0

_ABOUT_TENSORS = (
    "Values without quantization, and the largest absolute value (amax) that each calibration algorithm would let INT8 "
    "represent. What is larger is clipped; a larger amax makes the steps coarser."
)

_STYLE = """
:root{color-scheme:light dark;--page:#fbfbfa;--card:#fff;--ink:#1d2126;--faint:#5d6670;--line:#dfe3e7;--bar:#9cc3e6;
--bad:#efa08c;--counts:#7d8b99;--used:#c2261b;--a0:#1668b5;--a1:#8a5a00;--a2:#0d7a5f;--a3:#7b3fb0;--a4:#b0246e;
--a5:#4d5a00}
@media (prefers-color-scheme:dark){:root{--page:#15181c;--card:#1e2227;--ink:#e6e9ec;--faint:#9ba5af;--line:#353c44;
--bar:#2d5f8c;--bad:#8c3d2c;--counts:#77838f;--used:#ff7468;--a0:#6db5f5;--a1:#e3b04b;--a2:#54d1ae;--a3:#c79cf2;
--a4:#f58cbf;--a5:#c6d457}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1240px;padding:24px 16px 48px;background:var(--page);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}
h1{font-size:1.6rem;margin:0 0 4px}h2{font-size:1.2rem;margin:36px 0 4px}
h3{font-size:.95rem;margin:0;overflow-wrap:anywhere}
p{margin:4px 0 12px;max-width:78ch;color:var(--faint)}p.summary{color:var(--ink)}
.scroll{overflow:auto;max-height:85vh;background:var(--card);border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-size:.87rem;font-variant-numeric:tabular-nums}
th,td{padding:5px 10px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tbody tr:last-child td{border-bottom:0}
th:first-child,td:first-child{text-align:left}td small{color:var(--faint);display:block;max-width:34ch;
overflow:hidden;text-overflow:ellipsis}
th{vertical-align:bottom;position:sticky;top:0;background:var(--card);box-shadow:inset 0 -1px var(--line)}
@media print{.scroll{max-height:none}}
th button{all:unset;cursor:pointer;font-weight:600}
th button:focus-visible{outline:2px solid var(--a0)}
th[aria-sort=ascending] button::after{content:" \\2191"}th[aria-sort=descending] button::after{content:" \\2193"}
td.barred{min-width:104px}
.meter{display:block;height:5px;border-radius:2px;background:var(--line);margin-top:3px}
.meter i{display:block;height:5px;border-radius:2px;background:var(--bar)}.meter.bad i{background:var(--bad)}
.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(340px,100%),1fr));gap:14px}
.card{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:12px}
.card p{margin:2px 0 6px;font-size:.82rem;overflow-wrap:anywhere}
svg{display:block;width:100%;height:auto}svg text{fill:var(--faint);font-size:10.5px}.exponent{font-size:8px}
.counts{fill:var(--counts)}.grid{stroke:var(--line);fill:none}
.used,.algo0,.algo1,.algo2,.algo3,.algo4,.algo5{fill:none;stroke-width:1.6}.used{stroke:var(--used);stroke-width:6;opacity:.5}
.algo0{stroke:var(--a0)}.algo1{stroke:var(--a1)}.algo2{stroke:var(--a2)}.algo3{stroke:var(--a3)}
.algo4{stroke:var(--a4)}.algo5{stroke:var(--a5)}
.legend{list-style:none;margin:6px 0 0;padding:0;display:flex;flex-wrap:wrap;gap:2px 14px;font-size:.8rem}
.key{display:inline-block;width:24px;height:8px;margin-right:5px;vertical-align:middle}
"""

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) button.onclick = () => {
  const head = button.parentElement, column = head.cellIndex, body = head.closest("table").tBodies[0];
  const down = head.getAttribute("aria-sort") !== "descending";
  for (const other of head.parentElement.cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", down ? "descending" : "ascending");
  const value = row => row.cells[column].dataset.value;
  const compare = (a, b) => {
    const [x, y] = [value(a), value(b)];
    if (x === "" || y === "") return (x === "") - (y === "");
    const order = isNaN(x) || isNaN(y) ? x.localeCompare(y, undefined, {numeric: true}) : x - y;
    return down ? -order : order;
  };
  body.append(...[...body.rows].sort(compare));
};
"""


def as_page(analysis: Findings, title: str) -> str:
    """The page's text."""
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>",
        f'<h1>{escape(title)}</h1><p class="summary">{escape(summary(analysis))}.</p>',
        "<h2>Layers</h2>",
        f"<p>{escape(_about_layers(analysis))}</p>",
        _layer_table(analysis),
        "<h2>Tensors</h2>",
        f"<p>{_ABOUT_TENSORS}</p>",
        _tensor_table(analysis),
        "<h2>Histograms</h2><p>Counts are on a logarithmic scale.</p>",
        f'<div class="cards">{"".join(map(_card, analysis.tensors))}</div>',
        f"<script>{_SCRIPT}</script></body></html>\n",
    ]
    return "".join(parts)


def _about_layers(analysis: Findings) -> str:
    sensitivity = (
        "the power of the noise in the outputs over that of the signal"
        if analysis.metric_name == "sqnr"
        else f"how much worse {analysis.metric_name} gets"
    )
    return (
        "Ratios are signal to quantization noise, in dB: 6 dB are one bit, and 200 dB stand for no difference. "
        "Outputs: the model's outputs with only this layer quantized. Own: the layer's result with only its own "
        "operands quantized. Weight: its weight. Accumulated: its result with every layer quantized. Sensitivity, with "
        f"only this layer quantized: {sensitivity}."
    )


def _layer_table(analysis: Findings) -> str:
    rows = analysis.by_sensitivity
    largest = max((row.sensitivity or 0.0 for row in rows), default=0.0)
    columns = {
        "Layer": [_layer_name(row) for row in rows],
        "Sensitivity": [_sensitivity(row.sensitivity, largest) for row in rows],
        analysis.metric_name: [_plain(row.metric, number(row.metric)) for row in rows],
        "Outputs dB": [_decibels(row.output_sqnr_db) for row in rows],
        "Own dB": [_decibels(row.sqnr_db) for row in rows],
        "Weight dB": [_decibels(row.weight_sqnr_db) for row in rows],
        "Accumulated dB": [_decibels(row.accumulated_sqnr_db) for row in rows],
    }
    if analysis.metric_name == "sqnr":  # it is that of the outputs
        del columns["sqnr"]
    if any(row.parity_sqnr_db is not None for row in rows):
        columns["Engine parity dB"] = [_decibels(row.parity_sqnr_db) for row in rows]
    return _table(list(columns), list(zip(*columns.values(), strict=True)))


def _layer_name(row: LayerRow) -> str:
    about = f"{row.operator.removeprefix('aten.').removesuffix('.default')} {row.module}".strip()
    name = f'<span title="{escape(row.source)}">{escape(row.name)}</span>'
    return f'<td data-value="{escape(row.name)}">{name}<small>{escape(about)}</small></td>'


def _sensitivity(value: float | None, largest: float) -> str:
    part = value / largest if value is not None and largest > 0 else 0.0
    return _barred(value, number(value), part, "meter bad")


def _tensor_table(analysis: Findings) -> str:
    algorithms = tuple(dict.fromkeys(n for row in analysis.tensors for n in row.amax_by_algorithm))
    heads = ["Tensor", "SQNR dB", "Clipped", "Peak", "amax in use", *map(short_name, algorithms)]
    rows = [
        [
            f'<td data-value="{escape(row.name)}">{escape(row.name)}</td>',
            _decibels(row.sqnr_db),
            _plain(row.clipped, share(row.clipped)),
            _plain(row.peak, number(row.peak)),
            _plain(row.amax, number(row.amax)),
            *(
                _plain(row.amax_by_algorithm.get(name), number(row.amax_by_algorithm.get(name)))
                for name in algorithms
            ),
        ]
        for row in analysis.tensors
    ]
    return _table(heads, rows)


def _card(row: TensorRow) -> str:
    layers = ", ".join(row.layers)
    about = f"SQNR {ratio(row.sqnr_db)} dB, {share(row.clipped)} clipped, for {layers}"
    return (
        f'<div class="card"><h3>{escape(row.name)}</h3><p>{escape(about)}</p>'
        f"{histogram_svg(row)}{legend(row)}</div>"
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th><button>{escape(text)}</button></th>" for text in heads)
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _decibels(db: float | None) -> str:
    return _barred(db, ratio(db), 0.0 if db is None else db / _FULL_BAR_DB, "meter")


def _barred(value: float | None, text: str, part: float, kind: str) -> str:
    width = 100 * min(max(part, 0.0), 1.0)
    meter = (
        "" if value is None else f'<span class="{kind}"><i style="width:{width:.1f}%"></i></span>'
    )
    return f'<td class="barred" data-value="{_sortable(value)}">{text}{meter}</td>'


def _plain(value: float | None, text: str) -> str:
    return f'<td data-value="{_sortable(value)}">{text}</td>'


def _sortable(value: float | None) -> str:
    return "" if value is None else repr(value)
