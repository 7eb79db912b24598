"""Compiles CUDA C++ while the program runs, with the NVRTC library that PyTorch comes with.

``torch.utils.cpp_extension`` and PyTorch's own use of NVRTC need an installed CUDA toolkit; this
needs none, and no compiler.
"""

from __future__ import annotations

import ctypes


class NvrtcError(Exception):
    """There is no NVRTC, or it refuses the source; the message holds the compiler's log."""


def compiled(source: str, name: str, architecture: str) -> bytes:
    """Machine code of a CUDA C++ source without ``#include``.

    Args:
        source: the source.
        name: its file name, in messages.
        architecture: such as ``sm_90``.

    Raises:
        NvrtcError: there is no NVRTC, or it does not compile the source for the architecture.
    """
    try:
        from torch.cuda._utils import _get_gpu_rtc_library

        library = _get_gpu_rtc_library()
    except (ImportError, OSError, AttributeError) as error:  # AttributeError: PyTorch without CUDA
        raise NvrtcError(f"NVRTC cannot be loaded: {error}") from error
    program = ctypes.c_void_p()
    _check(
        library,
        library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), name.encode(), 0, None, None
        ),
    )
    try:
        options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
        arguments = (ctypes.c_char_p * len(options))(*options)
        if library.nvrtcCompileProgram(program, len(options), arguments):
            raise NvrtcError(
                f"{name} does not compile for {architecture}:\n{_log(library, program)}"
            )
        size = ctypes.c_size_t()
        _check(library, library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        code = ctypes.create_string_buffer(size.value)
        _check(library, library.nvrtcGetCUBIN(program, code))
        return code.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _check(library: ctypes.CDLL, status: int) -> None:
    if status:
        raise NvrtcError(f"NVRTC fails with status {status}")


def _log(library: ctypes.CDLL, program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _check(library, library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
    log = ctypes.create_string_buffer(size.value)
    _check(library, library.nvrtcGetProgramLog(program, log))
    return log.value.decode(errors="replace")
