"""Which vision parts can be counted and timed without a prompt."""

from __future__ import annotations

from typing import Any

from profilers.shapes import Grid, ProjectorShape, TowerShape
from vtw_search.adapters import Adapter, has_known_call


def vision_parts(adapter: Adapter, model: Any) -> tuple[TowerShape, ProjectorShape] | None:
    """Return the shapes of tower and projector; None where `left_out` says why."""
    shape = adapter.shape(model)
    if shape.tower is None or shape.projector is None or not has_known_call(adapter.tower(model)):
        return None
    return shape.tower, shape.projector


def left_out(adapter: Adapter, model: Any) -> tuple[str, ...]:
    """Return why the vision parts are neither counted nor timed without a prompt, by part; empty where they are."""
    shape = adapter.shape(model)
    reasons = dict(shape.not_described)
    if shape.tower is not None and not has_known_call(tower := adapter.tower(model)):
        reasons["tower"] = f"{type(tower).__name__} takes more than pictures, or patches with sizes"
    if reasons:
        # How many images a row has is known from both alone, so that one part is left out with the other.
        reasons = {part: reasons.get(part, "left out with the other part") for part in ("tower", "projector")}
    return tuple(f"{part}: {reason}" for part, reason in reasons.items())


def tokens_of_an_image(adapter: Adapter, model: Any, projector: ProjectorShape) -> int:
    """Return the visual tokens of one image of the tower's own size."""
    rows, columns = adapter.default_grid(model)
    return rows * columns // projector.merge


def images_of_a_row(adapter: Adapter, model: Any, projector: ProjectorShape, visual_tokens: int) -> list[Grid]:
    """Return the patches of the images, all of the tower's own size, that a row with `visual_tokens` has."""
    count = max(1, -(-visual_tokens // tokens_of_an_image(adapter, model, projector)))
    return [adapter.default_grid(model)] * count
