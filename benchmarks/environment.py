"""The machine, versions, and commit that a result belongs to."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

import torch

from trtcompile import _tensorrt
from trtcompile.errors import TensorRTMissingError

REPOSITORY = Path(__file__).resolve().parents[1]

_STATIC = ("driver_version", "clocks.max.sm", "clocks.max.mem", "power.limit")
_CHANGING = (
    "clocks.sm",
    "clocks.mem",
    "temperature.gpu",
    "power.draw",
    "pstate",
    "clocks_event_reasons.active",
)


def describe(commit: str | None = None) -> dict[str, Any]:
    """Everything about the environment as JSON-able values.

    Args:
        commit: the commit to name; None asks git, which may not be there.
    """
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit or _git("rev-parse", "HEAD"),
        "uncommitted_changes": _uncommitted_changes(),
        "versions": _versions(),
        "machine": {"processor": _processor(), "cores": os.cpu_count(), **_gpu()},
    }


def clocks() -> dict[str, str]:
    """Clocks, temperature, and power of the current GPU at this moment, as nvidia-smi words them."""
    return _nvidia_smi(_CHANGING)


def _gpu() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"gpu": None}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return {
        "gpu": properties.name,
        "compute_capability": f"{properties.major}.{properties.minor}",
        "multiprocessors": properties.multi_processor_count,
        "memory_bytes": properties.total_memory,
        **_nvidia_smi(_STATIC),
    }


def _nvidia_smi(fields: tuple[str, ...]) -> dict[str, str]:
    program = shutil.which("nvidia-smi")
    if program is None or not torch.cuda.is_available():
        return {}
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    answer = _query(program, f"GPU-{properties.uuid}", fields)
    if answer is not None:
        return answer
    # One name that a driver does not know fails a whole query.
    answers = (_query(program, f"GPU-{properties.uuid}", (field,)) for field in fields)
    return {key: value for answer in answers if answer for key, value in answer.items()}


def _query(program: str, gpu: str, fields: tuple[str, ...]) -> dict[str, str] | None:
    command = [program, f"--id={gpu}", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    values = [value.strip() for value in done.stdout.strip().split(",")]
    if done.returncode != 0 or len(values) != len(fields):
        return None
    return dict(zip(fields, values, strict=True))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("torch", "torchvision", "onnx", "numpy"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    versions["cuda"] = torch.version.cuda
    try:
        flavour = _tensorrt.load()
        versions[flavour.name] = flavour.version
    except TensorRTMissingError:
        versions["TensorRT"] = None
    return versions


def _git(*arguments: str) -> str | None:
    # A copy of the tree without its history may lie inside another repository.
    if shutil.which("git") is None or not (REPOSITORY / ".git").exists():
        return None
    command = ["git", "-C", str(REPOSITORY), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None


def _uncommitted_changes() -> bool | None:
    status = _git("status", "--porcelain", "--untracked-files=no")
    return None if status is None else bool(status)
