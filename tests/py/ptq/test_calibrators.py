"""DataLoaderCalibrator and CacheCalibrator: arguments, caches, and what they promise."""

from __future__ import annotations

import json
import pickle
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_requests import Passthrough, SmallNet, make_request
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from trtcompile.errors import CalibrationError, CalibrationWarning, SettingsError
from trtcompile.inputs import Input
from trtcompile.ptq import (
    CacheCalibrator,
    CalibrationAlgo,
    CalibrationTable,
    Calibrator,
    DataLoaderCalibrator,
)
from trtcompile.ptq.algorithms import ALL_ZERO_SCALE
from trtcompile.ptq.arguments import usable_device
from trtcompile.ptq.request import CalibrationRequest

ENTROPY = CalibrationAlgo.ENTROPY_CALIBRATION_2
MINMAX = CalibrationAlgo.MINMAX_CALIBRATION

IMAGES = torch.randn(20, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def image_loader(batch_size: int = 8, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(IMAGES, torch.arange(20)), batch_size=batch_size, **options)


@pytest.fixture
def request_() -> CalibrationRequest:
    return make_request(SmallNet())


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "calibration.cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Forbidden:
    """A loader that must not be read."""

    def __iter__(self) -> Iterator[Any]:
        raise AssertionError("the data was read")


class TestTable:
    def test_min_max_scales(self, request_: CalibrationRequest) -> None:
        table = DataLoaderCalibrator(image_loader(), algo_type=MINMAX).calibrate(request_)
        assert tuple(table) == request_.names
        assert table["x"] == pytest.approx(IMAGES.abs().max().item() / 127, rel=1e-6)
        assert table.algo is MINMAX

    def test_entropy_is_the_default_and_clips(self, request_: CalibrationRequest) -> None:
        calibrator = DataLoaderCalibrator(image_loader())
        table = calibrator.calibrate(request_)
        assert table.algo is ENTROPY
        largest = calibrator.table(MINMAX)
        assert all(table[name] <= largest[name] for name in table)
        assert table["x"] < largest["x"]

    @pytest.mark.parametrize("batch_size", [1, 7, 64])
    @pytest.mark.parametrize("algo", [ENTROPY, MINMAX])
    def test_batch_size_and_order_do_not_matter(
        self, request_: CalibrationRequest, batch_size: int, algo: CalibrationAlgo
    ) -> None:
        reference = DataLoaderCalibrator([IMAGES], algo_type=algo).calibrate(request_)
        shuffled = image_loader(batch_size, shuffle=True)
        assert DataLoaderCalibrator(shuffled, algo_type=algo).calibrate(request_) == reference

    def test_provenance(self, request_: CalibrationRequest) -> None:
        provenance = DataLoaderCalibrator(image_loader()).calibrate(request_).provenance
        assert provenance is not None
        assert provenance.samples == 20
        assert provenance.graph_hash == request_.graph_hash
        assert provenance.fingerprints == request_.fingerprints
        assert provenance.amax.keys() == set(request_.names)

    def test_groups_share_a_scale(self) -> None:
        request = make_request(SmallNet(), groups=[["x", "relu"], ["linear"]])
        table = DataLoaderCalibrator(image_loader(), algo_type=MINMAX).calibrate(request)
        alone = DataLoaderCalibrator(image_loader(), algo_type=MINMAX).calibrate(
            make_request(SmallNet())
        )
        assert tuple(table) == ("x", "relu", "linear")
        assert table["x"] == table["relu"] == max(alone["x"], alone["relu"])

    def test_all_zero_activations(self) -> None:
        request = make_request(Passthrough(), [Input((2, 3))])
        for algo in (ENTROPY, MINMAX):
            table = DataLoaderCalibrator([torch.zeros(4, 3)], algo_type=algo).calibrate(request)
            assert table["mul"] == ALL_ZERO_SCALE

    def test_max_batches(self, request_: CalibrationRequest) -> None:
        table = DataLoaderCalibrator(image_loader(), max_batches=2).calibrate(request_)
        assert table == DataLoaderCalibrator([IMAGES[:16]]).calibrate(request_)
        assert table.provenance is not None
        assert table.provenance.samples == 16

    def test_streams_dictionaries_and_workers(self, request_: CalibrationRequest) -> None:
        class Stream(IterableDataset[Any]):
            def __iter__(self) -> Iterator[Any]:
                return ({"image": image, "label": 3} for image in IMAGES)

        reference = DataLoaderCalibrator([IMAGES]).calibrate(request_)
        stream = DataLoaderCalibrator(DataLoader(Stream(), batch_size=6)).calibrate(request_)
        assert stream == reference
        with_workers = DataLoaderCalibrator(image_loader(num_workers=1)).calibrate(request_)
        assert with_workers == reference

    def test_one_calibrator_serves_several_models(self) -> None:
        first, second = make_request(SmallNet(0)), make_request(SmallNet(1))
        calibrator = DataLoaderCalibrator(image_loader())
        tables = [calibrator.calibrate(request) for request in (first, second, first)]
        assert tables[0] == tables[2]
        assert tables[0] != tables[1]
        assert tables[1] == DataLoaderCalibrator(image_loader()).calibrate(second)

    def test_other_algorithms_need_no_data(self, request_: CalibrationRequest) -> None:
        calibrator = DataLoaderCalibrator(image_loader())
        entropy = calibrator.calibrate(request_)
        calibrator.dataloader = Forbidden()
        assert calibrator.table() == entropy
        minmax = DataLoaderCalibrator(image_loader(), algo_type=MINMAX).calibrate(request_)
        assert calibrator.table(MINMAX) == minmax

    def test_options_of_the_algorithm(self, request_: CalibrationRequest) -> None:
        percentile = CalibrationAlgo.PERCENTILE_CALIBRATION
        calibrator = DataLoaderCalibrator(
            image_loader(), algo_type=percentile, algo_options={"percentile": 90}
        )
        table = calibrator.calibrate(request_)
        assert table.provenance is not None
        assert table.provenance.algo_options == {"percentile": 90.0}
        assert calibrator.table() == table
        wider = calibrator.table(percentile, {"percentile": 99})
        assert calibrator.table(percentile) != wider
        assert all(table[name] < wider[name] for name in table)

    def test_a_cache_is_of_the_same_options(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        def calibrator(percentile: float) -> DataLoaderCalibrator:
            return DataLoaderCalibrator(
                image_loader(),
                cache_file=cache_file,
                use_cache=True,
                algo_type=CalibrationAlgo.PERCENTILE_CALIBRATION,
                algo_options={"percentile": percentile},
            )

        table = calibrator(90).calibrate(request_)
        assert calibrator(90).calibrate(request_) == table
        with pytest.raises(CalibrationError, match=r"algo_options \{'percentile': 90.0\}, not"):
            calibrator(99).calibrate(request_)

    def test_there_is_no_table_before_data_was_run(self) -> None:
        with pytest.raises(CalibrationError, match="no statistics"):
            DataLoaderCalibrator(image_loader()).table()

    def test_a_failed_calibration_leaves_no_table_and_no_file(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        batches = [IMAGES[:4], IMAGES[4:8]]
        calibrator = DataLoaderCalibrator(batches, cache_file=cache_file)
        calibrator.calibrate(request_)
        before = contents(cache_file.parent)
        batches[1] = torch.full((2, 3, 32, 32), float("nan"))
        with pytest.raises(CalibrationError, match="batch 1 "):
            calibrator.calibrate(request_)
        with pytest.raises(CalibrationError, match="no statistics"):
            calibrator.table()
        assert contents(cache_file.parent) == before


class TestArguments:
    @pytest.mark.parametrize(
        ("dataloader", "advice"),
        [
            (TensorDataset(IMAGES), "DataLoader\\(dataset, batch_size=64\\)"),
            (iter([IMAGES]), "only once"),
            ((batch for batch in [IMAGES]), "only once"),
            (iter(image_loader()), "only once"),
            (3, "yields no batches"),
            (None, "yields no batches"),
            ("calibration.cache", "yields no batches"),
            ({"x": IMAGES}, "yields no batches"),
        ],
    )
    def test_what_is_no_dataloader(self, dataloader: Any, advice: str) -> None:
        with pytest.raises(SettingsError, match=advice):
            DataLoaderCalibrator(dataloader)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"use_cache": True}, "no cache_file"),
            ({"use_cache": 1, "cache_file": "c"}, "use_cache is 1"),
            ({"cache_file": 7}, "cache_file is 7"),
            ({"cache_file": ""}, "cache_file is ''"),
            ({"cache_file": "a\0b"}, "cache_file is"),
            ({"cache_file": b"bytes"}, "cache_file is"),
            ({"max_batches": 0}, "max_batches is 0"),
            ({"max_batches": 1.5}, "max_batches is 1.5"),
            ({"max_batches": True}, "max_batches is True"),
            ({"progress": "yes"}, "progress is 'yes'"),
            ({"device": "gpu:0"}, "device is 'gpu:0'"),
            ({"device": 1.5}, "device is 1.5"),
            ({"device": "meta"}, "device is 'meta'"),
            ({"algo_type": "MinMaxCalibration"}, "not a CalibrationAlgo"),
            ({"algo_options": {"percentile": 99}}, "no option 'percentile'"),
        ],
    )
    def test_wrong_values(self, options: dict[str, Any], message: str) -> None:
        with pytest.raises(SettingsError, match=message):
            DataLoaderCalibrator(image_loader(), **options)

    def test_options_are_keywords_only(self) -> None:
        with pytest.raises(TypeError):
            DataLoaderCalibrator(image_loader(), "calibration.cache")  # type: ignore[misc]

    def test_they_are_real_classes(self, cache_file: Path) -> None:
        loader = DataLoaderCalibrator(image_loader(), cache_file=cache_file, device="cpu")
        cache = CacheCalibrator(cache_file)
        for calibrator in (loader, cache):
            assert isinstance(calibrator, Calibrator)
            assert callable(calibrator.calibrate)
        assert isinstance(loader, DataLoaderCalibrator)
        assert repr(cache) == (
            f"CacheCalibrator({str(cache_file)!r}, algo_type=CalibrationAlgo.ENTROPY_CALIBRATION_2)"
        )
        assert repr(loader) == (
            f"DataLoaderCalibrator(<DataLoader of 3 batches>, cache_file={str(cache_file)!r}, "
            "use_cache=False, algo_type=CalibrationAlgo.ENTROPY_CALIBRATION_2, algo_options={}, "
            "device=device(type='cpu'), max_batches=None, distributed=False)"
        )
        with pytest.raises(TypeError, match="abstract"):
            Calibrator()  # type: ignore[abstract]

    def test_they_can_be_pickled(self, request_: CalibrationRequest, cache_file: Path) -> None:
        calibrator = DataLoaderCalibrator([IMAGES], cache_file=cache_file)
        table = calibrator.calibrate(request_)
        restored = pickle.loads(pickle.dumps(calibrator))  # noqa: S301 - our own bytes
        assert repr(restored) == repr(calibrator)
        assert restored.table() == table
        assert restored.calibrate(request_) == table
        cached = pickle.loads(pickle.dumps(CacheCalibrator(cache_file)))  # noqa: S301
        assert cached.calibrate(request_) == table

    def test_the_graph_of_a_request_is_not_kept(self, request_: CalibrationRequest) -> None:
        import gc
        import weakref

        calibrator = DataLoaderCalibrator([IMAGES])
        request = make_request(SmallNet())
        graph = weakref.ref(request.graph)
        calibrator.calibrate(request)
        del request
        gc.collect()
        assert graph() is None


