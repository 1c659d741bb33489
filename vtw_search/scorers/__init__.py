"""Scorers: one file and one line of this table each."""

from vtw_search.errors import unknown_name
from vtw_search.scorers.base import (
    Attention,
    Scorer,
    Shape,
    View,
    Vision,
    VisionNeeds,
    complete,
    complete_options,
)
from vtw_search.scorers.fixed import Random, Uniform
from vtw_search.scorers.text_relevance import TextRelevance
from vtw_search.scorers.text_to_visual import TextToVisual
from vtw_search.scorers.vision import ClsAttention, ClsSimilarity, VisionReceived
from vtw_search.scorers.visual_received import VisualReceived

SCORERS: dict[str, Scorer] = {
    "text_to_visual": TextToVisual(),
    "visual_received": VisualReceived(),
    "cls_attention": ClsAttention(),
    "vision_received": VisionReceived(),
    "cls_similarity": ClsSimilarity(),
    "text_relevance": TextRelevance(),
    "random": Random(),
    "uniform": Uniform(),
}


def find_scorer(name: str) -> Scorer:
    """Return the scorer called `name`; UnknownNameError with near matches when there is none."""
    if name not in SCORERS:
        raise unknown_name("scorer", name, SCORERS)
    return SCORERS[name]


__all__ = [
    "SCORERS",
    "Attention",
    "Scorer",
    "Shape",
    "View",
    "Vision",
    "VisionNeeds",
    "complete",
    "complete_options",
    "find_scorer",
]
