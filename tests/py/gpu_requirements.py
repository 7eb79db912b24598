"""Whether this machine can run an engine, asked of PyTorch and of the installed packages."""

from __future__ import annotations

import importlib.util

import torch

# What TensorRT-RTX has targets for; datacentre GPUs since Hopper are not among them.
RTX_CAPABILITIES = ((7, 5), (8, 0), (8, 6), (8, 9), (12, 0), (12, 1))


def missing_for_gpu_tests() -> str | None:
    """What a GPU test lacks here, and what would lift it; None where it can run."""
    if not torch.cuda.is_available():
        return "PyTorch sees no CUDA GPU: run on a machine with an NVIDIA GPU and its driver"
    if importlib.util.find_spec("tensorrt") is not None:
        return None
    if importlib.util.find_spec("tensorrt_rtx") is None:
        return "no TensorRT is installed: pip install 'trtcompile[tensorrt]'"
    capability = torch.cuda.get_device_capability()
    if capability not in RTX_CAPABILITIES:
        return (
            f"TensorRT-RTX does not run on compute capability {capability[0]}.{capability[1]}: "
            "pip install 'trtcompile[tensorrt]'"
        )
    return None


def missing_for_two_gpus() -> str | None:
    """What a test with two GPUs lacks on a machine that can run GPU tests; None where it can run."""
    count = torch.cuda.device_count()
    if count >= 2:
        return None
    return f"this machine has {count} CUDA GPU: run on one with two"
