"""LLaVA (Liu et al. 2023) as `LlavaForConditionalGeneration`: one block of placeholder tokens per image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from transformers import AutoModelForImageTextToText

from vtw_search.adapters.base import LayerArguments, ModuleCall
from vtw_search.errors import RuntimeUseError
from vtw_search.facts import ModelFacts, ModelFingerprint, config_digest

if TYPE_CHECKING:
    # Deployment does not need Pillow.
    from PIL import Image


class LlavaMacsModel:
    """Parts of a LLaVA prefill: decoder, projector and head on the meta device, the tower as it is loaded.

    The tower stays where it is because a convolution cannot be traced on meta tensors (torch 2.13).
    """

    def __init__(self, model: nn.Module) -> None:
        self._config: Any = model.config
        self._tower = model.get_submodule("model.vision_tower")
        with torch.device("meta"):
            self._model = AutoModelForImageTextToText.from_config(self._config).eval()  # type: ignore[no-untyped-call]

    def vision(self, images: int) -> ModuleCall:
        """Vision tower on `images` images of the tower's own size."""
        vision, like = self._config.vision_config, next(self._tower.parameters())
        pixels = like.new_zeros(images, vision.num_channels, vision.image_size, vision.image_size)
        return ModuleCall(self._tower, (pixels,), {})

    def projector(self, images: int) -> ModuleCall:
        """Projector on the patch features; the class token was cut off unless the strategy is `full`."""
        vision = self._config.vision_config
        patches = (vision.image_size // vision.patch_size) ** 2
        patches += self._config.vision_feature_select_strategy == "full"
        projector = self._model.model.multi_modal_projector
        return ModuleCall(projector, (torch.empty(images, patches, projector.linear_1.in_features, device="meta"),), {})

    def decoder_layer(self, layer: int, tokens: int) -> ModuleCall:
        """Decoder layer `layer` on `tokens` tokens, causal, without cache."""
        decoder = self._model.model.language_model
        hidden = torch.empty(1, tokens, self._config.text_config.hidden_size, device="meta")
        positions = torch.zeros(1, tokens, dtype=torch.long, device="meta")
        rotary = decoder.rotary_emb(hidden, position_ids=positions)
        return ModuleCall(decoder.layers[layer], (hidden,), {"position_embeddings": rotary, "attention_mask": None})

    def lm_head(self) -> ModuleCall:
        """Output projection of the last position."""
        return ModuleCall(
            self._model.lm_head, (torch.empty(1, 1, self._config.text_config.hidden_size, device="meta"),), {}
        )


class LlavaAdapter:
    """Answers for stock LLaVA on any CLIP-like tower and Llama-like decoder."""

    layer_arguments = LayerArguments(tokens={"position_ids": 1, "position_embeddings": 1})

    def facts(self, model: nn.Module) -> ModelFacts:
        """Describe `model`; K may be any of 1..L, since nothing happens between decoder layers."""
        config: Any = model.config
        layers = len(self.decoder_layers(model))
        fingerprint = ModelFingerprint(
            id=_public_name(config._name_or_path) or type(model).__name__,
            revision=getattr(config, "_commit_hash", None),
            type=config.model_type,
            num_layers=layers,
            config_digest=config_digest(config.to_dict()),
        )
        attention = config.text_config._attn_implementation
        return ModelFacts(fingerprint, layers, first_layer=1, last_layer=layers, attention=attention)

    def decoder_layers(self, model: nn.Module) -> nn.ModuleList:
        """Return the Llama layers."""
        layers = model.get_submodule("model.language_model.layers")
        assert isinstance(layers, nn.ModuleList)
        return layers

    def visual_mask(self, model: nn.Module, inputs: Mapping[str, Any]) -> torch.Tensor:
        """Find the placeholder tokens in `input_ids`; without image features in the call they are ordinary tokens."""
        input_ids = inputs.get("input_ids")
        if input_ids is None:
            raise RuntimeUseError(
                "visual tokens are found in input_ids, which this call does not have",
                value=sorted(name for name, value in inputs.items() if value is not None),
                remedy="pass input_ids and pixel_values instead of inputs_embeds",
            )
        has_images = inputs.get("pixel_values") is not None or bool(inputs.get("mm_encoder_outputs"))
        config: Any = model.config
        visual: torch.Tensor = input_ids == config.image_token_id
        return visual if has_images else torch.zeros_like(visual)

    def encode(
        self, processor: Any, prompts: Sequence[str], images: Sequence[Sequence[Image.Image]]
    ) -> dict[str, torch.Tensor]:
        """Apply the chat template (LLaVA-1.5's prompt where the processor has none) and pad on the left."""
        texts = [self._prompt(processor, prompt, len(row)) for prompt, row in zip(prompts, images, strict=True)]
        flat = [image for row in images for image in row]
        encoded = processor(images=flat or None, text=texts, padding=True, padding_side="left", return_tensors="pt")
        return dict(encoded)

    def _prompt(self, processor: Any, prompt: str, images: int) -> str:
        if processor.image_token in prompt:
            remedy = f"remove {processor.image_token} from it; the template places the images"
            raise RuntimeUseError("a prompt must not hold image placeholders", value=prompt, remedy=remedy)
        if processor.chat_template is None:
            return "USER: " + "<image>\n" * images + prompt + " ASSISTANT:"
        content = [{"type": "image"}] * images + [{"type": "text", "text": prompt}]
        text: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
        return text

    def macs_model(self, model: nn.Module) -> LlavaMacsModel:
        """Return the parts of `model`'s prefill."""
        return LlavaMacsModel(model)


def _public_name(source: str) -> str:
    """Return a Hub id as it is, and a folder by its name: where it lies on one machine says nothing on another."""
    return Path(source).name if Path(source).is_dir() else source
