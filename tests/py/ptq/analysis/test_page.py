"""The page: complete, without anything from elsewhere, and with lines where the ranges are."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from trtcompile.ptq.analysis.findings import HistogramSummary, LayerRow, TensorRow
from trtcompile.ptq.analysis.histogram_svg import histogram_svg
from trtcompile.ptq.analysis.page import as_page
from trtcompile.ptq.analysis.result import Analysis

NASTY = "</title><script>alert('&\")</script>"


def tensor_row(name: str = "relu_1", peak: float = 8.0, amax: float | None = 4.0) -> TensorRow:
    return TensorRow(
        name=name,
        scale=None if amax is None else amax / 127,
        amax=amax,
        peak=peak,
        values=1111,
        clipped=0.01,
        sqnr_db=31.5,
        amax_by_algorithm={"MSE_CALIBRATION": 2.0, "MINMAX_CALIBRATION": peak},
        histogram=HistogramSummary(1.0, (1000, 100, 10, 0, 0, 0, 0, 1)),
        layers=("linear",),
    )


def layer_row(name: str, sensitivity: float | None) -> LayerRow:
    return LayerRow(
        name=name,
        operator="aten.linear.default",
        module=NASTY,
        source=f"model.py:1 {NASTY}",
        tensors=("relu_1",),
        sqnr_db=30.0,
        weight_sqnr_db=None,
        accumulated_sqnr_db=20.0,
        output_sqnr_db=25.0,
        metric=None if sensitivity is None else 1 - sensitivity,
        sensitivity=sensitivity,
    )


def analysis(*layers: LayerRow, tensors: tuple[TensorRow, ...] = ()) -> Analysis:
    return Analysis(
        layers=layers,
        tensors=tensors,
        samples=3,
        metric_name="<lambda>",
        higher_is_better=True,
        metric_reference=1.0,
        metric_quantized=0.5,
        output_sqnr_db=20.0,
    )


class Elements(HTMLParser):
    """Checks that elements nest, and collects them and their text."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID and not (self.open and self.get_starttag_text().endswith("/>")):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in ("style", "script"):
            self.text.append(data)

    def count(self, tag: str) -> int:
        return sum(found == tag for found, _ in self.found)


def test_names_are_text_and_nothing_comes_from_elsewhere() -> None:
    rows = tuple(layer_row(f"{NASTY}{i}", 0.1 * i) for i in range(3))
    page = as_page(analysis(*rows, tensors=(tensor_row(NASTY), tensor_row())), NASTY)
    elements = Elements(page)
    assert elements.count("script") == 1 and elements.count("title") == 1 + 2 * 4
    assert NASTY in elements.text and f"{NASTY}2" in elements.text
    addresses = {"src", "href", "action", "xlink:href", "data"}
    assert not any(addresses & set(attributes) for _, attributes in elements.found)
    assert elements.count("link") == elements.count("img") == elements.count("iframe") == 0
    assert "http" not in page and "url(" not in page and "import" not in page


def test_tables_have_a_row_for_each_and_the_worst_first() -> None:
    layers = [layer_row("good", 0.01), layer_row("bad", 0.4), layer_row("unmeasured", None)]
    page = as_page(analysis(*layers, tensors=(tensor_row(),)), "Model")
    bodies = re.findall(r"<tbody>(.*?)</tbody>", page)
    assert [body.count("<tr>") for body in bodies] == [3, 1]
    heads = re.findall(r"<thead>(.*?)</thead>", page)
    for head, body in zip(heads, bodies, strict=True):
        rows = body.split("<tr>")[1:]
        assert {row.count("<td") for row in rows} == {head.count("<th>")}
    assert bodies[0].index("bad") < bodies[0].index("good")
    widths = re.findall(r'class="meter bad"><i style="width:([\d.]+)%', bodies[0])
    assert widths == ["100.0", "2.5"]


@pytest.mark.parametrize(
    ("peak", "amax"), [(8.0, 4.0), (8.0, 16.0)], ids=["clips", "beyond the peak"]
)
def test_lines_stand_where_the_ranges_are(peak: float, amax: float) -> None:
    svg = histogram_svg(tensor_row(peak=peak, amax=amax))
    right = max(peak, amax)
    (left_edge,) = re.findall(r'<text x="([\d.]+)" y="\d+" text-anchor="start">0</text>', svg)
    (right_edge,) = re.findall(
        rf'<text x="([\d.]+)" y="\d+" text-anchor="end">{right:g}</text>', svg
    )

    def place(kind: str) -> float:
        (x,) = re.findall(rf'class="{kind}" stroke-dasharray="[^"]*" d="M([\d.]+) ', svg)
        return (float(x) - float(left_edge)) / (float(right_edge) - float(left_edge))

    assert place("used") == pytest.approx(amax / right, abs=1e-3)
    assert place("algo0") == pytest.approx(2.0 / right, abs=1e-3)
    assert place("algo1") == pytest.approx(peak / right, abs=1e-3)


def test_heights_are_logarithmic() -> None:
    (bars,) = re.findall(r'class="counts" d="([^"]*)"', histogram_svg(tensor_row()))
    tops = [float(top) for top in re.findall(r"V([\d.]+)H", bars)]
    bases = {float(base) for base in re.findall(r"V([\d.]+)Z", bars)}
    assert len(tops) == 4 and len(bases) == 1  # empty bins are not drawn, one value is
    steps = [lower - higher for higher, lower in itertools.pairwise(tops)]
    assert steps == pytest.approx([steps[0]] * 3, abs=0.11) and steps[0] > 10
    assert tops[3] < min(bases) - 3


def test_a_tensor_of_zeros_and_one_without_a_scale(tmp_path: Path) -> None:
    rows = (tensor_row(peak=0.0, amax=0.0), tensor_row(amax=None))
    result = analysis(layer_row("linear", 0.0), tensors=rows)
    result.save_html(tmp_path / "page.html", title="Zeros")
    page = (tmp_path / "page.html").read_text()
    Elements(page)
    assert "nan" not in page and "inf%" not in page
    assert "in use" in page and page.count('class="used"') == 2
