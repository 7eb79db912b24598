"""``analyze`` against plain formulas, and what it takes and refuses."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import randomize
from simulated import (
    centred_sqnr,
    fake_quantized,
    fake_quantized_weight,
    simulated,
    sqnr,
)
from small_models import Chain, GivenQuantization, Outlier
from torch import Tensor, nn
from torch.fx import GraphModule, Node
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import DenseNet

from trtcompile import Input
from trtcompile.compiler import Simulation
from trtcompile.errors import CalibrationError, PrecisionWarning, SettingsError
from trtcompile.ptq import Analysis, CalibrationAlgo, analyze
from trtcompile.ptq.algorithms import amax_of
from trtcompile.ptq.histogram import AbsHistogram


def images(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 6, 6, generator=torch.Generator().manual_seed(seed))


def vectors(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, 8, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def chain() -> Simulation:
    return simulated(Chain(), [(4, 3, 6, 6)])


@pytest.fixture(scope="module")
def outlier() -> Simulation:
    return simulated(Outlier(), [(4, 8)], [vectors(32)])


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 1.5 * images(10)  # beyond the scale's 2.54: some are clipped


@pytest.fixture(scope="module")
def analysis(chain: Simulation, x: Tensor) -> Analysis:
    return analyze(chain, [x[:1], x[1:7], x[7:]])


class TestNumbers:
    """All of a small chain, by hand."""

    def test_tensors(self, analysis: Analysis, x: Tensor) -> None:
        with torch.no_grad():
            hidden = F.relu(F.conv2d(x, Chain().kernel, padding=1))
        for row, value in zip(analysis.tensors, (x, hidden, hidden), strict=True):
            assert row.scale == pytest.approx(0.02) and row.amax == pytest.approx(2.54)
            assert row.values == value.numel() == sum(row.histogram.counts)
            assert row.peak == value.abs().max()
            outside = (value.abs() > 2.54).float().mean()
            assert outside > 0.01 and row.clipped == pytest.approx(float(outside), rel=1e-6)
            assert row.sqnr_db == pytest.approx(sqnr(value, fake_quantized(value, 0.02)), abs=1e-3)
        assert [row.name for row in analysis.tensors] == ["input_0", "relu", "reshape"]
        assert [row.layers for row in analysis.tensors] == [
            ("convolution",),
            ("linear",),
            ("linear",),
        ]

    def test_ranges_and_histograms(self, analysis: Analysis, x: Tensor) -> None:
        histogram = AbsHistogram()
        histogram.update(x)
        row = analysis.tensor("input_0")
        chosen = {CalibrationAlgo[name].value for name in row.amax_by_algorithm}
        assert {"EntropyCalibration2", "MinMaxCalibration", "MSECalibration"} <= chosen
        assert "EntropyCalibration" not in chosen  # it always agrees with its successor
        for name, amax in row.amax_by_algorithm.items():
            assert [amax] == amax_of([histogram], CalibrationAlgo[name])
        width = row.histogram.bin_width
        for index, count in enumerate(row.histogram.counts):
            inside = (x.abs() >= index * width) & (x.abs() < (index + 1) * width)
            assert count == inside.sum()

    def test_layers(self, analysis: Analysis, x: Tensor) -> None:
        model = Chain()
        with torch.no_grad():
            plain = F.conv2d(x, model.kernel, padding=1)
            kernel, weight = (
                fake_quantized_weight(model.kernel),
                fake_quantized_weight(model.weight),
            )
            quantized = F.conv2d(fake_quantized(x, 0.02), kernel, padding=1)
            hidden, quantized_hidden = (F.relu(y).flatten(1) for y in (plain, quantized))
            output = F.linear(hidden, model.weight, model.bias)
            first = F.linear(quantized_hidden, model.weight, model.bias)
            second = F.linear(fake_quantized(hidden, 0.02), weight, model.bias)
            both = F.linear(fake_quantized(quantized_hidden, 0.02), weight, model.bias)
        convolution, linear = analysis.layers
        close = {"abs": 0.02}  # values between two integers may round either way
        assert convolution.sqnr_db == pytest.approx(sqnr(plain, quantized), **close)
        assert convolution.accumulated_sqnr_db == pytest.approx(sqnr(plain, quantized), **close)
        assert convolution.weight_sqnr_db == pytest.approx(sqnr(model.kernel, kernel), **close)
        assert convolution.output_sqnr_db == pytest.approx(centred_sqnr(output, first), **close)
        assert linear.sqnr_db == pytest.approx(sqnr(output, second), **close)
        assert linear.accumulated_sqnr_db == pytest.approx(sqnr(output, both), **close)
        assert linear.weight_sqnr_db == pytest.approx(sqnr(model.weight, weight), **close)
        assert linear.output_sqnr_db == pytest.approx(centred_sqnr(output, second), **close)
        assert analysis.output_sqnr_db == pytest.approx(centred_sqnr(output, both), **close)
        for row in analysis.layers:
            assert row.metric == row.output_sqnr_db
            assert row.sensitivity == pytest.approx(10 ** (-row.output_sqnr_db / 10))
        assert (
            analysis.metric_name == "sqnr" and analysis.metric_quantized == analysis.output_sqnr_db
        )

    @pytest.mark.parametrize("size", [1, 4, 10])
    def test_the_division_into_batches_does_not_matter(
        self, chain: Simulation, analysis: Analysis, x: Tensor, size: int
    ) -> None:
        again = analyze(chain, DataLoader(TensorDataset(x), batch_size=size))
        assert again.samples == analysis.samples == 10
        assert again.tensors[0].histogram == analysis.tensors[0].histogram
        for row, other in zip(again.layers, analysis.layers, strict=True):
            assert row.sqnr_db == pytest.approx(other.sqnr_db, abs=1e-4)
            assert row.output_sqnr_db == pytest.approx(other.output_sqnr_db, abs=1e-3)


class TestSensitivity:
    def test_the_layer_with_the_outlier_is_first(self, outlier: Simulation) -> None:
        analysis = analyze(outlier, [vectors(32, seed=1)])
        first, second, _ = analysis.by_sensitivity
        assert first.name == "linear_1"
        assert first.sensitivity > 20 * second.sensitivity
        assert str(analysis).splitlines()[4].startswith("linear_1 ")

    def test_a_metric_gets_outputs_and_labels(self, outlier: Simulation) -> None:
        x, labels = vectors(10), torch.arange(10) % 4
        seen: list[tuple[int, int]] = []

        def accuracy(outputs: Tensor, batch: Any) -> float:
            seen.append((len(outputs), len(batch[1])))
            return float((outputs.argmax(dim=1) == batch[1]).float().mean())

        loader = DataLoader(TensorDataset(x, labels), batch_size=7)  # 4 are an engine's batch
        analysis = analyze(outlier, loader, metric=accuracy)
        with torch.no_grad():
            plain, quantized = Outlier()(x), outlier.lowered(x[:4])
        assert analysis.metric_reference == pytest.approx(
            float((plain.argmax(dim=1) == labels).float().mean())
        )
        assert set(seen) == {(7, 7), (3, 3)} and analysis.metric_name == "accuracy"
        row = analysis.layer("linear_1")
        assert row.sensitivity == pytest.approx(analysis.metric_reference - row.metric)
        assert quantized.shape == (4, 4)

    def test_less_may_be_better(self, outlier: Simulation) -> None:
        x = vectors(8)
        with torch.no_grad():
            target = Outlier()(x)

        def loss(outputs: Tensor, batch: Any) -> Tensor:
            return (outputs - target).square().mean()

        analysis = analyze(outlier, [x], metric=loss, higher_is_better=False)
        assert analysis.metric_reference == pytest.approx(0.0, abs=1e-6)
        assert analysis.by_sensitivity[0].name == "linear_1"
        assert analysis.by_sensitivity[0].sensitivity > 0

    def test_agreement(self, outlier: Simulation) -> None:
        x = vectors(32, seed=3)
        analysis = analyze(outlier, [x], metric="agreement")
        with torch.no_grad():
            plain = Outlier()(x).argmax(dim=1)
            quantized = torch.cat([outlier.lowered(part) for part in x.split(4)]).argmax(dim=1)
        assert analysis.metric_reference == 1.0
        assert analysis.metric_quantized == pytest.approx(
            float((plain == quantized).float().mean())
        )
        assert analysis.metric_quantized < 1.0

    def test_it_can_be_left_out(self, outlier: Simulation) -> None:
        calls = []

        def metric(outputs: Tensor, batch: Any) -> int:
            calls.append(batch)
            return 1

        analysis = analyze(outlier, [vectors(4)], metric=metric, sensitivity=False)
        assert len(calls) == 2  # without quantization and with all of it
        assert {row.sensitivity for row in analysis.layers} == {None}
        assert "None" not in str(analysis)


@pytest.mark.parametrize("precisions", [{torch.int8}, {torch.int8, torch.half}])
def test_channels_that_were_added_for_whole_vectors_do_not_count(
    precisions: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = randomize(DenseNet(24, (2,), 48, num_classes=5), 2)
    x = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))

    def found() -> Analysis:
        simulation = simulated(model, [tuple(x.shape)], [x], enabled_precisions=precisions)
        shapes.append({n.meta["val"].shape[1] for n in concatenations(simulation.lowered)})
        return analyze(simulation, [x], sensitivity=False)

    def concatenations(graph_module: GraphModule) -> list[Node]:
        return [n for n in graph_module.graph.nodes if n.target is torch.ops.aten.cat.default]

    shapes: list[set[int]] = []
    aligned = found()
    monkeypatch.setattr("trtcompile.ptq.quantize.align_channels", lambda graph_module: None)
    plain = found()
    assert shapes == [{96, 128}, {72, 96}]
    assert [row.name for row in aligned.tensors] == [row.name for row in plain.tensors]
    for row, expected in zip(aligned.tensors, plain.tensors, strict=True):
        assert row.values == expected.values, row.name
        assert row.clipped == pytest.approx(expected.clipped, abs=1e-5)
        assert row.sqnr_db == pytest.approx(expected.sqnr_db, abs=0.05)
        for algo, amax in row.amax_by_algorithm.items():
            # Sums in another order can move a value to the next bin, and so a range by a bin.
            assert amax == pytest.approx(expected.amax_by_algorithm[algo], rel=0.01), (row, algo)


def test_a_model_that_comes_quantized() -> None:
    """Its integer weight has nothing to switch off, and what is quantized for the output is a layer of its own."""
    model, x = GivenQuantization(), vectors(12)
    simulation = simulated(model, [(4, 8)], calibrator=None)
    analysis = analyze(simulation, [x])
    weight = model.weight * model.scales[:, None]
    plain = F.linear(x, weight)
    quantized = F.linear(fake_quantized(x, 0.02), weight)
    linear, output = analysis.layers
    assert (linear.name, linear.weight_sqnr_db, output.name) == ("linear", None, "output")
    assert linear.sqnr_db == pytest.approx(sqnr(plain, quantized), abs=0.02)
    assert output.sqnr_db == pytest.approx(sqnr(plain, fake_quantized(plain, 0.005)), abs=0.02)
    both = fake_quantized(quantized, 0.005)
    assert output.accumulated_sqnr_db == pytest.approx(sqnr(plain, both), abs=0.02)
    assert analysis.output_sqnr_db == pytest.approx(centred_sqnr(plain, both), abs=0.02)


class TestData:
    def test_dictionaries_and_limits(self) -> None:
        class Two(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.linear = nn.Linear(8, 8)

            def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
                return {"sum": self.linear(a) + b, "rows": a}

        inputs = [Input((2, 8), name="a"), Input((2, 8), name="b")]
        simulation = simulated(Two(), inputs)
        batches = [{"b": vectors(3, i), "label": i, "a": vectors(3, i + 9)} for i in range(4)]
        seen: list[int] = []

        def metric(outputs: dict[str, Tensor], batch: dict[str, Any]) -> float:
            assert torch.equal(outputs["rows"], batch["a"])
            seen.append(batch["label"])
            return 0.5

        analysis = analyze(simulation, batches, metric=metric, max_batches=2)
        assert analysis.samples == 6 and sorted(set(seen)) == [0, 1]

    def test_random_states_and_gradients_are_left_alone(self, chain: Simulation) -> None:
        torch_state, python_state = torch.get_rng_state(), random.getstate()
        analyze(chain, DataLoader(TensorDataset(images(4)), shuffle=True), sensitivity=False)
        assert torch.equal(torch.get_rng_state(), torch_state)
        assert random.getstate() == python_state
        assert torch.is_grad_enabled()

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            ([], "no samples"),
            (
                [images(2), torch.randn(2, 3, 5, 5)],
                r"Batch 1 of the calibration data has \[2, 3, 5, 5\]",
            ),
            (
                [images(4), images(4) * float("nan")],
                "Tensor 'input_0', batch 1 of the data: it holds NaN",
            ),
        ],
        ids=["none", "shape", "nan"],
    )
    def test_data_that_cannot_be_used(self, chain: Simulation, data: Any, message: str) -> None:
        with pytest.raises(CalibrationError, match=message):
            analyze(chain, data)


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"metric": "accuracy"}, "metric is 'accuracy'"),
            ({"metric": lambda outputs, batch: outputs}, "metric returned a Tensor"),
            ({"metric": lambda outputs, batch: "good"}, "metric returned a str"),
            ({"higher_is_better": 1}, "higher_is_better is 1"),
            ({"higher_is_better": False}, "of which more is better"),
            ({"sensitivity": None}, "sensitivity is None"),
            ({"max_batches": 0}, "max_batches is 0"),
            ({"device": "gpu"}, "device is 'gpu'"),
        ],
    )
    def test_arguments(self, chain: Simulation, options: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            analyze(chain, [images(4)], **options)

    def test_a_loader_of_one_use(self, chain: Simulation) -> None:
        with pytest.raises(SettingsError, match="can be used only once"):
            analyze(chain, iter([images(4)]))

    def test_a_metric_that_is_nan(self, chain: Simulation) -> None:
        with pytest.raises(CalibrationError, match="the metric is nan"):
            analyze(chain, [images(4)], metric=lambda outputs, batch: float("nan"))

    def test_nothing_is_quantized(self) -> None:
        with pytest.warns(PrecisionWarning, match="the calibrator was not asked"):
            simulation = simulated(nn.ReLU(), [(2, 8)])
        with pytest.raises(CalibrationError, match="nothing that is quantized"):
            analyze(simulation, [vectors(2)])


class TestFiles:
    def test_json(self, chain: Simulation, tmp_path: Path) -> None:
        analysis = analyze(chain, [images(4)])
        analysis.save_json(tmp_path / "analysis.json")
        read = json.loads((tmp_path / "analysis.json").read_text())
        assert read["schema"] == 1 and read["samples"] == 4
        assert read["layers"][1]["name"] == "linear"
        assert read["layers"][1]["sqnr_db"] == analysis.layer("linear").sqnr_db
        assert (
            tuple(read["tensors"][0]["histogram"]["counts"]) == analysis.tensors[0].histogram.counts
        )

    def test_what_cannot_be_written_costs_no_file(self, chain: Simulation, tmp_path: Path) -> None:
        analysis = analyze(chain, [images(4)], sensitivity=False)
        (tmp_path / "folder").mkdir()
        for save in (analysis.save_json, analysis.save_html):
            with pytest.raises(OSError, match="folder"):
                save(tmp_path / "folder")
        assert [path.name for path in tmp_path.iterdir()] == ["folder"]

    def test_parity_is_that_of_the_worst_value(self, chain: Simulation) -> None:
        analysis = analyze(chain, [images(4)], sensitivity=False)
        joined = analysis.with_parity({"reshape": 50.0, "linear": 40.0, "elsewhere": 1.0})
        assert [row.parity_sqnr_db for row in joined.layers] == [None, 40.0]
        assert "parity dB" in str(joined) and "parity dB" not in str(analysis)


@pytest.mark.gpu
def test_a_gpu_finds_the_same(outlier: Simulation, chain: Simulation) -> None:
    for simulation, data in ((outlier, [vectors(10)]), (chain, [images(6)])):
        on_cpu = analyze(simulation, data, device="cpu")
        on_gpu = analyze(simulation, data, device="cuda")
        for row, other in zip(on_gpu.tensors, on_cpu.tensors, strict=True):
            assert row.sqnr_db == pytest.approx(other.sqnr_db, abs=0.5)
            assert row.clipped == pytest.approx(other.clipped, abs=0.01)
        for layer, same in zip(on_gpu.layers, on_cpu.layers, strict=True):
            assert layer.output_sqnr_db == pytest.approx(same.output_sqnr_db, abs=0.5)
        with pytest.raises(CalibrationError, match="Tensor 'input_0', some batch of the data"):
            analyze(simulation, [data[0] * float("nan")], device="cuda")
