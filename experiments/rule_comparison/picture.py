"""The picture: what every K loses on the holdout, and how often each rule's K breaks the limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from experiments.rule_comparison.draws import Truth

STYLES = {
    "VTW's rule": ("#D55E00", "s", "-"),
    "VTW's rule from K = 1": ("#E69F00", "s", "--"),
    "KL alone": ("#0072B2", "^", "-"),
    "default": ("#009E73", "o", "-"),
}


def draw_comparison(
    truths: Mapping[str, Truth], outcomes: Mapping[str, Sequence[Any]], limits: Mapping[str, float],
    chosen: Mapping[str, Mapping[str, int]], path: Path,
) -> None:  # fmt: skip
    """Draw one column per task: drops over K with the rules' choices, and below shares of draws over eta."""
    figure, axes = plt.subplots(
        2, len(truths), figsize=(3.4 * len(truths), 6.4), sharey="row", squeeze=False, constrained_layout=True
    )
    for column, (task, truth) in enumerate(truths.items()):
        layers = range(1, len(truth.drops) + 1)
        top, bottom = axes[0, column], axes[1, column]
        top.set_title(task)
        lows, highs = zip(*truth.intervals, strict=True)
        top.fill_between(layers, lows, highs, color="#999999", alpha=0.3, linewidth=0)
        top.plot(layers, truth.drops, color="#222222", marker=".")
        top.axhline(limits[task], color="#222222", linestyle=":", linewidth=1.2)
        for place, (rule, layer_of) in enumerate(chosen.items()):
            color, marker, _ = STYLES[rule]
            layer = layer_of[task]
            top.plot([layer], [-0.06 - 0.045 * place], marker, color=color, markersize=7, clip_on=False)
        top.set_xlabel("withdrawal layer K")
        for rule, (color, marker, line) in STYLES.items():
            found = [each for each in outcomes[task] if each.rule == rule]
            bottom.plot(
                [each.eta for each in found], [100 * each.broken for each in found], line, color=color, marker=marker,
                markersize=5, label=rule,
            )  # fmt: skip
        bottom.axhline(5, color="#222222", linestyle=":", linewidth=1)
        bottom.set_xscale("log")
        bottom.set_xlabel("limit on the KL, nats")
        for axis in (top, bottom):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("accuracy drop on the holdout\n(dotted: limit; marks: K chosen)")
    axes[1, 0].set_ylabel("draws whose K breaks\nthe accuracy limit, %")
    axes[1, 0].legend(fontsize=8)
    figure.savefig(path, dpi=120)
    plt.close(figure)
