"""What decoding pictures tells of them, kept from start to start: to decode thousands of them takes minutes."""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import PIL
from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from vtw_search.errors import StoreError, TaskError
from vtw_search.evaluation.tasks.picture import difference_hash, pixels_digest
from vtw_search.evaluation.tasks.sample import FileImage
from vtw_search.files import cache_folder, write_text_atomically

# Raised when pictures are opened or hashed in another way.
_VERSION = 1
# To decode fewer takes less than a second.
_WORTH_KEEPING = 100


class Look(BaseModel):
    """What one decoding of a picture tells.

    Attributes:
        pixels: hash of its size and pixels.
        difference: its difference hash, as a whole number of 64 bits.
    """

    model_config = ConfigDict(frozen=True)

    pixels: str
    difference: int


class _Looks(RootModel[dict[str, Look | None]]):
    """Looks by the hash of a file's bytes; None at one that cannot be opened."""


def look_at(files: Mapping[str, Path], source: str) -> dict[str, Look | None]:
    """Return looks at pictures, each decoded once as long as its bytes are the same; None at one that cannot be opened.

    Args:
        files: by the hash of their bytes, which looks are found again by.
        source: the task file that shows them; its looks are stored together.
    """
    stored = _store_of(source)
    known = _read(stored)
    new = {digest: path for digest, path in files.items() if digest not in known}
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        known |= zip(new, threads.map(_look, new.values()), strict=True)
    looks = {digest: known[digest] for digest in files}
    if len(new) >= _WORTH_KEEPING:
        try:
            write_text_atomically(stored, _Looks(looks).model_dump_json())
        except StoreError as error:
            warnings.warn(f"pictures are decoded again at every start: {error}", RuntimeWarning, stacklevel=2)
    return looks


def _look(path: Path) -> Look | None:
    try:
        image = FileImage(path).open()
    except TaskError:
        return None
    return Look(pixels=pixels_digest(image), difference=difference_hash(image))


def _store_of(source: str) -> Path:
    key = repr((str(Path(source).resolve()), PIL.__version__, _VERSION))
    return cache_folder() / "pictures" / f"{hashlib.sha256(key.encode()).hexdigest()}.json"


def _read(path: Path) -> dict[str, Look | None]:
    """Return what is stored, or nothing where that cannot be read: it can be made again."""
    try:
        return _Looks.model_validate_json(path.read_bytes()).root
    except (OSError, ValidationError):
        return {}
