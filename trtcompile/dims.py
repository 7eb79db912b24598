"""``Dim``: a dimension with a name, which several inputs can share."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any

import torch

from trtcompile.errors import SettingsError

#: The min, opt, and max size of a dimension.
SizeRange = tuple[int, int, int]

#: Above this, PyTorch means "no upper bound".
UNBOUNDED = 2**31


@dataclass(frozen=True)
class Dim:
    """A named dimension of a range of sizes: ``Input((Dim("batch", min=1, opt=8, max=32), 3, 224, 224))``.

    Wherever the name is used, in one ``Input`` or in several, the sizes are equal.

    Args:
        name: an identifier.
        min: the smallest size accepted.
        opt: the size that the engine is tuned for.
        max: the largest size accepted.

    Raises:
        SettingsError: the name is no identifier, or not min <= opt <= max.
    """

    name: str
    _: KW_ONLY
    min: int
    opt: int
    max: int

    def __post_init__(self) -> None:
        check_name(self.name)
        sizes = (self.min, self.opt, self.max)
        if any(not is_size(size) for size in sizes):
            raise SettingsError(
                f"Dim {self.name!r} has min {self.min!r}, opt {self.opt!r}, max {self.max!r}. Use whole numbers of at "
                "least 0."
            )
        if not self.min <= self.opt <= self.max:
            raise SettingsError(
                f"Dim {self.name!r} has min {self.min}, opt {self.opt}, max {self.max}. It needs min <= opt <= max."
            )

    @property
    def sizes(self) -> SizeRange:
        """The min, opt, and max size."""
        return self.min, self.opt, self.max

    @classmethod
    def from_torch(cls, dim: Any) -> Dim:
        """Reads a ``torch.export.Dim``; the engine is tuned for its max.

        Raises:
            SettingsError: it has no max, or is computed from another, as in ``2 * batch``.
        """
        if type(dim) is not torch.export.Dim:
            raise SettingsError(
                f"an Input has the size {dim!r}, which has no range of its own. Use trtcompile.Dim(name, min=..., "
                "opt=..., max=...)."
            )
        if dim.max >= UNBOUNDED:
            raise SettingsError(
                f"torch.export.Dim {dim.__name__!r} has no max, and an engine needs an upper bound for each size. "
                f"Give it one: Dim({dim.__name__!r}, min=1, max=32)."
            )
        return cls(dim.__name__, min=int(dim.min), opt=int(dim.max), max=int(dim.max))


def check_name(name: Any) -> None:
    """Checks the name of a dimension.

    Raises:
        SettingsError: it is no identifier.
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise SettingsError(
            f"a dimension has the name {name!r}. Use an identifier such as 'batch'."
        )


def is_dim(value: Any) -> bool:
    """Whether a size of a shape is a dimension rather than a number."""
    return isinstance(value, (Dim, torch.export.Dim, type(torch.export.Dim.AUTO)))


def is_size(value: Any) -> bool:
    """Whether a value is a whole number of at least 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
