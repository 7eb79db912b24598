"""What is not in a cache, or not for certain, is missing: nothing is guessed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from native_models import FIXTURES, MODELS, export_onnx, request_of
from torch import Tensor, nn

from trtcompile.errors import CalibrationError, CalibrationWarning, SettingsError
from trtcompile.ptq import CacheCalibrator, CacheReport, CalibrationAlgo, IInt8MinMaxCalibrator
from trtcompile.ptq.algorithms import ALL_ZERO_SCALE
from trtcompile.ptq.cache_file import parse_text
from trtcompile.ptq.native import as_calibrator
from trtcompile.ptq.native_cache import match_cache
from trtcompile.ptq.request import CalibrationRequest

MINMAX = CalibrationAlgo.MINMAX_CALIBRATION
IMAGE = torch.zeros(1, 4, 8, 8)


def conv(channels: int = 4) -> nn.Conv2d:
    return nn.Conv2d(channels, 4, 3, padding=1)


class Calls(nn.Module):
    """A module of so many convolutions, and what to do with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **modules: nn.Module) -> None:
        super().__init__()
        self.function = forward
        for name, module in modules.items():
            self.add_module(name, module)

    def forward(self, x: Tensor) -> Any:
        return self.function(self, x)


def request(forward: Callable[[Any, Tensor], Any], **modules: nn.Module) -> CalibrationRequest:
    return request_of(Calls(forward, **modules), IMAGE)[0]


def matched(
    request_: CalibrationRequest, names: list[str], given: dict[str, str] | None = None
) -> CacheReport:
    """The report for a cache with these names, whose scales are 1, 2, 3, ... in their order."""
    scales = {name: float(place) for place, name in enumerate(names, start=1)}
    return match_cache(scales, "The cache", request_, given)


def relu_between(self: Any, x: Tensor) -> Tensor:
    return self.b(torch.relu(self.a(x)))


