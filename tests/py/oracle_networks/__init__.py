"""Small networks, each with an independent statement of what it computes.

They are written with the bare TensorRT API and nothing of the package under test. The oracle is
checked against the statements on the CPU, and against TensorRT's own engines where there is a GPU.
"""

from __future__ import annotations

from oracle_networks import (
    convolution,
    elementwise,
    indexing,
    linear,
    pooling,
    quantization,
    reduced_precision,
    resampling,
    shaping,
    slicing,
)
from oracle_networks.network_case import OracleNetwork

NETWORKS: list[OracleNetwork] = [
    *elementwise.NETWORKS,
    *convolution.NETWORKS,
    *pooling.NETWORKS,
    *linear.NETWORKS,
    *shaping.NETWORKS,
    *slicing.NETWORKS,
    *indexing.NETWORKS,
    *resampling.NETWORKS,
    *quantization.NETWORKS,
    *reduced_precision.NETWORKS,
]

__all__ = ["NETWORKS", "OracleNetwork"]
