"""From a DataLoader to an INT8 network: the simulation, the oracle, the table, and its cache."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from checks import build_device, install_oracle, randomize
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

import trtcompile
from trtcompile import (
    CalibrationError,
    CalibrationWarning,
    DeviceType,
    Input,
    PrecisionWarning,
    TRTModule,
)
from trtcompile.ptq import CacheCalibrator, CalibrationAlgo, DataLoaderCalibrator

INPUTS = [Input((1, 3, 32, 32))]


class SmallNet(nn.Module):
    """A convolution, a residual block, pooling, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.block = nn.Sequential(
            nn.Conv2d(8, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1),
        )
        self.pool = nn.MaxPool2d(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(8 * 8 * 8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.pool(torch.relu(self.block(x) + x))
        return self.head(self.drop(x.flatten(1)))


class Products(nn.Module):
    """Weights that are right factors, in three operators."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 32), nn.Linear(16, 24)
        self.third = nn.Linear(10, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(torch.matmul(x, self.first.weight))
        x = torch.relu(torch.einsum("bnc,cd->bnd", x, self.second.weight))
        return torch.addmm(self.first.bias[:10], x.reshape(-1, 16), self.third.weight)


@pytest.fixture(scope="module")
def model() -> SmallNet:
    net = SmallNet()
    randomize(net, 3)
    return net


def images(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed))


def loader(batch_size: int, count: int = 20, **arguments: Any) -> DataLoader[Any]:
    labels = torch.arange(count) % 10
    return DataLoader(TensorDataset(images(count), labels), batch_size=batch_size, **arguments)


def compile_int8(model: nn.Module, calibrator: Any, **options: Any) -> TRTModule:
    return trtcompile.compile(
        model,
        options.pop("inputs", INPUTS),
        **{
            "enabled_precisions": {torch.int8},
            "calibrator": calibrator,
            "device": build_device(disable_tf32=True),
            **options,
        },
    )


@pytest.fixture(scope="module")
def reference(model: SmallNet) -> TRTModule:
    return compile_int8(model, DataLoaderCalibrator(loader(4)))


class TestResults:
    @pytest.mark.parametrize(
        "precisions", [{torch.int8}, {torch.float, torch.half, torch.int8}], ids=["int8", "fast"]
    )
    def test_the_network_computes_what_the_simulation_does(
        self, precisions: set[torch.dtype], model: SmallNet, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        install_oracle(monkeypatch)
        compiled = compile_int8(
            model,
            DataLoaderCalibrator(loader(4)),
            inputs=[(8, 3, 32, 32)],
            enabled_precisions=precisions,
        )
        x = images(8, seed=1)
        with torch.no_grad():
            expected, simulated, computed = model(x), compiled.lowered(x), compiled(x)
        spread = expected.std()
        tolerance = 1e-5 if torch.half not in precisions else 2e-2
        assert (computed - simulated).abs().max() < tolerance * spread
        # It is INT8: near the FP32 values, and not equal to them.
        error = (simulated - expected).std() / spread
        assert 1e-3 < error < 0.1

    @pytest.mark.parametrize(
        "precisions", [{torch.int8}, {torch.float, torch.half, torch.int8}], ids=["int8", "fast"]
    )
    def test_products_with_constants(
        self, precisions: set[torch.dtype], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Their scales lie along the columns of the right factor; TensorRT builds them, and the numbers are right."""
        install_oracle(monkeypatch)
        model = Products()
        randomize(model, 4)
        x = torch.randn(4, 7, 32, generator=torch.Generator().manual_seed(1))
        compiled = compile_int8(
            model,
            DataLoaderCalibrator([x], progress=False),
            inputs=[x],
            enabled_precisions=precisions,
        )
        products = [row for row in compiled.report.rows if row.multiply_adds]
        assert [row.precision for row in products] == ["INT8"] * 3
        with torch.no_grad():
            expected, simulated, computed = model(x), compiled.lowered(x), compiled(x)
            network = compiled.network_graph(x)[0]
        spread = expected.std()
        tolerance = 1e-5 if torch.half not in precisions else 2e-2
        assert (computed - network).abs().max() < tolerance * spread
        assert 1e-3 < (simulated - expected).std() / spread < 0.1

    def test_every_weighted_operator_is_int8(self, reference: TRTModule) -> None:
        report = reference.report
        assert report is not None
        weighted = [row for row in report.rows if row.multiply_adds]
        assert [row.precision for row in weighted] == ["INT8"] * 4
        assert not report.fallbacks and len(reference.engines) == 1
        assert reference.calibration_table is not None
        assert (
            len(reference.calibration_table) == 5
        )  # the inputs of the four, and the residual branch

    def test_the_scales_matter(self, model: SmallNet, reference: TRTModule) -> None:
        class Scaled(trtcompile.ptq.Calibrator):
            def __init__(self, factor: float) -> None:
                self.factor = factor

            def calibrate(self, request: Any) -> Any:
                table = reference.calibration_table
                assert table is not None
                scales = {name: scale * self.factor for name, scale in table.items()}
                return trtcompile.ptq.CalibrationTable(scales, algo=table.algo)

        x = images(8, seed=1)
        errors = []
        for factor in (1.0, 8.0, 1 / 8):
            lowered = compile_int8(model, Scaled(factor), inputs=[(8, 3, 32, 32)]).lowered
            with torch.no_grad():
                errors.append((lowered(x) - model(x)).std() / model(x).std())
        assert errors[1] > 3 * errors[0] and errors[2] > 3 * errors[0]

    def test_little_int8_warns(self, model: SmallNet) -> None:
        with pytest.warns(PrecisionWarning, match="only 0% of the multiply-adds"):
            compile_int8(
                nn.Sequential(nn.ReLU(), model).eval(),
                DataLoaderCalibrator(loader(4)),
                torch_executed_ops={"aten.convolution", "aten.linear"},
                min_block_size=1,
            )


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Iterator[torch.Tensor]:
        return iter(images(20))


class TestTable:
    @pytest.mark.parametrize(
        "make",
        [
            lambda: loader(1),
            lambda: loader(7),
            lambda: loader(20, shuffle=True),
            lambda: loader(3, shuffle=True),
            lambda: DataLoader(Stream(), batch_size=6),  # type: ignore[arg-type]
            lambda: [{"image": images(20), "label": 3}],
            lambda: list(images(20)),
        ],
        ids=["1", "7", "shuffled", "shuffled 3", "stream", "dictionary", "samples"],
    )
    def test_batching_and_order_change_little(
        self, make: Any, model: SmallNet, reference: TRTModule
    ) -> None:
        """Within a bin of the histogram: other batches add up floats in another order."""
        table = compile_int8(model, DataLoaderCalibrator(make())).calibration_table
        assert table is not None and reference.calibration_table is not None
        assert list(table) == list(reference.calibration_table)
        for name, scale in table.items():
            assert scale == pytest.approx(reference.calibration_table[name], rel=2 / 2048)

    def test_labels_are_not_a_mask(self, model: SmallNet, reference: TRTModule) -> None:
        class Masked(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.inner = model

            def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
                return self.inner(x if mask is None else x * mask[:, None, None, None])

        masked = compile_int8(Masked().eval(), DataLoaderCalibrator(loader(4)))
        assert masked.calibration_table == reference.calibration_table

    def test_max_batches(self, model: SmallNet) -> None:
        few = compile_int8(model, DataLoaderCalibrator(loader(4), max_batches=2)).calibration_table
        same = compile_int8(
            model, DataLoaderCalibrator(list(itertools.islice(loader(4), 2)))
        ).calibration_table
        assert few == same


class TestClassicSnippet:
    """The Python PTQ workflow as it has long been written."""

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.chdir(tmp_path)
        return tmp_path

    def compile(self, model: nn.Module, calibrator: Any) -> TRTModule:
        device: dict[str, Any] = {
            "device_type": DeviceType.GPU,
            "gpu_id": 0,
            "dla_core": 0,
            "allow_gpu_fallback": False,
            "disable_tf32": False,
        }
        if not torch.cuda.is_available():
            device["compute_capability"] = build_device().compute_capability
        return trtcompile.compile(
            model,
            inputs=[Input((1, 3, 32, 32))],
            enabled_precisions={torch.float, torch.half, torch.int8},
            calibrator=calibrator,
            device=device,
        )

    def calibrator(self, testing_dataloader: Any, **arguments: Any) -> DataLoaderCalibrator:
        return DataLoaderCalibrator(
            testing_dataloader,
            cache_file="./calibration.cache",
            use_cache=False,
            algo_type=CalibrationAlgo.ENTROPY_CALIBRATION_2,
            **arguments,
        )

    def test_calibrate_then_reuse_the_cache(self, model: SmallNet, folder: Path) -> None:
        testing_dataloader = loader(1, shuffle=False, num_workers=0)
        calibrator = self.calibrator(testing_dataloader, device=torch.device("cuda:0"))
        if torch.cuda.is_available():
            compiled = self.compile(model, calibrator)
        else:
            with pytest.warns(CalibrationWarning, match="'cuda:0'.*calibrating on 'cpu'"):
                compiled = self.compile(model, calibrator)
        assert compiled.report is not None
        assert compiled.report.multiply_add_share("INT8") == 1.0
        text = (folder / "calibration.cache").read_bytes()
        assert text.startswith(b"TRT-100600-EntropyCalibration2\ninput_0: ")
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        assert set(files) == {"calibration.cache", "calibration.cache.json"}

        from_cache = self.compile(model, CacheCalibrator("./calibration.cache"))
        assert from_cache.calibration_table == compiled.calibration_table
        x = images(1, seed=2)
        assert torch.equal(from_cache.lowered(x), compiled.lowered(x))
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == files

    def test_use_cache(self, model: SmallNet, folder: Path) -> None:
        arguments: dict[str, Any] = {"cache_file": "./calibration.cache", "use_cache": True}
        first = compile_int8(model, DataLoaderCalibrator(loader(4), **arguments))
        empty: list[Any] = []
        second = compile_int8(model, DataLoaderCalibrator(empty, **arguments))
        assert first.calibration_table == second.calibration_table

    def test_the_cache_of_another_model_is_refused(self, model: SmallNet, folder: Path) -> None:
        compile_int8(model, DataLoaderCalibrator(loader(4), cache_file="./calibration.cache"))
        before = (folder / "calibration.cache").read_bytes()
        other = SmallNet()
        randomize(other, 4)
        with pytest.raises(CalibrationError, match=r"another model.*'relu'"):
            compile_int8(other, CacheCalibrator("./calibration.cache"))
        assert (folder / "calibration.cache").read_bytes() == before

    def test_a_failure_leaves_the_cache_alone(self, model: SmallNet, folder: Path) -> None:
        path = folder / "calibration.cache"
        path.write_bytes(b"the user's own")
        bad = images(4)
        bad[2, 0, 0, 0] = float("nan")
        for batches in (
            [],
            [bad],
            [torch.zeros(2, 1, 32, 32)],
            [torch.zeros(2, 3, 32, 32).double()],
        ):
            with pytest.raises(CalibrationError):
                compile_int8(model, DataLoaderCalibrator(batches, cache_file=path))
        assert path.read_bytes() == b"the user's own"
        assert [p.name for p in folder.iterdir()] == ["calibration.cache"]
