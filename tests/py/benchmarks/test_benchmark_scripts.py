"""Command lines, result files, and the environment."""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path

import agreement
import environment
import latency
import native_calibration
import prebuilder
import pytest
import torch
from result_file import ResultFileError, read_result, write_result
from row import Settings
from stages import BUILDER, STAGES, timed_stages

from trtcompile import compiler


def test_latency_defaults_are_the_settings_of_a_bar():
    options = latency.parse_arguments(["--model", "vgg16"])
    assert options.batch == [1]
    assert (options.builds, options.rounds) == (Settings().builds, Settings().rounds) == (3, 7)
    assert options.contenders == ["ours-int8", "ours-fp16", "onnx-int8"]
    assert options.time_limit is None


def test_latency_takes_several_rows():
    options = latency.parse_arguments(["--model", "resnet50", "--batch", "1", "32"])
    assert options.batch == [1, 32]
    file = latency.output_file(Path("results"), "resnet50", 32)
    assert file == Path("results/latency-resnet50-b32.json")
    assert latency.output_file(Path("one.json"), "resnet50", 32) == Path("one.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --model or --summarize"),
        (["--model", "vgg16", "--summarize", "x.json"], "give either"),
        (["--model", "alexnet"], "invalid choice"),
        (["--model", "vgg16", "--batch", "0"], "not at least 1"),
        (["--model", "vgg16", "--batch", "1", "2", "--output", "x.json"], "give a folder"),
        (["--model", "vgg16", "--contenders", "ours"], "invalid choice"),
    ],
)
def test_latency_refuses_bad_command_lines(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        latency.parse_arguments(arguments)
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without a GPU")
@pytest.mark.parametrize(
    ("main", "arguments"),
    [
        (latency.main, ["--model", "vgg16"]),
        (agreement.main, ["--checkpoint", "x.pt"]),
        (native_calibration.main, ["--checkpoint", "x.pt"]),
    ],
)
def test_what_needs_a_gpu_says_so(main, arguments):
    with pytest.raises(SystemExit, match="GPU"):
        main(arguments)


def test_prebuilder_names_its_output_after_the_model():
    assert prebuilder.parse_arguments(["--model", "vgg16"]).output.name == "prebuilder-vgg16.json"
    assert prebuilder.parse_arguments(["--output", "x.json"]).output == Path("x.json")


def test_result_file_round_trip(tmp_path):
    file = tmp_path / "folder" / "result.json"
    write_result(file, {"kind": "latency", "rows": [1.5]})
    assert read_result(file, "latency") == {"format": 1, "kind": "latency", "rows": [1.5]}
    assert [entry.name for entry in file.parent.iterdir()] == ["result.json"]


def test_failed_write_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "result.json"
    write_result(file, {"kind": "latency", "ms": 1.0})
    before = file.read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        write_result(file, {"kind": "latency", "ms": math.nan})
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"kind": "agreement", "format": 1}', '{"kind": "latency", "format": 2}']
)
def test_other_files_are_not_taken_for_results(tmp_path, text):
    file = tmp_path / "other.json"
    file.write_text(text)
    with pytest.raises(ResultFileError, match=r"other\.json"):
        read_result(file, "latency")


def test_summarize_leaves_out_other_results(tmp_path, capsys):
    file = tmp_path / "test-gpu.json"
    file.write_text("{}")
    assert latency.main(["--summarize", str(file)]) == 1
    assert "left out" in capsys.readouterr().err


def test_environment_is_json_and_names_no_host():
    described = environment.describe("abc")
    text = json.dumps(described, allow_nan=False)
    assert described["commit"] == "abc"
    assert described["versions"]["torch"] == torch.__version__.partition("+")[0] or (
        described["versions"]["torch"] == torch.__version__
    )
    assert described["machine"]["gpu"] is None or torch.cuda.is_available()
    assert socket.gethostname() not in text


def test_stages_are_timed_and_the_compiler_put_back():
    originals = {name: getattr(compiler, name) for name in STAGES}
    with timed_stages() as seconds:
        assert compiler.capture is not originals["capture"]
        with pytest.raises(AttributeError):
            compiler.graph_hash(None)
    assert seconds["graph_hash"] > 0
    assert seconds[BUILDER] == 0
    assert {name: getattr(compiler, name) for name in STAGES} == originals


def test_everything_before_the_builder_is_measured_without_building():
    seconds = prebuilder.measure_once("vgg16", 1)
    assert BUILDER not in seconds
    stages = [value for name, value in seconds.items() if not name.startswith("total")]
    assert all(value > 0 for value in stages)
    # Nothing that takes long is left out of the stages.
    assert 0.8 * seconds["total"] < sum(stages) <= seconds["total"]
