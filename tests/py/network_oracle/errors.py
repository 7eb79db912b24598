"""What the interpreter raises instead of guessing."""

from __future__ import annotations


class UnsupportedLayer(NotImplementedError):  # noqa: N818 - the name callers know
    """A layer kind, attribute or value whose result the interpreter does not model."""


class NetworkMismatchError(AssertionError):
    """The network contradicts itself or its inputs: a shape, a type, an index out of bounds."""
