"""The kinds of cache layers that policies know, in whatever release of transformers.

A kind that a release lacks stands for itself: no layer is one. Models that need it are refused by `structural_problem`.
"""

from __future__ import annotations

from typing import Any

from transformers import cache_utils


def _kind(name: str) -> Any:
    return getattr(cache_utils, name, None) or type(name, (), {"__doc__": "Not in this release of transformers."})


# Holds keys and values of every token.
DynamicLayer = _kind("DynamicLayer")
# Holds those in a window.
DynamicSlidingWindowLayer = _kind("DynamicSlidingWindowLayer")
# Holds an index of the keys beside them (DeepSeek's sparse attention).
DynamicIndexedLayer = _kind("DynamicIndexedLayer")
# Holds nothing, since its layer reads the keys of an earlier one.
DummyLayer = _kind("DummyLayer")
TELLS_OF_SHARED_KEYS = hasattr(cache_utils, "DummyLayer")
