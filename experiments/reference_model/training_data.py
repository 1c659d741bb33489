"""Endless training batches: shapes (easy-VQA's training images and images drawn alike) and numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw

from vtw_search.evaluation.tasks import FileImage, digits
from vtw_search.evaluation.tasks.easy_vqa import (
    COLORS,
    FIRST_SEARCH_IMAGE,
    SHAPES,
    image_paths,
    read_questions,
)

RGB = {
    "black": (0, 0, 0), "blue": (0, 0, 255), "brown": (165, 42, 42), "gray": (128, 128, 128),
    "green": (0, 255, 0), "red": (255, 0, 0), "teal": (0, 128, 128), "yellow": (255, 255, 0),
}  # fmt: skip
PATCH, GRID = 8, 8
NO_GLYPH = 10
MENTIONS = (*COLORS, *SHAPES)
NEGATED = re.compile(r"\b(no|not)\b")


def mention_of(question: str) -> int:
    """Return the number in `MENTIONS` of the name in a question, `len(MENTIONS)` if there is none."""
    named = [number for number, name in enumerate(MENTIONS) if re.search(rf"\b{name}\b", question)]
    return named[0] if named else len(MENTIONS)


def is_negated(question: str) -> bool:
    """Tell whether a question asks for the absence of what it names."""
    return bool(NEGATED.search(question))


def name_holds(question: str, answer: str) -> int:
    """Return 1 if the name in a yes/no question is the image's, 0 if not, -100 for other questions."""
    return int((answer == "yes") != is_negated(question)) if answer in ("yes", "no") else -100


def question_templates() -> dict[str, list[str]]:
    """Return easy-VQA's question templates by kind; `{color}` and `{shape}` stand for the names."""
    found: dict[str, set[str]] = defaultdict(set)
    for question in read_questions("train"):
        if question.image_id >= FIRST_SEARCH_IMAGE:
            continue
        text = re.sub(r"\b(" + "|".join(COLORS) + r")\b", "{color}", question.text)
        text = re.sub(r"\b(" + "|".join(SHAPES) + r")\b", "{shape}", text)
        found[question.kind].add(text)
    return {kind: sorted(texts) for kind, texts in found.items()}


def known_labels() -> dict[int, tuple[int, int]]:
    """Map each training image that the questions describe fully to its (shape, color) class numbers."""
    shapes: dict[int, int] = {}
    colors: dict[int, int] = {}
    for question in read_questions("train"):
        if question.image_id >= FIRST_SEARCH_IMAGE:
            continue
        words = set(re.findall(r"\w+", question.text))
        affirmed = question.kind == "yesno" and (question.answer == "yes") != bool(words & {"no", "not"})
        named = words | ({question.answer} if question.kind != "yesno" else set())
        if question.kind == "yesno" and not affirmed:
            continue
        for name in named & set(SHAPES):
            shapes[question.image_id] = SHAPES.index(name)
        for name in named & set(COLORS):
            colors[question.image_id] = COLORS.index(name)
    return {image: (shapes[image], colors[image]) for image in sorted(shapes.keys() & colors.keys())}


def draw_shape(rng: np.random.Generator, shape: int, color: int) -> Image.Image:
    """Draw one shape as easy-VQA does: upright, anti-aliased, on a pastel background."""
    scale = 4
    paper = tuple(int(value) for value in rng.integers(230, 256, 3))
    image = Image.new("RGB", (64 * scale, 64 * scale), paper)
    width, height = rng.uniform(8, 33, 2)
    if SHAPES[shape] == "circle":
        height = width
    if SHAPES[shape] == "triangle":
        height = width * 0.87
    left, top = rng.uniform(0, 64 - width), rng.uniform(0, 64 - height)
    box = [left * scale, top * scale, (left + width) * scale, (top + height) * scale]
    draw, fill = ImageDraw.Draw(image), RGB[COLORS[color]]
    if SHAPES[shape] == "circle":
        draw.ellipse(box, fill=fill)
    elif SHAPES[shape] == "rectangle":
        draw.rectangle(box, fill=fill)
    else:
        draw.polygon([(box[0], box[3]), (box[2], box[3]), ((box[0] + box[2]) / 2, box[1])], fill=fill)
    return image.resize((64, 64), Image.Resampling.LANCZOS)


def to_pixels(images: list[Image.Image]) -> torch.Tensor:
    """Stack RGB images to (N, 3, 64, 64) in [-1, 1], as the processor does."""
    stacked = np.stack([np.asarray(image) for image in images])
    return torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1


@dataclass
class Batch:
    """Images with their dense labels and packed questions.

    Attributes:
        pixels: (N, 3, 64, 64).
        questions: per image, (question, answer) pairs; the same number for every image of the batch.
        shape, color: (N,) class numbers, -1 where the image shows a number.
        glyphs: (N, 64) digit under each patch, `NO_GLYPH` elsewhere, -1 where the image shows a shape.
    """

    pixels: torch.Tensor
    questions: list[list[tuple[str, str]]]
    shape: torch.Tensor
    color: torch.Tensor
    glyphs: torch.Tensor