class TestScopes:
    def test_the_order_of_the_cache_does_not_matter(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.c(torch.relu(self.b(torch.relu(self.a(x)))))

        names = ["x", "/Relu_1_output_0", "/b/Conv_output_0", "/Relu_output_0", "/a/Conv_output_0"]
        report = matched(request(forward, a=conv(), b=conv(), c=conv()), names)
        assert report.names == {"input_0": "x", "relu": names[3], "relu_1": names[1]}
        assert report.unused == ("/b/Conv_output_0", "/a/Conv_output_0")

    def test_another_number_of_operators_is_not_shifted(self) -> None:
        """The cache's model had a ReLU more, or less: which one cannot be known."""
        for names in (
            ["x", "/Relu_output_0", "/Relu_1_output_0"],
            ["x", "/Relu_1_output_0"],
            ["x", "/a/Conv_output_0"],
        ):
            report = matched(request(relu_between, a=conv(), b=conv()), names)
            assert set(report.missing) == {"relu"}, names
            assert report.missing["relu"] == "no entry has the name of its module and operator"

    def test_calls_of_one_module_have_numbers(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(self.act(self.b(self.act(self.a(x)))))

        report = matched(
            request(forward, a=conv(), b=conv(), act=nn.ReLU()),
            ["x", "/act_1/Relu_output_0", "/act/Relu_output_0"],
        )
        assert report.names["relu"] == "/act/Relu_output_0"
        assert report.names["relu_1"] == "/act_1/Relu_output_0"

    def test_a_name_that_two_modules_could_have_is_ambiguous(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            x = self.act(self.b(self.act(self.a(x))))
            return self.b(self.act_1(self.b(x)))

        report = matched(
            request(forward, a=conv(), b=conv(), act=nn.ReLU(), act_1=nn.ReLU()),
            ["x", "/act/Relu_output_0", "/act_1/Relu_output_0", "/act_1/Relu_1_output_0"],
        )
        assert set(report.missing) == {"relu_1", "relu_2"}

    @pytest.mark.parametrize("name", ["/norm/BatchNormalization_output_0", "/a/Conv_output_0"])
    def test_a_folded_norm(self, name: str) -> None:
        """Exporters fold norms, or do not; with both, the value behind the norm is the layer's."""

        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(self.norm(self.a(x)))

        asked = request(forward, a=conv(), b=conv(), norm=nn.BatchNorm2d(4))
        assert matched(asked, ["x", name]).names["convolution"] == name
        both = ["x", "/norm/BatchNormalization_output_0", "/a/Conv_output_0"]
        assert matched(asked, both).names["convolution"] == both[1]

    def test_norms_that_are_called_twice(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.a(self.norm(self.a(self.norm(self.a(x)))))

        asked = request(forward, a=conv(), norm=nn.BatchNorm2d(4))
        names = ["/norm_1/BatchNormalization_output_0", "/norm/BatchNormalization_output_0"]
        report = matched(asked, ["x", *names])
        assert report.names["convolution"] == names[1]
        assert report.names["convolution_1"] == names[0]

    def test_an_activation_of_several_operators(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(self.act(self.a(x)))

        asked = request(forward, a=conv(), b=conv(), act=nn.GELU())
        inner = ["/act/Div_output_0", "/act/Erf_output_0", "/act/Add_output_0", "/act/Mul_output_0"]
        report = matched(asked, ["x", "/act/Mul_1_output_0", *inner])
        assert report.names["gelu"] == "/act/Mul_1_output_0"
        assert set(matched(asked, ["x", *inner]).missing) == {"gelu"}

    def test_an_output_has_a_name_of_its_own(self) -> None:
        """What is left in the scope is something else."""

        def forward(self: Any, x: Tensor) -> tuple[Tensor, Tensor]:
            y = torch.relu(self.a(x))
            return y, self.b(y)

        report = matched(request(forward, a=conv(), b=conv()), ["x", "/Relu_output_0", "out"])
        assert set(report.missing) == {"relu"}

    def test_several_inputs_are_not_told_apart(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b = conv(), conv()

            def forward(self, x: Tensor) -> Tensor:
                return self.b(self.a(x))

        asked, _ = request_of(Two(), IMAGE)
        report = matched(asked, ["left", "right", "/a/Conv_output_0"])
        assert set(report.missing) == {"input_0"}
        assert matched(
            asked, ["left", "right", "/a/Conv_output_0"], {"input_0": "right"}
        ).is_complete


class TestSharedScales:
    def test_what_is_only_moved_has_the_scale_of_its_source(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(self.pool(torch.relu(self.a(x))).flip(2))

        asked = request(forward, a=conv(), b=conv(), pool=nn.MaxPool2d(2))
        report = matched(asked, ["x", "/Relu_output_0"])
        assert report.names == {
            "input_0": "x",
            **dict.fromkeys(("relu", "flip"), "/Relu_output_0"),
        }
        report = matched(asked, ["x", "/pool/MaxPool_output_0"])
        assert report.names["flip"] == "/pool/MaxPool_output_0"

    def test_a_part_is_not_the_whole(self) -> None:
        """The scale of a channel says nothing of the others, which are read as well."""

        def forward(self: Any, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x))
            return self.b(y).mean((2, 3)) + y.select(1, 0).mean()

        asked = request(forward, a=conv(), b=conv())
        assert set(matched(asked, ["x", "/Gather_output_0"]).missing) == {"relu"}
        assert matched(asked, ["x", "/Gather_output_0", "/Relu_output_0"]).is_complete

    def test_what_is_behind_a_pool_is_what_counts(self) -> None:
        """TensorRT has a scale for each side; what is in front of the pool, only the pool reads."""

        def forward(self: Any, x: Tensor) -> Tensor:
            y = self.pool(torch.relu(self.a(x)))
            return self.b(y)

        asked = request(forward, a=conv(), b=conv(), pool=nn.MaxPool2d(2))
        assert ("relu", "max_pool2d") in asked.groups
        names = ["x", "/pool/MaxPool_output_0", "/Relu_output_0"]
        report = matched(asked, names)
        assert {m.tensor: m.scale for m in report.matched} == {
            "input_0": 1,
            "relu": 2,
            "max_pool2d": 2,
        }
        assert report.notes == ()
        assert report.unused == ("/Relu_output_0",)
        given = matched(asked, names, {"relu": "/Relu_output_0"})
        assert given.names["relu"] == given.names["max_pool2d"] == "/Relu_output_0"
        assert given.notes == ()

    def test_what_is_behind_a_pool_counts_where_it_is_moved_further(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(self.pool(torch.relu(self.a(x))).flip(2))

        asked = request(forward, a=conv(), b=conv(), pool=nn.MaxPool2d(2))
        report = matched(asked, ["x", "/Relu_output_0", "/pool/MaxPool_output_0"])
        assert {m.tensor: m.scale for m in report.matched} == {"input_0": 1, "relu": 3, "flip": 3}

    def test_the_largest_of_a_group_and_a_note(self) -> None:
        """Both are read as they are."""

        def forward(self: Any, x: Tensor) -> Tensor:
            y = torch.relu(self.a(x))
            return self.b(self.pool(y)).mean() + self.c(y)

        asked = request(forward, a=conv(), b=conv(), c=conv(), pool=nn.MaxPool2d(2))
        assert ("relu", "max_pool2d") in asked.groups
        names = ["x", "/pool/MaxPool_output_0", "/Relu_output_0"]
        report = matched(asked, names)
        assert {m.tensor: m.scale for m in report.matched} == {
            "input_0": 1,
            "relu": 3,
            "max_pool2d": 3,
        }
        (note,) = report.notes
        assert note == (
            "relu, max_pool2d must share one scale, but the cache has '/Relu_output_0' 3, "
            "'/pool/MaxPool_output_0' 2: the largest is taken."
        )
        given = matched(asked, names, {"max_pool2d": "/pool/MaxPool_output_0"})
        assert given.names["relu"] == given.names["max_pool2d"] == "/pool/MaxPool_output_0"
        assert given.notes == ()


class TestSequences:
    def lines(self, name: str) -> list[str]:
        return (FIXTURES / f"{name}.minmax.cache").read_text().splitlines()

    def names(self, name: str = "api_residual") -> list[str]:
        return [line.rpartition(": ")[0] for line in self.lines(name)[1:]]

    def asked(self, name: str = "api_residual") -> CalibrationRequest:
        model, batches = MODELS[name]()
        return request_of(model, batches[0])[0]

    def test_one_layer_more(self) -> None:
        names = self.names()
        place = names.index("(Unnamed Layer* 4) [Convolution]_output")
        names[place] = names[place].replace("Convolution", "Activation")
        report = matched(self.asked(), names)
        assert set(report.names) == {"input_0"}
        (note,) = report.notes
        assert note == (
            "After 4 layers that agree, the model has Convolution for 'convolution_2', but the cache has "
            "'(Unnamed Layer* 4) [Activation]_output'."
        )

    def test_the_order_of_the_cache_does_not_matter(self) -> None:
        names = self.names()
        assert matched(self.asked(), [names[0], *reversed(names[1:])]).names == (
            matched(self.asked(), names).names
        )

    def test_an_output_with_a_name(self) -> None:
        names = self.names()
        *others, _ = names
        assert matched(self.asked(), [*others, "prob"]).names == matched(self.asked(), names).names

    def test_a_layer_that_no_one_layer_is(self) -> None:
        def forward(self: Any, x: Tensor) -> Tensor:
            return self.b(torch.nn.functional.gelu(self.a(x)))

        names = [f"(Unnamed Layer* {n}) [{k}]_output" for n, k in enumerate(["Convolution"] * 2)]
        report = matched(request(forward, a=conv(), b=conv()), ["x", *names])
        assert set(report.missing) == {"gelu"}
        assert "the model has a layer for gelu" in report.notes[0]


class TestGivenNames:
    def test_they_fill_what_is_missing_and_win(self) -> None:
        asked = request(relu_between, a=conv(), b=conv())
        names = ["x", "/Relu_output_0", "217"]
        report = matched(asked, names, {"relu": "217"})
        assert report.names == {"input_0": "x", "relu": "217"}
        assert [m.how for m in report.matched] == ["the only input", "given in names"]
        assert report.unused == ("/Relu_output_0",)

    def test_names_that_are_not_there(self) -> None:
        asked = request(relu_between, a=conv(), b=conv())
        with pytest.raises(
            CalibrationError, match=r"'relu_7' is not a tensor .* Did you mean 'relu'"
        ):
            matched(asked, ["x"], {"relu_7": "x"})
        with pytest.raises(
            CalibrationError, match=r"'217' is not in the cache\. Did you mean '218'"
        ):
            matched(asked, ["218"], {"relu": "217"})

    def test_the_names_of_another_exporter_are_no_names_of_ours(self) -> None:
        """With names, an entry that happens to be called as a tensor of ours counts only if it is given."""
        asked = request(relu_between, a=conv(), b=conv())
        report = matched(asked, ["relu", "y"], {"input_0": "y"})
        assert set(report.missing) == {"relu"}

    @pytest.mark.parametrize("names", [["relu"], {"relu": 3}, {3: "relu"}, "relu"])
    def test_what_is_no_dictionary_of_names(self, names: Any) -> None:
        with pytest.raises(SettingsError, match="names is"):
            CacheCalibrator("calibration.cache", names=names)


class TestCalibrator:
    def test_a_report_of_what_is_missing(self, tmp_path: Path) -> None:
        cache_file = tmp_path / "calibration.cache"
        cache_file.write_text(
            "TRT-8501-EntropyCalibration2\nx: 3c010204\n/c/Relu_output_0: 3c010204\n"
        )
        calibrator = CacheCalibrator(cache_file)
        asked = request(relu_between, a=conv(), b=conv())
        with pytest.raises(CalibrationError, match=r"lacks 1 of the 2 tensors .*'relu'") as caught:
            calibrator.calibrate(asked)
        assert str(calibrator.report) in str(caught.value)
        assert str(calibrator.report).splitlines() == [
            f"The calibration cache {str(cache_file)!r}: 1 of 2 tensors have a scale",
            "",
            "tensor   module  scale       name in the cache  found",
            "input_0          0.00787402  x                  the only input",
            "",
            "missing (1):",
            "  relu: no entry has the name of its module and operator",
            "",
            "in the cache, but not needed (1):",
            "  /c/Relu_output_0",
        ]

    def test_names_have_no_use_with_a_sidecar(self, tmp_path: Path) -> None:
        from trtcompile.ptq import DataLoaderCalibrator

        cache_file = tmp_path / "calibration.cache"
        asked = request(relu_between, a=conv(), b=conv())
        DataLoaderCalibrator([torch.randn(1, 4, 8, 8)], cache_file=cache_file).calibrate(asked)
        with pytest.raises(CalibrationError, match=r"has a sidecar .* Leave them out"):
            CacheCalibrator(cache_file, names={"relu": "relu"}).calibrate(asked)

    def test_the_algorithm_must_be_the_one(self) -> None:
        asked = request(relu_between, a=conv(), b=conv())
        with pytest.raises(CalibrationError, match="made with MINMAX_CALIBRATION, not ENTROPY"):
            CacheCalibrator(FIXTURES / "vgg.minmax.cache").calibrate(asked)

    def test_an_onnx_file_that_is_none(self, tmp_path: Path) -> None:
        broken = tmp_path / "model.onnx"
        asked = request(relu_between, a=conv(), b=conv())
        calibrator = CacheCalibrator(
            FIXTURES / "vgg.minmax.cache", algo_type=MINMAX, onnx_file=broken
        )
        for content in (None, b"no model"):
            if content is not None:
                broken.write_bytes(content)
            with pytest.raises(CalibrationError, match=r"The ONNX file .* cannot be read"):
                calibrator.calibrate(asked)

    def test_onnx_is_not_installed(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        model = Calls(relu_between, a=conv(), b=conv())
        onnx_file = export_onnx(model, IMAGE, tmp_path / "model.onnx")
        monkeypatch.setitem(__import__("sys").modules, "onnx", None)
        calibrator = CacheCalibrator(
            FIXTURES / "vgg.minmax.cache", algo_type=MINMAX, onnx_file=onnx_file
        )
        with pytest.raises(SettingsError, match="pip install onnx"):
            calibrator.calibrate(request_of(model, IMAGE)[0])

    def test_a_calibrator_written_for_tensorrt_may_read_tensorrt_s_cache(self) -> None:
        class Reading(IInt8MinMaxCalibrator):
            def get_batch_size(self) -> int:
                return 1

            def get_batch(self, names: list[str]) -> None:
                return None

            def read_calibration_cache(self) -> bytes:
                return b"TRT-8501-MinMaxCalibration\nx: 3c010204\n/Relu_output_0: 3f800000\n"

            def write_calibration_cache(self, cache: bytes) -> None:
                raise AssertionError("nothing new was measured")

        asked = request(relu_between, a=conv(), b=conv())
        with pytest.warns(CalibrationWarning, match="used unverified"):
            table = as_calibrator(Reading()).calibrate(asked)
        assert dict(table) == {"input_0": pytest.approx(1 / 127), "relu": 1.0}


def test_a_tensor_that_was_zero_throughout() -> None:
    """TensorRT 10.6 writes 0, without further digits."""
    text = (FIXTURES / "bert.minmax.cache").read_bytes()
    assert b"/bert/Where_1_output_0: 0\n" in text
    scales, _ = parse_text(text, "bert")
    assert scales["/bert/Where_1_output_0"] == ALL_ZERO_SCALE
    with pytest.raises(CalibrationError, match="line 2"):
        parse_text(b"TRT-8501-MinMaxCalibration\nx: 3f8000\n", "cut off")