class TestDeviceWithoutCuda:
    @pytest.fixture(autouse=True)
    def _no_cuda(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def test_a_cuda_device_is_a_warning(self, request_: CalibrationRequest) -> None:
        calibrator = DataLoaderCalibrator([IMAGES], device=torch.device("cuda:0"))
        with pytest.warns(CalibrationWarning, match=r"'cuda:0'.*'cpu'"):
            table = calibrator.calibrate(request_)
        assert table == DataLoaderCalibrator([IMAGES]).calibrate(request_)

    def test_the_compilers_device_is_not(self) -> None:
        assert usable_device(None, torch.device("cuda:0")) == torch.device("cpu")


class TestDevice:
    def test_the_calibrators_device_comes_first(self) -> None:
        cpu, meta = torch.device("cpu"), torch.device("meta")
        assert usable_device(cpu, meta) == cpu
        assert usable_device(None, cpu) == cpu

    def test_a_gpu_that_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        assert usable_device(torch.device("cuda:1"), torch.device("cpu")).index == 1
        with pytest.raises(CalibrationError, match="'cuda:2', but this machine has 2"):
            usable_device(torch.device("cuda:2"), torch.device("cpu"))


class TestCache:
    def test_it_is_written_and_read(self, request_: CalibrationRequest, cache_file: Path) -> None:
        table = DataLoaderCalibrator(image_loader(), cache_file=str(cache_file)).calibrate(request_)
        first_line = cache_file.read_text().splitlines()[0]
        assert first_line == "TRT-100600-EntropyCalibration2"
        before = contents(cache_file.parent)
        cached = CacheCalibrator(str(cache_file)).calibrate(request_)
        assert cached == table
        assert cached.provenance == table.provenance
        assert contents(cache_file.parent) == before

    def test_use_cache_calibrates_once(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        first = DataLoaderCalibrator(image_loader(), cache_file=cache_file, use_cache=True)
        table = first.calibrate(request_)
        second = DataLoaderCalibrator(Forbidden(), cache_file=cache_file, use_cache=True)
        assert second.calibrate(request_) == table
        with pytest.raises(CalibrationError, match="no statistics"):
            second.table()

    def test_without_use_cache_the_file_is_replaced(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        table = DataLoaderCalibrator([IMAGES * 2], cache_file=cache_file).calibrate(request_)
        assert CacheCalibrator(cache_file).calibrate(request_) == table

    def test_a_path_that_cannot_be_written_is_found_before_the_data_is_read(
        self, request_: CalibrationRequest, tmp_path: Path
    ) -> None:
        for path, message in ((tmp_path, "is a folder"), (tmp_path / "no" / "c", "no folder")):
            with pytest.raises(CalibrationError, match=message):
                DataLoaderCalibrator(Forbidden(), cache_file=path).calibrate(request_)

    def test_a_folder_that_may_not_be_looked_into(
        self, request_: CalibrationRequest, tmp_path: Path
    ) -> None:
        """As another user than the tests', who may be root: a name that is too long raises in the same places."""
        calibrator = DataLoaderCalibrator(
            Forbidden(), cache_file=tmp_path / ("x" * 300), use_cache=True
        )
        with pytest.raises(CalibrationError, match="cannot be written"):
            calibrator.calibrate(request_)

    def test_another_model_is_an_error_that_names_the_tensors(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        other = make_request(SmallNet(), fingerprint="another")
        assert other.names == request_.names
        before = contents(cache_file.parent)
        calibrators = [
            CacheCalibrator(cache_file),
            DataLoaderCalibrator(Forbidden(), cache_file=cache_file, use_cache=True),
        ]
        for calibrator in calibrators:
            with pytest.raises(CalibrationError, match=r"another model: 5 of 5 tensors") as caught:
                calibrator.calibrate(other)
            assert all(repr(name) in str(caught.value) for name in other.names)
        assert contents(cache_file.parent) == before

    def test_only_what_is_needed_must_agree(self, cache_file: Path) -> None:
        whole = make_request(SmallNet())
        table = DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(whole)
        part = make_request(SmallNet(), observe=["x", "relu"])
        cached = CacheCalibrator(cache_file).calibrate(part)
        assert dict(cached) == {name: table[name] for name in ("x", "relu")}
        assert cached.provenance is not None
        assert set(cached.provenance.fingerprints) == {"x", "relu"}

    def test_tensors_that_a_verified_cache_lacks(self, cache_file: Path) -> None:
        part = make_request(SmallNet(), observe=["x", "relu"])
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(part)
        with pytest.raises(CalibrationError, match=r"3 of 5 .*'conv2d' \(not in it\)"):
            CacheCalibrator(cache_file).calibrate(make_request(SmallNet()))

    def test_long_lists_are_shortened(self, cache_file: Path) -> None:
        cache_file.write_text("TRT-8501-EntropyCalibration2\n")
        names = [[f"t{i}"] for i in range(9)]
        request = make_request(SmallNet())
        node = request.nodes["x"]
        many = CalibrationRequest(
            graph=request.graph,
            groups=tuple(map(tuple, names)),
            nodes={f"t{i}": node for i in range(9)},
            fingerprints={f"t{i}": "" for i in range(9)},
            graph_hash="",
            arguments=request.arguments,
            device=request.device,
        )
        with pytest.raises(CalibrationError, match=r"lacks 9 of the 9 .*'t4', and 4 more"):
            CacheCalibrator(cache_file).calibrate(many)

    def test_a_cache_from_elsewhere_is_taken_with_a_warning(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        lines = [f"{name}: 3f800000" for name in (*request_.names, "something else")]
        cache_file.write_text("\n".join(["TRT-8501-EntropyCalibration2", *lines]))
        with pytest.warns(CalibrationWarning, match="unverified: there is no sidecar"):
            table = CacheCalibrator(cache_file).calibrate(request_)
        assert dict(table) == dict.fromkeys(request_.names, 1.0)
        assert table.provenance is None

    def test_a_cache_from_elsewhere_must_have_every_name(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        cache_file.write_text("TRT-8501-EntropyCalibration2\nx: 3f800000\nmean: 3f800000\n")
        with pytest.raises(
            CalibrationError, match=r"lacks 3 of the 5 .*'conv2d', 'relu', 'linear'"
        ):
            CacheCalibrator(cache_file).calibrate(request_)

    def test_an_edited_cache_is_taken_with_a_warning(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        text = cache_file.read_text().splitlines()
        text[1] = "x: 3f800000"
        cache_file.write_text("\n".join(text))
        with pytest.warns(CalibrationWarning, match="unverified: its text is not"):
            table = CacheCalibrator(cache_file).calibrate(request_)
        assert table["x"] == 1.0

    def test_another_algorithm_is_an_error(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        before = contents(cache_file.parent)
        calibrators = [
            CacheCalibrator(cache_file, algo_type=MINMAX),
            DataLoaderCalibrator(
                Forbidden(), cache_file=cache_file, use_cache=True, algo_type=MINMAX
            ),
        ]
        for calibrator in calibrators:
            with pytest.raises(CalibrationError, match=r"with ENTROPY_CALIBRATION_2, not MINMAX"):
                calibrator.calibrate(request_)
        assert contents(cache_file.parent) == before

    def test_tensors_that_must_share_a_scale_must_do_so_in_the_cache(
        self, cache_file: Path
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(make_request(SmallNet()))
        grouped = make_request(SmallNet(), groups=[["x", "relu"], ["linear"]])
        with pytest.raises(
            CalibrationError, match=r"'x' the scale .* and 'relu' .* share one scale"
        ):
            CacheCalibrator(cache_file).calibrate(grouped)

    @pytest.mark.parametrize("text", [b"", b"\x00\x01\x02", b"TRT-1-EntropyCalibration2\nx: 00\n"])
    def test_a_corrupted_cache_is_left_alone(
        self, request_: CalibrationRequest, cache_file: Path, text: bytes
    ) -> None:
        cache_file.write_bytes(text)
        calibrators = [
            CacheCalibrator(cache_file),
            DataLoaderCalibrator(Forbidden(), cache_file=cache_file, use_cache=True),
        ]
        for calibrator in calibrators:
            with pytest.raises(CalibrationError, match="corrupted: line"):
                calibrator.calibrate(request_)
        assert contents(cache_file.parent) == {cache_file.name: text}

    def test_a_missing_cache_is_not_created(
        self, request_: CalibrationRequest, cache_file: Path
    ) -> None:
        with pytest.raises(CalibrationError, match="cannot be read: No such file"):
            CacheCalibrator(cache_file).calibrate(request_)
        with pytest.raises(CalibrationError, match="cannot be read: Is a directory"):
            CacheCalibrator(cache_file.parent).calibrate(request_)
        assert contents(cache_file.parent) == {}

    def test_a_failed_write_keeps_the_previous_cache(
        self,
        request_: CalibrationRequest,
        cache_file: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        before = contents(cache_file.parent)

        def disk_full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("os.fsync", disk_full)
        with pytest.raises(CalibrationError, match="No space left on device"):
            DataLoaderCalibrator([IMAGES * 2], cache_file=cache_file).calibrate(request_)
        assert contents(cache_file.parent) == before

    def test_the_sidecar_is_json(self, request_: CalibrationRequest, cache_file: Path) -> None:
        table = DataLoaderCalibrator([IMAGES], cache_file=cache_file).calibrate(request_)
        sidecar = json.loads((cache_file.parent / "calibration.cache.json").read_text())
        assert sidecar["samples"] == 20
        assert sidecar["algorithm"] == "EntropyCalibration2"
        assert list(sidecar["tensors"]) == list(table)


class TestProgress:
    def shown(
        self,
        capsys: pytest.CaptureFixture[str],
        loader: Iterable[Any],
        progress: bool | None,
        max_batches: int | None = None,
    ) -> str:
        request = make_request(Passthrough(), [Input((1, 3, 32, 32))])
        DataLoaderCalibrator(loader, progress=progress, max_batches=max_batches).calibrate(request)
        captured = capsys.readouterr()
        assert captured.out == ""
        return captured.err

    def test_it_is_shown_on_a_terminal_only(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert self.shown(capsys, [IMAGES], None) == ""
        monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
        assert "Calibrating" in self.shown(capsys, [IMAGES], None)
        assert self.shown(capsys, [IMAGES], False) == ""

    def test_without_tqdm_it_is_plain_text(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        text = self.shown(capsys, image_loader(), True)
        assert text.split("\r")[1:] == [
            "Calibrating: 1/3 batches",
            "Calibrating: 2/3 batches",
            "Calibrating: 3/3 batches\n",
        ]
        assert "2/2" in self.shown(capsys, image_loader(), True, max_batches=2)

        class Stream(IterableDataset[Tensor]):
            def __iter__(self) -> Iterator[Tensor]:
                return iter(IMAGES)

        assert "Calibrating: 5 batches" in self.shown(capsys, DataLoader(Stream(), 4), True)

    def test_with_tqdm(self, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("tqdm", reason="shows the bar of tqdm; install tqdm")
        assert "3/3" in self.shown(capsys, image_loader(), True)


def test_a_calibrator_of_ones_own(request_: CalibrationRequest) -> None:
    class Fixed(Calibrator):
        def calibrate(self, request: CalibrationRequest) -> CalibrationTable:
            return CalibrationTable(dict.fromkeys(request.names, 0.5), algo=MINMAX)

    assert Fixed().calibrate(request_)["x"] == 0.5


def test_requests_are_checked() -> None:
    good = make_request(SmallNet())
    with pytest.raises(CalibrationError, match="in two"):
        make_request(SmallNet(), groups=[["x"], ["x", "relu"]])
    with pytest.raises(CalibrationError, match="is empty"):
        make_request(SmallNet(), groups=[["x"], []])
    with pytest.raises(CalibrationError, match=r"no node or no fingerprint for .*'y'"):
        make_request(SmallNet(), groups=[["x", "y"]])
    assert good.names == ("x", "conv2d", "relu", "mean", "linear")


def test_a_loader_whose_length_is_an_error() -> None:
    class Odd:
        def __len__(self) -> int:
            raise RuntimeError("not known")

        def __iter__(self) -> Iterator[torch.Tensor]:
            yield IMAGES

    assert "<Odd>" in repr(DataLoaderCalibrator(Odd()))


def test_a_folder_that_goes_while_the_data_runs(
    request_: CalibrationRequest, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()

    class Removing:
        def __iter__(self) -> Iterator[torch.Tensor]:
            yield IMAGES
            folder.rmdir()

    calibrator = DataLoaderCalibrator(Removing(), cache_file=folder / "cache")
    with pytest.raises(CalibrationError, match=r"cannot be written: .* or give another path\.$"):
        calibrator.calibrate(request_)
    assert len(calibrator.table()) == len(request_.names)
