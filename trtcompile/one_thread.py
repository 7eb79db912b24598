"""One thread at a time may compile: tracing changes states of PyTorch's that all threads share."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator


@contextlib.contextmanager
def one_thread_at_a_time() -> Iterator[None]:
    """Waits for compilations of other threads, ``torch.compile``'s included, and lets no other begin.

    The lock is PyTorch's own. With another one, a thread in which ``torch.compile`` calls the backend would hold the
    first and wait for the second, and a thread whose export comes to ``torch.cond`` the reverse.
    """
    from torch._dynamo.convert_frame import compile_lock

    with compile_lock:
        yield
