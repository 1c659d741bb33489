"""easy-VQA (Zhou 2019): 64 x 64 images of one coloured shape, with questions on colour, shape and yes/no.

The PyPI package `easy-vqa` carries the images and the questions. Its test images are the holdout; its training
images with an id of `FIRST_SEARCH_IMAGE` or more are kept out of the reference model's training and feed
calibration, selection and confirmation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vtw_search.evaluation.tasks.sample import FileImage, Sample

FIRST_SEARCH_IMAGE = 2800
COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
SHAPES = ("circle", "rectangle", "triangle")


@dataclass(frozen=True)
class Question:
    """One row of the package: a question on one image."""

    text: str
    answer: str
    image_id: int

    @property
    def kind(self) -> str:
        """`color`, `shape` or `yesno`, told by the answer."""
        if self.answer in COLORS:
            return "color"
        return "shape" if self.answer in SHAPES else "yesno"


def read_questions(part: str) -> list[Question]:
    """Read all questions of `part` (`train` or `test`) in the package's order."""
    import easy_vqa

    reader = {"train": easy_vqa.get_train_questions, "test": easy_vqa.get_test_questions}[part]
    return [Question(*row) for row in zip(*reader(), strict=True)]


def image_paths(part: str) -> dict[int, Path]:
    """Map image id to file for `part` (`train` or `test`)."""
    import easy_vqa

    reader = {"train": easy_vqa.get_train_image_paths, "test": easy_vqa.get_test_image_paths}[part]
    return {image_id: Path(path) for image_id, path in reader().items()}


def load_pool(kind: str, pool: str) -> Iterator[Sample]:
    """Yield the samples of one question kind.

    Args:
        kind: `color`, `shape` or `yesno`.
        pool: `search` (images that training never saw) or `holdout` (the package's test images).
    """
    part = "test" if pool == "holdout" else "train"
    paths = image_paths(part)
    for number, question in enumerate(read_questions(part)):
        if question.kind != kind or (part == "train" and question.image_id < FIRST_SEARCH_IMAGE):
            continue
        yield Sample(
            id=f"{part}-{number}",
            images=(FileImage(paths[question.image_id]),),
            prompt=question.text,
            answers=(question.answer,),
            metric="exact_match",
            cluster=f"{part}-{question.image_id}",
            slices={"negated": "yes" if {"no", "not"} & set(question.text.split()) else "no"},
        )
