"""PaliGemma (Beyer et al. 2024): the whole prompt attends in both directions, only the answer is causal."""

from __future__ import annotations

from vtw_search.adapters.base import IMAGE, Adapter


class PaliGemmaAdapter(Adapter):
    """The prefix mask is at full length and is cut with the tokens."""

    class_name = "PaliGemmaForConditionalGeneration"
    modalities = (IMAGE,)
    needs_image = True

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt; the checkpoints have no chat template."""
        return "<image>" * images + prompt
