"""Calibrators that are interrupted, used again, and fed by workers."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from small_requests import SmallNet, make_request
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from trtcompile.errors import CalibrationWarning
from trtcompile.ptq import CalibrationAlgo, CalibrationTable, DataLoaderCalibrator
from trtcompile.ptq.histogram import AbsHistogram
from trtcompile.ptq.request import CalibrationRequest

IMAGES = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 3
OTHERS = torch.randn(12, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def request_() -> CalibrationRequest:
    return make_request(SmallNet())


@pytest.fixture
def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "calibration.cache"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class Interrupted:
    """A loader during whose first pass the user gives up after some batches."""

    def __init__(self, after: int) -> None:
        self.after: int | None = after

    def __iter__(self) -> Iterator[Tensor]:
        for number, batch in enumerate(IMAGES.split(4)):
            if number == self.after:
                self.after = None
                raise KeyboardInterrupt
            yield batch


class Call:
    """A method that the user interrupts at one of its calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, at: int) -> None:
        self.left = at
        real = getattr(owner, name)

        def method(*args: Any, **kwargs: Any) -> Any:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            return real(*args, **kwargs)

        monkeypatch.setattr(owner, name, method)


def expected_table(request: CalibrationRequest) -> CalibrationTable:
    return DataLoaderCalibrator([IMAGES]).calibrate(request)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_interrupted_data(after: int, request_: CalibrationRequest, cache_file: Path) -> None:
    calibrator = DataLoaderCalibrator(Interrupted(after), cache_file=cache_file)
    state = torch.get_rng_state()
    with pytest.raises(KeyboardInterrupt):
        calibrator.calibrate(request_)
    assert contents(cache_file.parent) == {}
    assert torch.equal(torch.get_rng_state(), state)
    assert calibrator.calibrate(request_) == expected_table(request_)  # nothing counted twice
    assert set(contents(cache_file.parent)) == {"calibration.cache", "calibration.cache.json"}


@pytest.mark.parametrize("at", [1, 5])
def test_interrupted_statistics(
    at: int, request_: CalibrationRequest, cache_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = expected_table(request_)
    calibrator = DataLoaderCalibrator([IMAGES], cache_file=cache_file)
    Call(monkeypatch, AbsHistogram, "update", at)
    with pytest.raises(KeyboardInterrupt):
        calibrator.calibrate(request_)
    assert contents(cache_file.parent) == {}
    assert calibrator.calibrate(request_) == expected


@pytest.mark.parametrize(
    ("name", "at"), [("open", 1), ("open", 2), ("replace", 1), ("replace", 2), ("unlink", 1)]
)
@pytest.mark.parametrize("is_new", [False, True])
def test_interrupted_writing(
    name: str,
    at: int,
    is_new: bool,
    request_: CalibrationRequest,
    cache_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever is there afterwards is whole, and what does not belong together is noticed."""
    before: dict[str, bytes] = {}
    if not is_new:
        DataLoaderCalibrator([OTHERS], cache_file=cache_file).calibrate(request_)
        before = contents(cache_file.parent)
    calibrator = DataLoaderCalibrator([IMAGES], cache_file=cache_file)
    with monkeypatch.context() as patched:
        Call(patched, Path, name, at)
        with pytest.raises(KeyboardInterrupt):
            calibrator.calibrate(request_)
    after = contents(cache_file.parent)
    whole = expected_table(request_)
    if (name, at) == ("replace", 2):  # the new text is there, its sidecar not yet
        reader = DataLoaderCalibrator([], cache_file=cache_file, use_cache=True)
        with pytest.warns(CalibrationWarning, match="used unverified"):
            assert reader.calibrate(request_) == whole
    elif name != "unlink":
        assert after == before
    assert calibrator.calibrate(request_) == whole
    again = DataLoaderCalibrator([], cache_file=cache_file, use_cache=True)
    assert again.calibrate(request_) == whole
    leftovers = set(contents(cache_file.parent)) - {"calibration.cache", "calibration.cache.json"}
    assert len(leftovers) <= (1 if name == "unlink" else 0)


def test_an_interrupted_calibration_forgets_the_last_one(request_: CalibrationRequest) -> None:
    calibrator = DataLoaderCalibrator([IMAGES])
    calibrator.calibrate(request_)
    calibrator.dataloader = Interrupted(1)
    with pytest.raises(KeyboardInterrupt):
        calibrator.calibrate(request_)
    calibrator.dataloader = [IMAGES]
    other = make_request(SmallNet(1))
    assert calibrator.calibrate(other) == expected_table(other)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are sent otherwise on Windows")
def test_ctrl_c_ends_a_calibration_with_workers(tmp_path: Path) -> None:
    """A real SIGINT: the process ends with KeyboardInterrupt, its workers too, and no file is there."""
    script = tmp_path / "calibrate.py"
    script.write_text(
        textwrap.dedent(
            """
            import signal, time, torch
            from small_requests import SmallNet, make_request
            from torch.utils.data import DataLoader, Dataset
            from trtcompile.ptq import DataLoaderCalibrator

            class Endless(Dataset):
                def __len__(self):
                    return 10**9

                def __getitem__(self, index):
                    if index == 8:
                        print("running", flush=True)
                    return torch.ones(3, 32, 32)

            if __name__ == "__main__":
                # Started in the background, a process inherits that SIGINT is ignored.
                signal.signal(signal.SIGINT, signal.default_int_handler)
                loader = DataLoader(Endless(), batch_size=4, num_workers=1)
                calibrator = DataLoaderCalibrator(loader, cache_file="out/calibration.cache")
                calibrator.calibrate(make_request(SmallNet()))
            """
        )
    )
    (tmp_path / "out").mkdir()
    here = Path(__file__).resolve()
    environment = {"PYTHONPATH": f"{here.parent}:{here.parents[3]}", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(
        [sys.executable, str(script)],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "running\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)  # ends only when workers have closed the pipes
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said
    assert list((tmp_path / "out").iterdir()) == []


class Augmented(Dataset[Tensor]):
    """Draws from PyTorch's random state, as transforms do."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Tensor:
        return IMAGES[index] * (1 + torch.rand(()))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "algo", [CalibrationAlgo.ENTROPY_CALIBRATION_2, CalibrationAlgo.AUTO_CALIBRATION]
)
def test_a_seed_decides(workers: int, algo: CalibrationAlgo, request_: CalibrationRequest) -> None:
    loader = DataLoader(Augmented(), batch_size=5, shuffle=True, num_workers=workers)
    calibrator = DataLoaderCalibrator(loader, algo_type=algo)
    tables = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        tables.append(calibrator.calibrate(request_))
    assert tables[0] == tables[1]
    assert tables[0] != tables[2]


def test_persistent_workers_serve_several_models() -> None:
    loader = DataLoader(list(IMAGES), batch_size=5, num_workers=1, persistent_workers=True)
    calibrator = DataLoaderCalibrator(loader)
    for seed in range(2):
        request = make_request(SmallNet(seed))
        assert calibrator.calibrate(request) == expected_table(request)
