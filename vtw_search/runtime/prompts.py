"""Which tokens of a call are the prompt's: what stays is decided by them alone, in whatever calls they come.

`generate` alone knows where its prompt ends, since its calls of the model may hold more or less: assisted decoding
calls it on prompt and draft, a chunked prefill on parts of the prompt, generation without a cache on prompt and answer.
Outside of `generate` a call that brings visual tokens is a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
from transformers import Cache

from vtw_search.errors import RuntimeUseError
from vtw_search.runtime.calls import shape_of
from vtw_search.runtime.slicing import tensors_in
from vtw_search.runtime.stages import ReadyStage

# How the arguments begin that bring images, or their features.
_IMAGES = ("pixel", "image", "video", "mm_encoder")


@dataclass
class Generation:
    """One call of `generate`.

    Attributes:
        tokens: how many tokens its prompt adds to what its cache holds.
        has_ids: whether the prompt came as ids.
        end: where the prompt ends in the whole sequence; None until the model is called.
    """

    tokens: int
    has_ids: bool
    end: int | None = None

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Generation | None:
        """Read the arguments of `generate`; None where it begins without a prompt."""
        given = [kwargs.get("inputs_embeds"), args[0] if args else kwargs.get("inputs"), kwargs.get("input_ids")]
        prompt = next((value for value in given if value is not None), None)
        if not isinstance(prompt, torch.Tensor):
            return None
        mask, cache = kwargs.get("attention_mask"), kwargs.get("past_key_values")
        # On a cache the ids may be those of the whole conversation or the new ones; the mask is always the whole one's.
        whole = prompt.shape[1] if mask is None else mask.shape[1]
        return cls(whole - _length(cache), given[0] is None)

    def begin(self, past: int, kwargs: Mapping[str, Any]) -> None:
        """Take the first call of the model, which comes behind `past` tokens."""
        # PEFT puts learned tokens before the prompt: into the cache, or as embeddings in place of the ids.
        replaced = self.has_ids and kwargs.get("input_ids") is None
        self.end = past + (shape_of(kwargs)[1] if replaced else self.tokens)


@dataclass(frozen=True)
class Part:
    """What a call brings of a prompt.

    Attributes:
        length: how many of the call's tokens belong to the prompt, from the first one on.
        ends: whether the prompt's last token is among them, or came before.
    """

    length: int
    ends: bool = True

    def check_stages(self, stages: Sequence[ReadyStage]) -> None:
        """Raise RuntimeUseError where a stage needs more of the prompt than the call brings."""
        needy = [ready.stage.label() for ready in stages if ready.needs_whole_prompt]
        if needy and not self.ends:
            remedy = "prefill in one call (prefill_chunk_size=None), or withdraw"
            raise RuntimeUseError("what stays is chosen from the whole prompt", value=", ".join(needy), remedy=remedy)

    def check_padding(self, padding: torch.Tensor) -> None:
        """Raise RuntimeUseError where a row of the prompt ends with padding, (B, T) bool."""
        ended = padding[:, self.length - 1].tolist() if self.ends and self.length else []
        if any(ended):
            value = f"rows {[row for row, padded in enumerate(ended) if padded]} end with padding"
            remedy = "pad on the left, with padding_side='left'"
            raise RuntimeUseError("under a policy a prompt ends in the last column", value=value, remedy=remedy)


class Prompts:
    """Tells the prompts' tokens in the calls of one thread.

    Attributes:
        generation: the call of `generate` that is on its way.
    """

    def __init__(self) -> None:
        self.generation: Generation | None = None
        self._ids: torch.Tensor | None = None
        self._images: list[torch.Tensor] = []
        self._length = 0

    def begin(self, kwargs: Mapping[str, Any], cache: Any) -> None:
        """Note that the model is called; the first call of a generation says where its prompt begins."""
        if self.generation is not None and self.generation.end is None:
            self.generation.begin(_length(cache), kwargs)

    def part(self, kwargs: Mapping[str, Any], past: int | None) -> Part:
        """Return what a call with visual tokens brings of a prompt; `past` tokens came before, None without a cache."""
        tokens = shape_of(kwargs)[1]
        if self.generation is not None and self.generation.end is not None:
            length = self.generation.end - (past or 0)
            return Part(min(max(length, 0), tokens), length <= tokens)
        return Part(tokens if past is not None else self._uncached(kwargs, tokens))

    def _uncached(self, kwargs: Mapping[str, Any], tokens: int) -> int:
        """Return the prompt's length for a loop without a cache that calls the model itself.

        A call goes on with the last one where it holds one token more, behind the same prompt with the same images.
        """
        ids: torch.Tensor | None = kwargs.get("input_ids")
        images = [tensor for name in sorted(kwargs) if name.startswith(_IMAGES) for tensor in tensors_in(kwargs[name])]
        prompt, length, shown = self._ids, self._length, self._images
        self._length, self._images = tokens, images
        if len(images) != len(shown) or not all(map(_same, images, shown)):
            prompt = None
        if ids is not None and prompt is not None and tokens == length + 1 and len(ids) == len(prompt):
            whole = prompt.shape[1]
            if torch.equal(ids[:, :whole], prompt):
                return whole
        self._ids = ids
        return tokens


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one is other or (one.shape == other.shape and torch.equal(one, other))


@contextmanager
def noted_generations(model: Any, here: Callable[[], Prompts]) -> Iterator[None]:
    """Note every call of `model.generate` while it is on its way; one inside another one counts by itself.

    The model gets a `generate` of its own until the block is left; `here()` returns the calling thread's prompts.
    """
    if not hasattr(model, "generate"):
        yield
        return
    own, generate = vars(model).get("generate"), model.generate

    @wraps(generate)
    def noted(*args: Any, **kwargs: Any) -> Any:
        prompts = here()
        outer, prompts.generation = prompts.generation, Generation.of(args, kwargs)
        try:
            return generate(*args, **kwargs)
        finally:
            prompts.generation = outer

    model.generate = noted
    try:
        yield
    finally:
        if own is None:
            del model.generate
        else:
            model.generate = own


def _length(cache: Any) -> int:
    return int(cache.get_seq_length()) if isinstance(cache, Cache) else 0
