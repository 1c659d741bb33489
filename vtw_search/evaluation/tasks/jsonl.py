"""The user's own task: one JSON object per line.

    {"id": "1", "images": ["img/1.png"], "prompt": "what is this?", "answers": ["cat"], "metric": "exact_match",
     "cluster": "img-1", "slices": {"kind": "photo"}}

`cluster` and `slices` are optional; `metric` defaults to exact_match. Image paths are relative to the file. A slice
that all samples bring replaces the derived one of its name (see `slices.py`). Samples that share an image, under
whatever file, or a cluster, are one cluster, directly or through others.
"""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from vtw_search.errors import TaskError, UnknownNameError
from vtw_search.evaluation.metrics import find_metric, normalize
from vtw_search.evaluation.tasks.links import Pictures, name_clusters
from vtw_search.evaluation.tasks.sample import FileImage, Sample


class JsonlRow(BaseModel):
    """One line of the file."""

    model_config = ConfigDict(extra="forbid", strict=True)

    id: str | int
    images: list[str]
    prompt: str = Field(min_length=1)
    answers: list[str] = Field(min_length=1)
    metric: str = "exact_match"
    cluster: str | None = None
    slices: dict[str, str] = {}

    @field_validator("answers")
    @classmethod
    def _not_all_blank(cls, answers: list[str]) -> list[str]:
        # Annotators may leave one out, but nothing can be told by a sample that only silence answers.
        if not any(normalize(answer) for answer in answers):
            raise ValueError("one of them must not be blank")
        return answers


def read_jsonl(path: Path, near_duplicates: int | None = None) -> list[Sample]:
    """Return the samples of a file; `near_duplicates` as `near_bits` of `name_clusters`.

    Raises:
        TaskError: the file or an image cannot be read, or a line is broken; line number and field are named.
    """
    seen: dict[str, int] = {}
    rows = []
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _parse(line, f"{path}, line {number}")
        if str(row.id) in seen:
            first = seen[str(row.id)]
            raise TaskError(f"{path}, line {number}, field id: must be unique, line {first} has it too", value=row.id)
        seen[str(row.id)] = number
        rows.append(row)
    if not rows:
        raise TaskError("a task file must hold at least one sample", value=str(path))
    for number, row in zip(seen.values(), rows, strict=True):
        _require_images(row, path.parent, f"{path}, line {number}, field images")
    pictures = Pictures([[path.parent / name for name in row.images] for row in rows])
    given = [row.cluster for row in rows]
    clusters = name_clusters([str(row.id) for row in rows], pictures, given, near_duplicates, str(path))
    return [_sample(row, cluster, path.parent) for row, cluster in zip(rows, clusters, strict=True)]


def _require_images(row: JsonlRow, folder: Path, place: str) -> None:
    for name in row.images:
        if not (folder / name).is_file():
            raise TaskError(f"{place}: must be files", value=name, remedy=f"paths are relative to {folder.resolve()}")


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        remedy = f"{error}; set task.path to a JSONL file in UTF-8"
        raise TaskError("a task file must be readable", value=str(path), remedy=remedy) from error


def _parse(line: str, place: str) -> JsonlRow:
    try:
        row = JsonlRow.model_validate(json.loads(line))
        find_metric(row.metric)
    except json.JSONDecodeError as error:
        raise TaskError(f"{place}: must be one JSON object ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the whole line"
        value = None if first["type"] == "missing" else first["input"]
        raise TaskError(f"{place}, field {field}: {first['msg']}", value=value) from error
    except UnknownNameError as error:
        raise TaskError(f"{place}, field metric: {error}") from error
    return row


def _sample(row: JsonlRow, cluster: str, folder: Path) -> Sample:
    return Sample(
        id=str(row.id),
        images=tuple(FileImage(folder / name) for name in row.images),
        prompt=row.prompt,
        answers=tuple(row.answers),
        metric=row.metric,
        cluster=cluster,
        slices=row.slices,
    )
