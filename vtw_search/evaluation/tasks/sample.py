"""The record that every task, built in or the user's own, is made of."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

from PIL import Image

from vtw_search.errors import TaskError
from vtw_search.evaluation.metrics import find_metric
from vtw_search.evaluation.tasks.picture import as_served
from vtw_search.evaluation.tasks.slices import derived_slices
from vtw_search.placeholders import has_placeholders

# What Pillow's readers raise of a file that is no image, or a broken one; a broken PNG is a SyntaxError to it.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, RuntimeError, Image.DecompressionBombError)


class ImageSource(Protocol):
    """An image that is opened when it is needed and identified without being decoded."""

    def open(self) -> Image.Image:
        """Return the image in RGB."""

    def size(self) -> tuple[int, int]:
        """Return width and height in pixels, without decoding."""

    def digest(self) -> str:
        """Return a hash of the content, as hexadecimal digits."""


@dataclass(frozen=True)
class FileImage:
    """An image file."""

    path: Path

    def open(self) -> Image.Image:
        """Return the image as a server hands it to a model; see `as_served`.

        Raises:
            TaskError: the file is not a readable image of 8 bits a channel.
        """
        with self._file() as image:
            return as_served(image, str(self.path))

    def size(self) -> tuple[int, int]:
        """Return width and height as the file's header has them, before it is turned upright.

        Raises:
            TaskError: the file is not a readable image.
        """
        with self._file() as image:
            return image.size

    @contextmanager
    def _file(self) -> Iterator[Image.Image]:
        try:
            with Image.open(self.path) as image:
                yield image
        except _UNREADABLE as error:
            raise TaskError("an image must be readable", value=str(self.path), remedy=str(error)) from error

    def digest(self) -> str:
        """Return the SHA-256 of the file's bytes."""
        try:
            return hashlib.sha256(self.path.read_bytes()).hexdigest()
        except OSError as error:
            raise TaskError("an image must be readable", value=str(self.path), remedy=str(error)) from error


@dataclass(frozen=True)
class Sample:
    """One question about zero or more images.

    Args:
        id: unique within the task.
        images: in prompt order; empty for text-only samples.
        prompt: the question, without chat template.
        answers: accepted answers, not empty.
        metric: a name in `vtw_search.evaluation.metrics.METRICS`.
        cluster: samples that share an image share a cluster; statistics treat clusters as independent.
        slices: named subsets that the task puts the sample into, for example `{"digits": "3"}`.
        accept_empty: whether an answer that is empty is right, if an accepted one is.
    """

    id: str
    images: tuple[ImageSource, ...]
    prompt: str
    answers: tuple[str, ...]
    metric: str
    cluster: str
    slices: Mapping[str, str] = field(default_factory=dict)
    accept_empty: bool = False

    @cached_property
    def all_slices(self) -> Mapping[str, str]:
        """The task's own slices, and those that follow from the content unless the task has one of that name."""
        pixels = sum(width * height for width, height in (image.size() for image in self.images))
        return {**derived_slices(self.prompt, self.answers, pixels), **self.slices}

    def score(self, answer: str) -> float:
        """Return the score of an answer, in [0, 1]; UnknownNameError if there is no such metric."""
        return find_metric(self.metric).score(answer, self.answers, self.accept_empty)

    def digest(self) -> str:
        """Hash everything that can change a measurement of this sample."""
        parts = [self.id, self.prompt, *self.answers, self.metric, self.cluster]
        parts += [image.digest() for image in self.images]
        parts += [f"{key}={value}" for key, value in sorted(self.slices.items())]
        parts += ["accept_empty"] if self.accept_empty else []
        # Placeholders of another family were plain text once; what was measured then is another prompt.
        parts += ["images at placeholders"] if has_placeholders(self.prompt) else []
        return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()
