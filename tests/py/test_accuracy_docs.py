"""The example of ``docs/accuracy_tools.md``, as it stands there, and what the page says of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from checks import build_device

from trtcompile.ptq import Analysis, BudgetSearch

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "accuracy_tools.md"
TEXT = GUIDE.read_text()
EXAMPLE = "\n".join(re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("example")


@pytest.fixture(scope="module")
def names(folder: Path) -> dict[str, Any]:
    # The device is all that depends on the machine.
    code = EXAMPLE.replace("options = {", "options = {'device': DEVICE, ", 1)
    names: dict[str, Any] = {"DEVICE": build_device()}
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        exec(compile(code, str(GUIDE), "exec"), names)  # noqa: S102 - the guide is ours
    return names


def test_what_the_page_says_of_the_analysis(names: dict[str, Any], folder: Path) -> None:
    analysis: Analysis = names["analysis"]
    assert analysis.metric_reference > 0.9 > 0.5 > analysis.metric_quantized
    first, *others = analysis.by_sensitivity
    assert first.name == "linear_1" and first.sensitivity > 0.4
    assert first.sqnr_db < 5 and first.weight_sqnr_db > 40
    assert all(row.sensitivity < 0.02 for row in others)
    assert analysis.tensor("relu").sqnr_db > 40 and analysis.tensor("relu").peak > 5000
    assert analysis.layer("linear_2").accumulated_sqnr_db < 10 < analysis.layer("linear_2").sqnr_db
    assert "<h1>Digits</h1>" in (folder / "int8.html").read_text()


def test_the_table_on_the_page_is_the_one_that_is_printed(names: dict[str, Any]) -> None:
    printed = str(names["analysis"]).splitlines()
    for line in printed:
        if line and not line.startswith("-") and not line[0].isdigit():
            first_cells = re.escape(line.split()[0])
            assert re.search(rf"^{first_cells}\b", TEXT, flags=re.MULTILINE)
    (head,) = [line for line in printed if line.startswith("layer ")]
    assert re.sub(r" {2,}", "  ", head) in re.sub(r" {2,}", "  ", TEXT)


def test_what_the_page_says_of_the_budget(names: dict[str, Any]) -> None:
    search: BudgetSearch = names["search"]
    assert search.excluded == {"linear_1"} and search.drop <= 0.005
    precisions = {row.name: row.precision for row in names["compiled"].report.rows}
    assert precisions["linear_1"] == "FP32" and precisions["linear"] == "INT8"
