"""Small inputs that a model is checked on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from vtw_search.adapters import Adapter

Inputs = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Probe:
    """One batch.

    Attributes:
        name: for messages.
        inputs: of `model(**inputs)` and `model.generate(**inputs)`, left-padded.
        alone: for some rows, (row number, the inputs of that row by itself).
    """

    name: str
    inputs: Inputs
    alone: tuple[tuple[int, Inputs], ...] = ()

    @property
    def real(self) -> torch.Tensor:
        """(B, T) bool, true at tokens that are not padding."""
        mask = self.inputs.get("attention_mask")
        return torch.ones_like(self.inputs["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def text_row(inputs: Inputs, row: int) -> dict[str, torch.Tensor]:
    """Return a row without images by itself: the row of everything that is per token, without its padding."""
    shape, real = inputs["input_ids"].shape, inputs["attention_mask"][row].bool()
    return {
        name: value[row : row + 1, real]
        for name, value in inputs.items()
        if value.shape[:2] == shape and not value.is_floating_point()
    }


def processor_probes(adapter: Adapter, processor: Any, device: torch.device, seed: int = 0) -> list[Probe]:
    """Return probes through the model's own processor: one image, a ragged batch of three, and text alone.

    The images are noise of two sizes. Where a prompt needs an image, the batch has two rows and no text is alone.

    Raises:
        ModelError: the processor has no chat template and the adapter knows no prompt for it.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = ["What is this?", "Describe both images, please.", "What is the capital of France?"]
    images = [[_noise(generator, 60, 60)], [_noise(generator, 90, 50), _noise(generator, 60, 60)], []]

    def encode(rows: Sequence[int]) -> dict[str, torch.Tensor]:
        encoded = adapter.encode(processor, [prompts[row] for row in rows], [images[row] for row in rows])
        return {name: value.to(device) for name, value in encoded.items()}

    rows = range(2 if adapter.needs_image else 3)
    alone = [encode([row]) for row in rows]
    probes = [Probe("one image", alone[0]), Probe("ragged batch", encode(rows), tuple(enumerate(alone)))]
    return probes if adapter.needs_image else [*probes, Probe("text only", alone[2])]


def _noise(generator: torch.Generator, width: int, height: int) -> Any:
    from PIL import Image

    return Image.fromarray(torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8).numpy())
