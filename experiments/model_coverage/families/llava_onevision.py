"""LLaVA-OneVision: a SigLIP tower and a Qwen2 decoder; tiles for a row's only image, one tile for each of several."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

from experiments.model_coverage.families.llava_next import IMAGE, VIDEO, Tiling
from experiments.model_coverage.tiny import Inputs, TinyFamily

FRAMES = 2


class Rows(TinyFamily):
    """A family that makes fewer tokens of an image that is not the only one of its row."""

    def inputs(self, rows: Sequence[Sequence[str]], words: int = 6, seed: int = 0) -> Inputs:
        """Return a left-padded batch, with the number of images of every row that has some."""
        counts = [sum(kind != "video" for kind in kinds) for kinds in rows]
        rows = [
            ["one of several" if kind != "video" and count > 1 else kind for kind in kinds]
            for kinds, count in zip(rows, counts, strict=True)
        ]
        inputs = super().inputs(rows, words, seed)
        return inputs | ({"batch_num_images": torch.tensor([n for n in counts if n])} if any(counts) else {})


def _config() -> LlavaOnevisionConfig:
    vision = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=12, patch_size=4,
        vision_use_head=False,
    )  # fmt: skip
    text = Qwen2Config(
        hidden_size=32, intermediate_size=48, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=99, pad_token_id=0,
    )  # fmt: skip
    return LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE, video_token_index=VIDEO,
        image_grid_pinpoints=[[12, 12], [12, 24], [24, 12], [24, 24]], vision_aspect_ratio="anyres_max_2",
    )  # fmt: skip


TILING = Tiling(
    sizes={"small": (12, 12), "large": (16, 24), "one of several": (12, 12)},
    tiles={"small": 2, "large": 5, "one of several": 1},
    tokens={"small": 9 + 3 * (3 + 1), "large": 9 + 3 * (5 + 1), "one of several": 9 + 1, "video": FRAMES * 4 + 1},
    side=12, frames=FRAMES,
)  # fmt: skip
KINDS = ("small", "large", "video")
FAMILY = Rows("llava_onevision", _config, TILING.image_tokens, TILING.features, kinds=KINDS)
