"""From a graph of ATen operators to a TensorRT network definition."""

from trtcompile.conversion import ops as _ops  # noqa: F401  (importing it fills the registry)
from trtcompile.conversion.interpreter import NetworkDefinition, convert
from trtcompile.conversion.registry import REGISTRY, Converter, Registry, converter

__all__ = ["REGISTRY", "Converter", "NetworkDefinition", "Registry", "convert", "converter"]
