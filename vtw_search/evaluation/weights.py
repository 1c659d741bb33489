"""What identifies a local model: its tensors, and the settings beside them, not the files that hold them."""

from __future__ import annotations

import contextlib
import hashlib
import re
import warnings
from functools import lru_cache
from pathlib import Path

import torch
from safetensors import safe_open

from vtw_search.errors import StoreError
from vtw_search.files import cache_folder, write_text_atomically

# Files that decide what a model computes, beside its weights. An index only says which file holds which tensor.
_SETTINGS = ("*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken")
_INDEX = ".index.json"
# Digests are 256 bits; sums of them are taken modulo this.
_MODULUS = 1 << 256
# Raised when tensors are hashed in another way.
_VERSION = 2
_HEX = re.compile("[0-9a-f]{64}")


def tensors_digest(folder: Path) -> str:
    """Return a hash of all tensors of a folder's safetensors files: their values, types, shapes and innermost names.

    It is the sum over the tensors, so that it depends neither on their order nor on the files they are in. Of a name
    only what follows the outer modules counts (`layers.3.mlp.up_proj.weight` -> `3.mlp.up_proj.weight`): releases of
    transformers wrap the same modules differently.
    """
    parts = [int(_file_digest(path, *_state(path)), 16) for path in sorted(folder.glob("*.safetensors"))]
    return f"{sum(parts) % _MODULUS:064x}"[:16]


def settings_digest(folder: Path) -> str:
    """Return a hash of a folder's configuration, vocabulary, chat template and generation settings."""
    return _hash_of_files(folder, [path for path in _matching(folder, _SETTINGS) if not path.name.endswith(_INDEX)])


def former_digest(folder: Path) -> str:
    """Return the hash of files that identified a local model before its tensors did; old records are found by it."""
    return _hash_of_files(folder, _matching(folder, ("*.json", "*.jinja", "*.safetensors", *_SETTINGS[2:])))


def _matching(folder: Path, kinds: tuple[str, ...]) -> list[Path]:
    return [path for kind in kinds for path in sorted(folder.glob(kind))]


def _hash_of_files(folder: Path, paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]


def _state(path: Path) -> tuple[int, ...]:
    """Return what changes whenever a file is written or replaced."""
    found = path.stat()
    return found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino


@lru_cache(maxsize=4096)
def _file_digest(path: Path, *state: int) -> str:
    """Return the sum of the digests of a file's tensors, read anew only if the file has changed since."""
    key = hashlib.sha256(repr((_VERSION, str(path.resolve()), state)).encode()).hexdigest()
    stored = cache_folder() / "tensors" / key
    # A folder of another user's cannot even be looked into.
    with contextlib.suppress(OSError):
        if _HEX.fullmatch(text := stored.read_text(encoding="utf-8", errors="replace").strip()):
            return text
    found = f"{_sum_of_tensors(path):064x}"
    try:
        write_text_atomically(stored, found + "\n")
    except StoreError as error:
        warnings.warn(f"weights are hashed again at every start: {error}", RuntimeWarning, stacklevel=2)
    return found


def _sum_of_tensors(path: Path) -> int:
    total = 0
    with safe_open(path, framework="pt", device="cpu") as file:
        for name in file.keys():  # noqa: SIM118 - not a dictionary
            total += int.from_bytes(_tensor_digest(name, file.get_tensor(name)))
    return total % _MODULUS


def _tensor_digest(name: str, tensor: torch.Tensor) -> bytes:
    digest = hashlib.sha256(repr((inner_name(name), str(tensor.dtype), tuple(tensor.shape))).encode())
    digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def inner_name(name: str) -> str:
    """Return a tensor's name from its first number on, or the last two parts of one without a number.

    Those of a vision tower are told from those of a decoder, whose layers are called alike.
    """
    parts = name.split(".")
    first = next((place for place, part in enumerate(parts) if part.isdigit()), max(0, len(parts) - 2))
    tower = any("vis" in part for part in parts[:first])
    return ".".join([*(["vision"] if tower else []), *parts[first:]])
