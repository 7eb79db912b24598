"""How long each stage of a compilation takes, seen from outside."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

from trtcompile import compiler

#: The functions that ``trtcompile.compiler`` calls in turn; none of them calls another one.
STAGES = (
    "capture",
    "lower",
    "graph_hash",
    "quantize",
    "assign_fp16",
    "judge",
    "partition",
    "make_report",
    "convert",
    "build_engine",
)
#: The stage that NVIDIA's builder works in.
BUILDER = "build_engine"


@contextlib.contextmanager
def timed_stages() -> Iterator[dict[str, float]]:
    """Within this context, ``trtcompile.compile`` adds the seconds of its stages to the dictionary.

    Raises:
        AttributeError: the compiler has no such stage any more.
    """
    seconds = dict.fromkeys(STAGES, 0.0)

    def timed(name: str) -> Any:
        function = getattr(compiler, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                seconds[name] += time.perf_counter() - start

        return call

    with contextlib.ExitStack() as stack:
        for name in STAGES:
            stack.enter_context(mock.patch.object(compiler, name, timed(name)))
        yield seconds
