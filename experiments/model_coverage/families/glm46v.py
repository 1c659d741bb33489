"""GLM-4.6V: the GLM-4.1V tower and decoder in a wrapper of its own."""

from __future__ import annotations

from transformers import Glm46VConfig

from experiments.model_coverage.families.glm4v import family

FAMILY = family("glm46v", Glm46VConfig)
