"""The scale of every quantized tensor, by calibration algorithm, as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

ENTROPY_COLOUR = "#1f6feb"
MINMAX_COLOUR = "#d9730d"
TEXT_COLOUR = "#333333"


def plot_scales(
    entropy: Mapping[str, float], minmax: Mapping[str, float], path: Path, *, title: str
) -> None:
    """Draw two scales for each tensor, in the order in which the network computes them.

    Args:
        entropy: Tensor name to scale, entropy calibration.
        minmax: The same tensors' scales by min-max calibration.
        path: PNG to write.
        title: Heading of the picture.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot, ticker

    names = list(entropy)
    rows = range(len(names))
    figure, axes = pyplot.subplots(figsize=(8, 1.7 + 0.29 * len(names)), layout="constrained")
    axes.hlines(
        rows,
        [entropy[name] for name in names],
        [minmax[name] for name in names],
        color="#b8bec6",
        linewidth=2.5,
        zorder=1,
    )
    # The second dot is smaller, so that both show where the scales are equal.
    for scales, label, colour, size in (
        (entropy, "entropy", ENTROPY_COLOUR, 80),
        (minmax, "min-max", MINMAX_COLOUR, 26),
    ):
        values = [scales[name] for name in names]
        axes.scatter(values, rows, s=size, color=colour, label=label, zorder=2)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 3, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(ticker.NullFormatter())
    axes.set_yticks(rows, names, family="monospace", fontsize=9)
    axes.invert_yaxis()  # the network's input on top
    axes.set_xlabel("scale: the value of one INT8 step (log)", color=TEXT_COLOUR)
    axes.set_title(title, loc="left", fontsize=11, color=TEXT_COLOUR, pad=26)
    axes.legend(
        loc="lower left", bbox_to_anchor=(-0.01, 1.0), ncols=2, frameon=False, borderaxespad=0.2
    )
    axes.grid(axis="x", which="major", color="#d5d9de", linewidth=0.8)
    axes.grid(axis="x", which="minor", color="#eceef1", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=TEXT_COLOUR, length=0, which="both")
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#9aa1a9")
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
