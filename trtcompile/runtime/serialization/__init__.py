"""Compiled modules as files: one zip of JSON and raw bytes, with nothing in it that could be executed on reading."""

from trtcompile.runtime.serialization.load import load
from trtcompile.runtime.serialization.save import save

__all__ = ["load", "save"]
