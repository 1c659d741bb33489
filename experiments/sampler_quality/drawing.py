"""Hypervolume against evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np


def draw(curves: Mapping[str, Sequence[Sequence[float]]], size: int, path: Path) -> None:
    """Draw, per sampler, the median and the band from the 10 % to the 90 % quantile over its runs."""
    figure, axis = plt.subplots(figsize=(10, 6), constrained_layout=True)
    colours = plt.get_cmap("tab10").colors  # type: ignore[attr-defined]
    for number, (name, found) in enumerate(curves.items()):
        # A run that stopped early has nothing more to find: it stays where it was.
        length = max(map(len, found))
        values = np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in found])
        low, middle, high = np.quantile(values, [0.1, 0.5, 0.9], axis=0)
        places, colour = np.arange(1, length + 1), colours[number % 10]
        axis.plot(places, middle, label=name, color=colour, linewidth=2.4 if name == "default" else 1.3)
        axis.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.axvline(size / 10, color="grey", linestyle=":")
    axis.axhline(0.99, color="grey", linestyle=":")
    axis.set_xscale("log")
    axis.set_xlim(10, size)
    axis.set_ylim(0.6, 1.01)
    axis.set_xlabel(f"evaluations, of {size:,}; dotted: a tenth")
    axis.set_ylabel("share of the true hypervolume; dotted: 99 %")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)
