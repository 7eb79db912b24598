"""Whether an engine can run on this machine, found out before anything is launched."""

from __future__ import annotations

from trtcompile import _tensorrt
from trtcompile.engine import Provenance
from trtcompile.errors import TensorRTMissingError


def why_not_runnable(provenance: Provenance, gpu_id: int) -> str | None:
    """None if an engine can run on a GPU of this machine, else a sentence naming both sides."""
    targets = ", ".join(provenance.compute_capabilities)
    built = f"{provenance.flavour} {provenance.version} for compute capability {targets}"
    try:
        flavour = _tensorrt.load()
    except TensorRTMissingError:
        return f"the engine was built by {built}, and this machine has no TensorRT"
    if (flavour.name, flavour.version) != (provenance.flavour, provenance.version):
        return f"the engine was built by {built}, and this machine has {flavour}"
    here = _tensorrt.gpu_capability(gpu_id)
    if here is None:
        return f"the engine was built by {built}, and this machine has no GPU cuda:{gpu_id}"
    if here not in provenance.compute_capabilities:
        return f"the engine was built by {built}, and cuda:{gpu_id} of this machine has compute capability {here}"
    return None
