"""The JSON that ``--summary PATH`` writes: outcomes, commit, versions, and device of a test run."""

from __future__ import annotations

import datetime
import importlib
import importlib.util
import json
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

REPOSITORY = Path(__file__).resolve().parents[2]
COUNTED = ("passed", "skipped", "xfailed", "xpassed", "deselected")
FAILED = ("failed", "error")


def write_summary(
    path: Path, stats: Mapping[str, Sequence[Any]], exit_status: int, commit: str | None
) -> None:
    """Writes the summary to ``path`` in one step, so that a reader never sees half of it."""
    failures = sorted(report.nodeid for outcome in FAILED for report in stats.get(outcome, ()))
    summary = {
        "failed": len(failures),
        **{outcome: len(stats.get(outcome, ())) for outcome in COUNTED},
        "exit_status": exit_status,
        "failures": failures,
        "skips": dict(sorted((r.nodeid, _reason(r)) for r in stats.get("skipped", ()))),
        "seconds": round(sum(getattr(r, "duration", 0.0) for r in _reports(stats)), 1),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "commit": commit or _git("rev-parse", "HEAD"),
        "uncommitted_changes": _uncommitted_changes(),
        "versions": _versions(),
        "device": _device(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(summary, indent=2) + "\n")
    partial.replace(path)


def _reports(stats: Mapping[str, Sequence[Any]]) -> list[Any]:
    # "" has the set-up and tear-down phases of tests that went well.
    return [report for outcome in (*COUNTED, *FAILED, "") for report in stats.get(outcome, ())]


def _reason(report: Any) -> str:
    where = report.longrepr
    return str(where[2] if isinstance(where, tuple) else where).removeprefix("Skipped: ")


def _git(*arguments: str) -> str | None:
    if shutil.which("git") is None:
        return None
    done = subprocess.run(
        ["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() if done.returncode == 0 else None


def _uncommitted_changes() -> bool | None:
    status = _git("status", "--porcelain", "--untracked-files=no")
    return None if status is None else bool(status)


def _versions() -> dict[str, str | None]:
    versions = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
    }
    for package in ("tensorrt", "tensorrt_rtx"):
        if importlib.util.find_spec(package) is not None:
            versions[package] = importlib.import_module(package).__version__
    return versions


def _device() -> dict[str, str | None]:
    if not torch.cuda.is_available():
        return {"gpu": None, "cpu": platform.processor() or platform.machine()}
    major, minor = torch.cuda.get_device_capability()
    return {
        "gpu": torch.cuda.get_device_name(),
        "compute_capability": f"{major}.{minor}",
        "driver": _driver(),
    }


def _driver() -> str | None:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else None
