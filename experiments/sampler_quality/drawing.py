"""Hypervolume against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes

# Title -> whose curves, drawn over each other in this order.
PANELS = {
    "What makes the default": (
        "random", "tpe", "random, ordered by the proxy, no layer sweep", "random, ordered by the proxy", "default",
    ),
    "Optuna's samplers by themselves": ("random", "nsga2", "nsga3", "qmc", "gp", "tpe", "default"),
}  # fmt: skip
# Samplers that propose the same lie under each other: dashes of different length let all of them be seen.
_DASHES = {"nsga2": (0, (6, 6)), "nsga3": (6, (6, 6))}
_COLOURS = {
    name: plt.get_cmap("tab10")(place)
    for place, name in enumerate(dict.fromkeys(name for names in PANELS.values() for name in names))
}


def draw(curves: Mapping[str, Sequence[Sequence[float]]], size: int, path: Path) -> None:
    """Draw, per sampler, the median and the band from the 10 % to the 90 % quantile over its runs."""
    figure, axes = plt.subplots(1, 2, figsize=(13, 5.5), sharey=True, constrained_layout=True)
    for axis, (title, names) in zip(axes, PANELS.items(), strict=True):
        for name in names:
            if name in curves:
                _draw_curve(axis, name, curves[name])
        axis.axvline(size / 10, color="grey", linestyle=":")
        axis.axhline(0.99, color="grey", linestyle=":")
        axis.set_xscale("log")
        axis.set_xlim(10, size)
        axis.set_ylim(0.6, 1.01)
        axis.set_title(title)
        axis.set_xlabel(f"evaluations, of {size:,}; dotted: a tenth")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=9, loc="lower right")
    axes[0].set_ylabel("share of the true hypervolume; dotted: 99 %")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _draw_curve(axis: Axes, name: str, found: Sequence[Sequence[float]]) -> None:
    # A run that stopped early has nothing more to find: it stays where it was.
    length = max(map(len, found))
    values = np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in found])
    low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
    places, colour = np.arange(1, length + 1), _COLOURS[name]
    width = 2.4 if name == "default" else 1.4
    axis.plot(places, middle, label=name, color=colour, linewidth=width, linestyle=_DASHES.get(name, "-"))
    axis.fill_between(places, low, high, color=colour, alpha=0.12, linewidth=0)
