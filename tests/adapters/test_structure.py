"""What is read from a config about its decoder layers."""

from __future__ import annotations

import pytest

from experiments.model_coverage.families import find
from vtw_search.adapters import LayerCache, layer_caches, layer_kinds

# 2 key-value heads of 8 numbers; a window of 8; latents of 16 numbers and 8 rotary ones, and 16 of an index.
CACHES = {
    "llava": [LayerCache(2 * 2 * 8, None)] * 6,
    "kimi_k25": [LayerCache(16 + 8, None)] * 6,
    "dots3_note": [
        LayerCache(16 + 8 + 16, None) if full else LayerCache(24 + 8, 8) for full in (1, 1, 0, 0, 0, 1, 0, 0, 0, 1)
    ],
}


@pytest.mark.parametrize("name", CACHES)
def test_what_each_layer_holds(name: str) -> None:
    assert layer_caches(find(name).config()) == CACHES[name]


def test_layers_that_read_the_keys_of_others_hold_nothing() -> None:
    config = find("gemma4").config()
    shared = config.get_text_config().num_kv_shared_layers
    held = [layer.width > 0 for layer in layer_caches(config)]
    assert shared > 0
    assert held == [True] * (len(held) - shared) + [False] * shared
    assert set(layer_kinds(config)) == {"full_attention", "sliding_attention"}


def test_a_config_without_layer_types_has_one_kind() -> None:
    assert layer_kinds(find("llava").config()) == ["full_attention"] * 6
