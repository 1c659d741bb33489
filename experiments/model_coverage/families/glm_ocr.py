"""GLM-OCR: a dynamic-resolution ViT with q- and k-norms and a GLM decoder with a head size of its own and M-RoPE."""

from __future__ import annotations

from transformers import GlmOcrConfig
from transformers.models.glm_ocr.configuration_glm_ocr import GlmOcrTextConfig, GlmOcrVisionConfig

from experiments.model_coverage.families.glm4v import family

ROPE = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0, "mrope_section": [4, 4, 4]}
FAMILY = family("glm_ocr", GlmOcrConfig, GlmOcrTextConfig, GlmOcrVisionConfig, head_dim=24, rope_parameters=ROPE)
