"""Qwen3-VL (2025): M-RoPE, deepstack, and a marked run of video tokens per frame."""

from __future__ import annotations

from vtw_search.adapters.deepstack import DeepstackAdapter


class Qwen3VLAdapter(DeepstackAdapter):
    """Images and videos have placeholders of their own; time stamps between the frames are text."""

    class_name = "Qwen3VLForConditionalGeneration"
