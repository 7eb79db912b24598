"""Optimization profiles: the shapes that an engine is tuned for, several at a time."""

from __future__ import annotations

from collections.abc import Sequence

from trtcompile.dims import SizeRange
from trtcompile.errors import InputMismatchError, SettingsError
from trtcompile.inputs import Input, dim_ranges

Profiles = tuple[tuple[Input, ...], ...]


def resolve_profiles(
    inputs: Sequence[Input],
    optimization_profiles: Sequence[Sequence[tuple[str, SizeRange]]] | None,
) -> Profiles:
    """For each profile the inputs with its ranges; one profile of the inputs' own ranges if none are given.

    Args:
        inputs: the model's inputs.
        optimization_profiles: as in ``CompileSpec``. A dimension that a profile does not name has its own range.

    Raises:
        SettingsError: a profile names a dimension that no input has, or leaves its range.
    """
    own = dim_ranges(inputs)
    for index, profile in enumerate(optimization_profiles or ()):
        for name, (low, opt, high) in profile:
            if name not in own:
                raise SettingsError(
                    f"optimization profile {index} has the dimension {name!r}, and the inputs have "
                    f"{', '.join(map(repr, own)) or 'none with a name'}. Use trtcompile.Dim({name!r}, ...) in an Input."
                )
            least, _, most = own[name]
            if low < least or high > most:
                raise SettingsError(
                    f"optimization profile {index} has min {low} opt {opt} max {high} for {name!r}, which the inputs "
                    f"have from {least} to {most}. Stay within, or give the Dim a larger range."
                )
    return tuple(
        tuple(spec.with_ranges(dict(profile)) for spec in inputs)
        for profile in optimization_profiles or ((),)
    )


def check_in_a_profile(profiles: Profiles, shapes: Sequence[Sequence[int]]) -> None:
    """Checks that one profile takes all shapes together.

    Raises:
        InputMismatchError: none does.
    """
    for profile in profiles:
        if all(spec.accepts(shape) for spec, shape in zip(profile, shapes, strict=True)):
            return
    listed = "; ".join(_described(profile) for profile in profiles)
    raise InputMismatchError(
        f"the inputs have the shapes {', '.join(str(list(shape)) for shape in shapes)}, which no optimization profile "
        f"takes: {listed}. Pass shapes of one of them, or compile with a profile for these."
    )


def _described(profile: tuple[Input, ...]) -> str:
    ranges = dim_ranges(profile).items()
    return ", ".join(f"{name} min {low} opt {opt} max {high}" for name, (low, opt, high) in ranges)
