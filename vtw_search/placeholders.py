"""Where images are meant to stand in a prompt, in the spellings of benchmarks and of all model families."""

from __future__ import annotations

import re

# `<image>`, `<image 1>`, `<image_1>`, `<img>`, `<|image_1|>`, `[IMG]`: an image, which may be named by its number.
_IMAGE = re.compile(r"(?i:<\|?\s*(?:image|img)[\s_#-]*(\d{0,4})\s*\|?>)|\[IMG\]")
# What stands around images, or for videos, in the prompts of some family: `<|vision_start|>`, `<start_of_image>`.
_OTHER = re.compile(
    r"(?i:<[|/]?(?:\w+[_|-])*(?:image|img|video|vision)(?:[_|-]\w+)*[|/]?>|<\s*video[\s_#-]*\d*\s*>|<\|media\w*\|>)|\[(?:IMG_\w+|VIDEO)\]"
)


def has_placeholders(prompt: str) -> bool:
    """Return whether a prompt holds what is a placeholder to any family."""
    return bool(_IMAGE.search(prompt) or _OTHER.search(prompt))


def split_at_images(prompt: str) -> tuple[list[str], list[int | None]]:
    """Return the n + 1 texts around the n images that stand in a prompt, and the numbers of those that have one."""
    found = list(_IMAGE.finditer(prompt))
    ends, starts = [0, *(match.end() for match in found)], [*(match.start() for match in found), len(prompt)]
    texts = [prompt[end:start] for end, start in zip(ends, starts, strict=True)]
    return texts, [int(match[1]) if match[1] else None for match in found]


def other_placeholder(text: str) -> str | None:
    """Return the first placeholder in a text that is not one of `split_at_images`, or None."""
    match = _OTHER.search(text)
    return match[0] if match else None
