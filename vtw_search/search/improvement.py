"""The hypervolume of a front of accuracy against macs, and what a candidate may add to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

Values = NDArray[np.float64]


@dataclass(frozen=True)
class Front:
    """The best accuracy for every budget of macs, as steps.

    Attributes:
        edges: macs at which a step begins, rising; the last one is the reference's, at which the area ends.
        heights: accuracy below edges[0], then from each edge on to the next; it starts at the reference's and rises.
    """

    edges: Values
    heights: Values

    @classmethod
    def of(cls, points: Iterable[tuple[float, float]], macs: float, accuracy: float) -> Front:
        """Return the front of (macs, accuracy) points above a reference point; points beyond it count for nothing."""
        edges, heights = list[float](), [accuracy]
        for cost, value in sorted(points, key=lambda point: (point[0], -point[1])):
            if cost < macs and value > heights[-1]:
                edges.append(cost)
                heights.append(value)
        return cls(np.array([*edges, macs]), np.array(heights))

    @property
    def points(self) -> list[tuple[float, float]]:
        """The points that make the steps, by rising macs."""
        return list(zip(self.edges[:-1].tolist(), self.heights[1:].tolist(), strict=True))

    def and_(self, macs: float, accuracy: float) -> Front:
        """Return the front with one more point."""
        return Front.of([*self.points, (macs, accuracy)], float(self.edges[-1]), float(self.heights[0]))

    @property
    def hypervolume(self) -> float:
        """The area between the front and its reference point, in macs times accuracy."""
        return float(np.diff(self.edges) @ (self.heights[1:] - self.heights[0]))

    def expected_gain(self, macs: Values, mean: Values, deviation: Values) -> Values:
        """Return, per candidate, the expected growth of the hypervolume, where its accuracy is normally distributed.

        Over every step of the front that a candidate's macs can pay for, its accuracy exceeds the step's height by
        E[max(accuracy - height, 0)] on average (expected improvement, Mockus 1975), times the width of the step.
        """
        starts = np.concatenate([[-np.inf], self.edges[:-1]])
        widths = np.maximum(self.edges - np.maximum(starts, macs[:, None]), 0.0)
        above = mean[:, None] - self.heights
        score = above / deviation[:, None]
        density = np.exp(-0.5 * score**2) / np.sqrt(2 * np.pi)
        gain: Values = (widths * (above * ndtr(score) + deviation[:, None] * density)).sum(axis=1)
        return gain
