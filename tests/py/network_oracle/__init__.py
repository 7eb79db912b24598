"""Reference interpreter for TensorRT network definitions.

An ``INetworkDefinition`` is read back layer by layer and evaluated in PyTorch on the CPU from
TensorRT's documented semantics. Nothing here knows how the network was made: the package imports
neither the code under test nor TensorRT itself (the module is found through the network's class),
so the same interpreter serves every flavour of TensorRT.
"""

from __future__ import annotations

from network_oracle.errors import NetworkMismatchError, UnsupportedLayer
from network_oracle.interpreter import run_network, supported_layer_types

__all__ = ["NetworkMismatchError", "UnsupportedLayer", "run_network", "supported_layer_types"]
