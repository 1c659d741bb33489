"""GLM-GA: the GLM-4.1V tower and decoder in a wrapper of its own."""

from __future__ import annotations

from transformers import GlmgaConfig

from experiments.model_coverage.families.glm4v import family

FAMILY = family("glmga", GlmgaConfig)
