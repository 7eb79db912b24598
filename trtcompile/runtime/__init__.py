"""Running engines: sessions, the compiled module, and files."""

from trtcompile.runtime.compatibility import why_not_runnable
from trtcompile.runtime.module import TRTModule

__all__ = ["TRTModule", "why_not_runnable"]
