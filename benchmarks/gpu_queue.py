"""Commands run side by side, one at a time on each GPU."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Job:
    """A command.

    Attributes:
        name: names its log file.
        command: program and arguments.
        seconds: what it may take; then it is killed.
        needs: what must be left for it to be begun; a benchmark that ends by itself in time needs less than it may
            take.
    """

    name: str
    command: Sequence[str]
    seconds: float
    needs: float = 0.0


@dataclass(frozen=True)
class Done:
    """How a job ended; ``problem`` is None where its exit status was 0."""

    job: Job
    seconds: float
    problem: str | None


def run_jobs(
    jobs: Sequence[Job], gpus: Sequence[str | None], logs: Path, time_limit: float | None = None
) -> Iterator[Done]:
    """Runs jobs in their order, and yields each when it has ended.

    Args:
        jobs: the commands.
        gpus: numbers of GPUs, each of which is the only one that its jobs see; None leaves the environment as it is.
        logs: folder for the output of each job.
        time_limit: seconds for all together. No job is begun that needs more than what is left, and one that runs into
            the end is killed.
    """
    logs.mkdir(parents=True, exist_ok=True)
    end = None if time_limit is None else time.monotonic() + time_limit
    waiting = iter(jobs)
    lock = threading.Lock()
    ended: queue.Queue[Done | None] = queue.Queue()

    def work(gpu: str | None) -> None:
        while True:
            with lock:
                job = next(waiting, None)
            if job is None:
                ended.put(None)
                return
            ended.put(_run(job, gpu, logs, end))

    for gpu in gpus:
        threading.Thread(target=work, args=(gpu,), daemon=True).start()
    working = len(gpus)
    while working:
        done = ended.get()
        if done is None:
            working -= 1
        else:
            yield done


def _run(job: Job, gpu: str | None, logs: Path, end: float | None) -> Done:
    start = time.monotonic()
    allowed = job.seconds if end is None else min(job.seconds, end - start)
    if allowed < job.needs or allowed <= 0:
        return Done(job, 0.0, "not begun: the time limit leaves too little")
    environment = dict(os.environ)
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    with (logs / f"{job.name}.log").open("w") as log:
        try:
            done = subprocess.run(
                list(job.command),
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                timeout=allowed,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Done(job, time.monotonic() - start, f"killed after {allowed:.0f} s")
    problem = None if done.returncode == 0 else f"exit status {done.returncode}"
    return Done(job, time.monotonic() - start, problem)
