"""Calibration in two processes, which talk through gloo."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing
from small_requests import SmallNet, make_request
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from trtcompile.errors import CalibrationError, SettingsError
from trtcompile.ptq import CalibrationAlgo, DataLoaderCalibrator

IMAGES = torch.randn(21, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3


class _Failing:
    """A loader whose dataset has an error of its own."""

    def __iter__(self) -> Iterator[torch.Tensor]:
        raise ValueError("no such image")
        yield


class _Interrupted:
    """A loader during which somebody presses Ctrl-C, once."""

    def __init__(self) -> None:
        self.pressed = False

    def __iter__(self) -> Iterator[torch.Tensor]:
        yield IMAGES[:4]
        if not self.pressed:
            self.pressed = True
            raise KeyboardInterrupt


class _InterruptedChoice(DataLoaderCalibrator):
    """A calibrator that is interrupted while it chooses the scales, which the first process does."""

    def table(self, *_: Any) -> Any:
        raise KeyboardInterrupt


def _run(rank: int, folder: str) -> None:
    """What each process does; its findings go to a file."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    found: dict[str, Any] = {}
    request = make_request(SmallNet())
    data = TensorDataset(IMAGES)
    # drop_last leaves out what would have to be repeated to fill up the parts.
    sampler = DistributedSampler(data, shuffle=True, seed=3, drop_last=True)
    cache = Path(folder) / "calibration.cache"
    calibrator = DataLoaderCalibrator(
        DataLoader(data, batch_size=4, sampler=sampler), cache_file=cache, distributed=True
    )
    found["indices"] = list(sampler)
    found["table"] = calibrator.calibrate(request)
    dist.barrier()
    again = DataLoaderCalibrator([], cache_file=cache, use_cache=True, distributed=True)
    found["cached"] = again.calibrate(request)
    auto = DataLoaderCalibrator(
        DataLoader(data, batch_size=4, sampler=sampler),
        algo_type=CalibrationAlgo.AUTO_CALIBRATION,
        distributed=True,
    )
    found["auto"] = auto.calibrate(request)
    found["auto later"] = auto.table()
    bad = IMAGES[:4].clone()
    bad[0] = float("nan") if rank == 1 else 0.0
    try:
        DataLoaderCalibrator([bad], distributed=True).calibrate(request)
    except CalibrationError as error:
        found["error"] = str(error)
    try:
        DataLoaderCalibrator(_Failing() if rank == 1 else [bad * 0], distributed=True).calibrate(
            request
        )
    except (ValueError, CalibrationError) as error:
        found["loader"] = error
    found["one without"] = DataLoaderCalibrator(
        [] if rank == 0 else [IMAGES], distributed=True
    ).calibrate(request)
    with pytest.raises(CalibrationError) as without:
        DataLoaderCalibrator([], distributed=True).calibrate(request)
    found["all without"] = str(without.value)
    somewhere = cache if rank == 1 else Path(folder) / "missing" / "calibration.cache"
    try:
        DataLoaderCalibrator([IMAGES], cache_file=somewhere, distributed=True).calibrate(request)
    except CalibrationError as error:
        found["cache"] = str(error)
    pressed = DataLoaderCalibrator(_Interrupted() if rank == 1 else [IMAGES[:4]], distributed=True)
    for name in ("interrupted", "again"):
        try:
            found[name] = pressed.calibrate(request)
        except (KeyboardInterrupt, CalibrationError) as error:
            found[name] = error
    try:
        _InterruptedChoice([IMAGES], distributed=True).calibrate(request)
    except (KeyboardInterrupt, CalibrationError) as error:
        found["choice"] = error
    for name, other, options in (
        ("weights", dataclasses.replace(request, graph_hash="of other weights"), {}),
        ("algo", request, {"algo_type": CalibrationAlgo.MSE_CALIBRATION}),
        ("use_cache", request, {"cache_file": cache, "use_cache": True}),
    ):
        asked = DataLoaderCalibrator([IMAGES], distributed=True, **(options if rank else {}))
        with pytest.raises(CalibrationError) as differing:
            asked.calibrate(other if rank else request)
        found[name] = str(differing.value)
    if rank == 0:  # the other process goes
        with pytest.raises(CalibrationError) as gone:
            calibrator.calibrate(request)
        found["gone"] = str(gone.value)
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()  # whose threads would otherwise abort the process at its end, now and then


