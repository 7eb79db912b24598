"""The benchmark of number formats, on layers that are small."""

from __future__ import annotations

import linear_formats
import pytest
from checks import builds_fp8
from result_file import read_result


@pytest.mark.skipif(not builds_fp8(), reason="this GPU has no FP8: one of 8.9 or later does")
def test_each_format_gets_a_row(tmp_path, capsys):
    output = tmp_path / "result.json"
    arguments = ["--shapes", "256x128", "--batch", "2", "--rounds", "1", "--output", str(output)]
    assert linear_formats.main(arguments) == 0
    rows = read_result(output, "linear-formats")["rows"]
    assert [row["format"] for row in rows] == list(linear_formats.FORMATS)
    errors = {row["format"]: row["relative_error"] for row in rows}
    order = ["fp16", "int8-weights", "int8", "fp8", "int4-weights"]
    assert sorted(errors, key=errors.__getitem__) == order
    assert all(row["plan_bytes"] > 0 for row in rows)
    assert "| 256x128 | 2 | fp8 |" in capsys.readouterr().out


@pytest.mark.parametrize("shape", ["4096", "0x3", "axb", "1x2x3"])
def test_bad_shapes_are_refused(shape, capsys):
    with pytest.raises(SystemExit, match="2"):
        linear_formats.parse_arguments(["--shapes", shape])
    assert "is not INxOUT" in capsys.readouterr().err
