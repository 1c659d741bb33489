"""Looks at every sample before anything is measured, so that one that is not usable is told before hours of work."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from PIL import Image

from vtw_search.adapters import check_prompt, most_positions
from vtw_search.errors import DataWarning, RuntimeUseError, TaskError, VtwError, shown
from vtw_search.evaluation.model import LoadedModel
from vtw_search.evaluation.tasks import Sample
from vtw_search.evaluation.tasks.picture import is_blank
from vtw_search.placeholders import split_at_images

# Widths and heights of a sample's images.
Sizes = tuple[tuple[int, int], ...]
# By how many tokens a prompt may be longer than one whose text alone has more: texts merge with what is around them.
_MERGED = 8


def check_images(samples: Iterable[Sample]) -> dict[str, Sizes]:
    """Open every image once and return the sizes of the images of each sample, as the model gets them.

    Those of one colour are counted, and a DataWarning tells of them.

    Raises:
        TaskError: an image is broken; names the sample.
    """
    sizes, blank = dict[str, Sizes](), list[str]()
    for sample in samples:
        images = _opened(sample)
        sizes[sample.id] = tuple(image.size for image in images)
        blank += [sample.id] * sum(map(is_blank, images))
    if blank:
        count = sum(map(len, sizes.values()))
        text = (
            f"{len(blank)} of {count} images show one colour and nothing else, such as that of sample {shown(blank[0])}"
        )
        warnings.warn(f"{text}; no answer can depend on them", DataWarning, stacklevel=2)
    return sizes


def _opened(sample: Sample) -> list[Image.Image]:
    try:
        return [image.open() for image in sample.images]
    except TaskError as error:
        raise error.at(f"sample {shown(sample.id)}") from error


def check_prompts(
    loaded: LoadedModel, samples: Sequence[Sample], sizes: Mapping[str, Sizes], max_new_tokens: int
) -> None:
    """Look at every prompt, and pass the longest one of every distinct size of images through the processor.

    Args:
        loaded: whose processor and positions the samples have to do with.
        samples: of a task.
        sizes: as `check_images` returns them.
        max_new_tokens: length of the longest answer.

    Raises:
        TaskError: a prompt holds placeholders that do not stand for its images, the processor cannot take a sample, or
            one is longer than the model's positions; names the sample.
    """
    groups: dict[Sizes, list[Sample]] = {}
    for sample in samples:
        with _told_of(sample, sizes[sample.id]):
            check_prompt(loaded.processor, sample.prompt, len(sample.images))
        groups.setdefault(sizes[sample.id], []).append(sample)
    for size, group in groups.items():
        _check_longest(loaded, group, size, max_new_tokens)


def _check_longest(loaded: LoadedModel, samples: Sequence[Sample], sizes: Sizes, max_new_tokens: int) -> None:
    """Check samples whose images have these sizes, the longest first, until the others must be shorter."""
    most = most_positions(loaded.model.config)
    texts = ["".join(split_at_images(sample.prompt)[0]) for sample in samples]
    lengths = [len(ids) for ids in loaded.processor.tokenizer(texts)["input_ids"]]
    for _, place in sorted((-length, place) for place, length in enumerate(lengths)):
        sample = samples[place]
        with _told_of(sample, sizes):
            tokens = loaded.adapter.encode(loaded.processor, [sample.prompt], [_opened(sample)])["input_ids"].shape[1]
        if most is None or tokens + max_new_tokens + _MERGED <= most:
            return
        if tokens + max_new_tokens > most:
            rule = f"sample {shown(sample.id)}: prompt and answer must fit the {most} positions of the model"
            remedy = "shorten the prompt, use smaller images, lower the task's max_new_tokens, or remove the sample"
            raise TaskError(rule, value=f"{tokens} tokens and {max_new_tokens} for the answer", remedy=remedy)


@contextmanager
def _told_of(sample: Sample, sizes: Sizes) -> Iterator[None]:
    """Raise what is wrong with a sample inside the `with` block as a TaskError that names it."""
    named = f"sample {shown(sample.id)}"
    try:
        yield
    except RuntimeUseError as error:
        raise TaskError(f"{named}: {error.rule}", value=error.value, remedy=error.remedy) from error
    except VtwError:
        raise  # about the model, or it names its file
    except Exception as error:  # whatever a processor raises of what it cannot take
        value = f"images of {', '.join(f'{width}x{height}' for width, height in sizes)}"
        remedy = f"{type(error).__name__}: {error}; resize its images, change its prompt, or remove it"
        raise TaskError(f"{named}: the processor must be able to take it", value=value, remedy=remedy) from error