@pytest.fixture(scope="module")
def findings(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("processes")
    torch.multiprocessing.spawn(_run, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


def test_all_processes_get_the_table_of_one(findings: list[dict[str, Any]]) -> None:
    first, second = findings
    assert set(first["indices"]).isdisjoint(second["indices"])
    used = IMAGES[sorted([*first["indices"], *second["indices"]])]
    alone = DataLoaderCalibrator([used]).calibrate(make_request(SmallNet()))
    assert first["table"] == second["table"] == alone
    assert first["table"].provenance.samples == 20


def test_a_process_may_have_no_data(findings: list[dict[str, Any]]) -> None:
    alone = DataLoaderCalibrator([IMAGES]).calibrate(make_request(SmallNet()))
    for found in findings:
        assert found["one without"] == alone
        assert "has no samples" in found["all without"]


def test_auto_simulates_the_same_samples_as_one(findings: list[dict[str, Any]]) -> None:
    first, second = findings
    used = IMAGES[sorted([*first["indices"], *second["indices"]])]
    algo = CalibrationAlgo.AUTO_CALIBRATION
    alone = DataLoaderCalibrator([used], algo_type=algo).calibrate(make_request(SmallNet()))
    assert first["auto"] == second["auto"] == first["auto later"] == second["auto later"] == alone


def test_the_cache_is_that_of_the_first(findings: list[dict[str, Any]]) -> None:
    for found in findings:
        assert found["cached"] == found["table"]


def test_a_failure_of_one_is_a_failure_of_all(findings: list[dict[str, Any]]) -> None:
    assert findings[0]["error"].startswith("Calibration failed in process 1: Tensor")
    assert findings[1]["error"].startswith("Tensor")


def test_an_error_of_a_loader_is_raised_where_it_arises(findings: list[dict[str, Any]]) -> None:
    first, second = (found["loader"] for found in findings)
    assert isinstance(first, CalibrationError)
    assert str(first) == "Calibration failed in process 1: ValueError: no such image"
    assert isinstance(second, ValueError)


def test_a_folder_that_one_process_lacks(findings: list[dict[str, Any]]) -> None:
    assert "is in no folder" in findings[0]["cache"]
    assert findings[1]["cache"].startswith("Calibration failed in process 0: The calibration cache")


def test_who_is_interrupted_tells_the_others(findings: list[dict[str, Any]]) -> None:
    first, second = (found["interrupted"] for found in findings)
    assert isinstance(second, KeyboardInterrupt)
    assert str(first) == (
        "Calibration was interrupted in process 1. Calibrate again in all of them."
    )
    first, second = (found["choice"] for found in findings)
    assert isinstance(first, KeyboardInterrupt)
    assert str(second) == "Calibration failed in process 0: KeyboardInterrupt"


def test_after_an_interruption_they_calibrate_again(findings: list[dict[str, Any]]) -> None:
    first, second = (found["again"] for found in findings)
    alone = DataLoaderCalibrator([IMAGES[:4], IMAGES[:4]]).calibrate(make_request(SmallNet()))
    assert first == second == alone


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("weights", "The model of process 1 differs from that of process 0"),
        ("algo", "algo_type is CalibrationAlgo.MSE_CALIBRATION in process 1, and"),
        ("use_cache", "use_cache is True in process 1, and False in process 0"),
    ],
)
def test_processes_that_do_not_agree(findings: list[dict[str, Any]], name: str, said: str) -> None:
    for found in findings:
        assert found[name].startswith(said)


def test_a_process_that_has_gone(findings: list[dict[str, Any]]) -> None:
    assert findings[0]["gone"].startswith("The processes of torch.distributed have lost each other")


def _run_on_a_gpu(rank: int, folder: str) -> None:
    torch.cuda.set_device(rank)
    dist.init_process_group("nccl", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    request = dataclasses.replace(make_request(SmallNet()), device=torch.device("cuda", rank))
    sampler = DistributedSampler(IMAGES, drop_last=True)
    loader = DataLoader(IMAGES, batch_size=4, sampler=sampler)
    minmax, auto = CalibrationAlgo.MINMAX_CALIBRATION, CalibrationAlgo.AUTO_CALIBRATION
    tables = [
        DataLoaderCalibrator(loader, algo_type=algo, distributed=True).calibrate(request)
        for algo in (minmax, auto)
    ]
    torch.save((list(sampler), tables), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.gpu
@pytest.mark.two_gpus
def test_two_gpus_talk_through_nccl(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_run_on_a_gpu, (str(tmp_path),), nprocs=2)
    (indices, tables), (others, same) = (
        torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2)
    )
    assert tables == same
    used = IMAGES[sorted([*indices, *others])]
    alone = DataLoaderCalibrator([used], algo_type=CalibrationAlgo.MINMAX_CALIBRATION)
    expected = alone.calibrate(make_request(SmallNet()))
    assert dict(tables[0]) == pytest.approx(dict(expected), rel=1e-2)  # TF32
    assert tables[1].provenance.samples == 20


def test_without_a_process_group() -> None:
    calibrator = DataLoaderCalibrator([IMAGES], distributed=True)
    with pytest.raises(CalibrationError, match="no process group"):
        calibrator.calibrate(make_request(SmallNet()))
    with pytest.raises(SettingsError, match="distributed is 1"):
        DataLoaderCalibrator([IMAGES], distributed=1)  # type: ignore[arg-type]
