"""ViP-LLaVA (Cai et al. 2024): LLaVA on features of several tower layers."""

from __future__ import annotations

from vtw_search.adapters.base import IMAGE, Adapter


class VipLlavaAdapter(Adapter):
    """One block of placeholder tokens per image, all images of one size."""

    class_name = "VipLlavaForConditionalGeneration"
    modalities = (IMAGE,)

    def plain_prompt(self, processor: object, prompt: str, images: int) -> str:
        """Return the prompt of the released checkpoints."""
        return "###Human: " + "<image>\n" * images + prompt + "###Assistant:"
