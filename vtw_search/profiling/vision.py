"""Which vision parts can be counted and timed without a prompt."""

from __future__ import annotations

from typing import Any

from profilers.shapes import ProjectorShape, TowerShape
from vtw_search.adapters import Adapter, has_known_call


def vision_parts(adapter: Adapter, model: Any) -> tuple[TowerShape, ProjectorShape] | None:
    """Return the shapes of tower and projector; None where `left_out` says why."""
    shape = adapter.shape(model)
    if shape.tower is None or shape.projector is None or not has_known_call(adapter.tower(model)):
        return None
    return shape.tower, shape.projector


def left_out(adapter: Adapter, model: Any) -> list[str]:
    """Return why the vision parts are not counted without a prompt; empty where they are."""
    shape = adapter.shape(model)
    if shape.tower is None or shape.projector is None:
        return [reason for _, reason in shape.not_described]
    tower = adapter.tower(model)
    return [] if has_known_call(tower) else [f"{type(tower).__name__} takes more than pictures, or patches with sizes"]