class TrainingData:
    """Draws batches; the state of `rng` is all there is to save."""

    def __init__(self, seed: int, generated_share: float, truth_rate: float) -> None:
        self.rng = np.random.default_rng(seed)
        self.generated_share, self.truth_rate = generated_share, truth_rate
        self.templates = question_templates()
        self.labels = known_labels()
        paths = image_paths("train")
        self.ids = list(self.labels)
        self.images = {image: FileImage(paths[image]).open() for image in self.ids}

    def texts(self) -> list[str]:
        """Return every text that training can show, for the tokenizer."""
        filled = [
            template.format(color=color, shape=shape)
            for texts in self.templates.values() for template in texts for color in COLORS for shape in SHAPES
        ]  # fmt: skip
        return [
            *filled,
            *digits.PROMPTS * 20,
            *COLORS * 20,
            *SHAPES * 20,
            *["yes", "no", "USER: \n", "ASSISTANT:"] * 50,
        ]

    def shapes(self, images: int, questions: int) -> Batch:
        """Draw a batch of shape images."""
        chosen, pictures = [], []
        for _ in range(images):
            if self.rng.random() < self.generated_share:
                label = (int(self.rng.integers(len(SHAPES))), int(self.rng.integers(len(COLORS))))
                picture = draw_shape(self.rng, *label)
            else:
                image = self.ids[int(self.rng.integers(len(self.ids)))]
                label, picture = self.labels[image], self._moved(self.images[image])
            chosen.append(label)
            pictures.append(picture)
        asked = [[self._question(*label, slot) for slot in range(questions)] for label in chosen]
        shape, color = torch.tensor(chosen).T
        return Batch(to_pixels(pictures), asked, shape, color, torch.full((images, GRID * GRID), -1))

    def _moved(self, image: Image.Image) -> Image.Image:
        """Mirror at random; easy-VQA's shapes stay what they are."""
        return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if self.rng.random() < 0.5 else image

    def _question(self, shape: int, color: int, slot: int) -> tuple[str, str]:
        kind = ("color", "shape")[slot] if slot < 2 else "yesno"
        template = self.templates[kind][int(self.rng.integers(len(self.templates[kind])))]
        if kind != "yesno":
            return template.format(shape=SHAPES[shape], color=COLORS[color]), {
                "color": COLORS[color],
                "shape": SHAPES[shape],
            }[kind]
        truth = bool(self.rng.random() < self.truth_rate)
        names = {
            "shape": SHAPES[self._pick(shape, len(SHAPES), truth)],
            "color": COLORS[self._pick(color, len(COLORS), truth)],
        }
        return template.format(**names), "yes" if truth != is_negated(template) else "no"

    def _pick(self, true: int, count: int, truth: bool) -> int:
        return true if truth else int((true + self.rng.integers(1, count)) % count)

    def numbers(self, images: int, questions: int) -> Batch:
        """Draw a batch of number images from the training glyphs."""
        pool = digits.glyph_pools()["train"]
        lengths = [int(self.rng.choice(digits.LENGTHS)) for _ in range(images)]
        drawn = [digits.random_number_image(self.rng, pool, length) for length in lengths]
        prompts = [list(self.rng.permutation(digits.PROMPTS)[:questions]) for _ in drawn]
        asked = [
            [(str(p), digits.number_of(image)) for p in texts] for image, texts in zip(drawn, prompts, strict=True)
        ]
        pixels = torch.stack([self._augmented(image) for image in drawn])
        empty = torch.full((images,), -1)
        return Batch(pixels, asked, empty, empty, torch.stack([patch_glyphs(image) for image in drawn]))

    def _augmented(self, image: digits.NumberImage) -> torch.Tensor:
        """Render with each glyph rotated, stretched and shifted a little, so that few glyphs go a long way."""
        canvas = Image.new("RGB", (64, 64), image.paper)
        for place in image.placements:
            mask = digits.glyph_image(place.glyph, place.size)
            angle, stretch, shear = self.rng.normal(0, 7), self.rng.uniform(0.88, 1.14), self.rng.normal(0, 0.12)
            center = place.size / 2 + float(self.rng.uniform(-1, 1))
            affine = (
                1 / stretch,
                shear,
                place.size / 2 - center / stretch - shear * place.size / 2,
                0,
                1,
                float(self.rng.uniform(-1, 1)),
            )
            mask = mask.rotate(angle, Image.Resampling.BICUBIC).transform(
                mask.size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC
            )
            gain = float(self.rng.uniform(0.85, 1.2))
            mask = mask.point([min(255, int(value * gain)) for value in range(256)])
            canvas.paste(image.ink, (place.left, place.top), mask)
        return to_pixels([canvas])[0]


def patch_glyphs(image: digits.NumberImage) -> torch.Tensor:
    """Return (64,) the digit whose box covers the centre of each patch, or `NO_GLYPH`."""
    labels = torch.full((GRID, GRID), NO_GLYPH)
    centers = np.arange(GRID) * PATCH + PATCH / 2
    for place in image.placements:
        rows = (centers >= place.top) & (centers < place.top + place.size)
        columns = (centers >= place.left) & (centers < place.left + place.size)
        labels[np.ix_(rows, columns)] = int(digits.glyph_labels(np.array(place.glyph)))
    return labels.flatten()
