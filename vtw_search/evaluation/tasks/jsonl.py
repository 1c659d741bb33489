"""The user's own task: one JSON object per line.

    {"id": "1", "images": ["img/1.png"], "prompt": "what is this?", "answers": ["cat"], "metric": "exact_match",
     "cluster": "img-1", "slices": {"kind": "photo"}, "accept_empty": false}

`cluster`, `slices` and `accept_empty` are optional; `metric` defaults to exact_match. With `accept_empty` an answer
that is empty is right where an empty one is among `answers`; otherwise it never is. Image paths are relative to the
file. A slice that all samples bring replaces the derived one of its name (see `slices.py`). Samples that share an
image, under whatever file, or a cluster, are one cluster, directly or through others.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from vtw_search.errors import TaskError, UnknownNameError, cut, near_matches
from vtw_search.evaluation.metrics import find_metric, normalize
from vtw_search.evaluation.tasks.links import Pictures, name_clusters
from vtw_search.evaluation.tasks.sample import FileImage, Sample
from vtw_search.policies.json_file import once_each


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
    accept_empty: bool = False

    @model_validator(mode="after")
    def _not_all_blank(self) -> Self:
        # Annotators may leave one out, but nothing can be told by a sample that only silence answers.
        if not self.accept_empty and not any(normalize(answer) for answer in self.answers):
            raise PydanticCustomError("blank", "one of them must not be blank")
        return self


_EXAMPLE = {
    "id": "7", "images": ["img/7.png"], "prompt": "what is this?", "answers": ["cat"], "metric": "exact_match",
    "cluster": "img-7", "slices": {"kind": "photo"}, "accept_empty": True,
}  # fmt: skip
_LONGEST_NAME = 60
_REQUIRED = [name for name, field in JsonlRow.model_fields.items() if field.is_required()]
_ONE_PER_LINE = (
    f"write one object per line, such as {json.dumps({name: _EXAMPLE[name] for name in _REQUIRED})}, with no list "
    "around them and no line break within one"
)


def read_jsonl(path: Path, near_duplicates: int | None = None) -> list[Sample]:
    """Return the samples of a file; `near_duplicates` as `near_bits` of `Pictures`.

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
            rule = f"{path}, line {number}, field id: must be unique, line {first} has it too"
            raise TaskError(rule, value=row.id, remedy="give every line an id of its own")
        seen[str(row.id)] = number
        rows.append(row)
    if not rows:
        raise TaskError("a task file must hold at least one sample", value=str(path), remedy=_ONE_PER_LINE)
    for number, row in zip(seen.values(), rows, strict=True):
        _require_images(row, path.parent, f"{path}, line {number}, field images")
    shown = [[path.parent / name for name in row.images] for row in rows]
    pictures = Pictures(shown, str(path), near_duplicates)
    given = [row.cluster for row in rows]
    clusters = name_clusters([str(row.id) for row in rows], pictures, given)
    return [_sample(row, cluster, path.parent) for row, cluster in zip(rows, clusters, strict=True)]


def _require_images(row: JsonlRow, folder: Path, place: str) -> None:
    for name in row.images:
        if not _is_file(folder / name):
            raise TaskError(f"{place}: must be files", value=name, remedy=f"paths are relative to {folder.resolve()}")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # such as a name that is too long
        return False


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, ValueError) as error:
        remedy = f"{error}; set task.path to a JSONL file in UTF-8"
        raise TaskError("a task file must be readable", value=str(path), remedy=remedy) from error


def _parse(line: str, place: str) -> JsonlRow:
    try:
        content = json.loads(line, object_pairs_hook=once_each)
        json.dumps(content, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise TaskError(f"{place}: must be one JSON object ({error})", value=line, remedy=_ONE_PER_LINE) from error
    if not isinstance(content, dict):
        raise TaskError(f"{place}: must be one JSON object", value=line, remedy=_ONE_PER_LINE)
    unknown = next((name for name in content if name not in JsonlRow.model_fields), None)
    if unknown is not None:
        remedy = near_matches(unknown, JsonlRow.model_fields)
        raise TaskError(f"{place}, field {cut(unknown, _LONGEST_NAME)}: is not known", value=unknown, remedy=remedy)
    try:
        row = JsonlRow.model_validate(content)
        find_metric(row.metric)
    except ValidationError as error:
        raise _refusal(error.errors()[0], content, place) from error
    except UnknownNameError as error:
        raise TaskError(f"{place}, field metric: {error.rule}", value=row.metric, remedy=error.remedy) from error
    return row


def _refusal(error: Any, content: Mapping[str, Any], place: str) -> TaskError:
    """Return the error of a line whose fields are known and one of which is missing or wrong."""
    kind, value, (name, *inside) = error["type"], error["input"], error["loc"] or ("answers",)
    if kind == "missing":
        remedy = f"add it, such as {json.dumps({name: _EXAMPLE[name]})}"
        return TaskError(f"{place}, field {name}: must be there", value=list(content), remedy=remedy)
    field = ".".join([name, *(cut(str(part), _LONGEST_NAME) for part in inside if part not in ("str", "int"))])
    rule = f"{place}, field {field}: {error['msg']}"
    shown = content["answers"] if kind == "blank" else "null" if value is None else value
    return TaskError(rule, value=shown, remedy=_remedy(kind, name, value))


def _remedy(kind: str, name: str, value: object) -> str:
    if kind == "blank":
        return 'add what is right, or "accept_empty": true if an empty answer is'
    if kind == "string_type" and isinstance(value, int | float):
        return f"write it as text: {cut(json.dumps(json.dumps(value)), 100)}"
    if kind == "list_type" and isinstance(value, str):
        return f"write a list: {cut(json.dumps([value]), 100)}"
    return f"write it as in {json.dumps({name: _EXAMPLE[name]})}"


def _sample(row: JsonlRow, cluster: str, folder: Path) -> Sample:
    return Sample(
        id=str(row.id),
        images=tuple(FileImage(folder / name) for name in row.images),
        prompt=row.prompt,
        answers=tuple(row.answers),
        metric=row.metric,
        cluster=cluster,
        slices=row.slices,
        accept_empty=row.accept_empty,
    )
