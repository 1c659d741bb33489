"""Which commit of a Hub repository a model is loaded from, and which files its weights are said to be in."""

from __future__ import annotations

import json
import re
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError

_INDEX = "model.safetensors.index.json"


def is_commit(revision: str | None) -> bool:
    """Tell whether a revision names one commit for ever, which a branch or a tag does not."""
    return revision is not None and re.fullmatch(r"[0-9a-f]{40}", revision) is not None


def resolve_revision(path: str, revision: str | None) -> str | None:
    """Return the commit that `revision` (by default the main branch) of a Hub repository is now; None for a folder.

    Where the Hub cannot be reached, it is the commit that was downloaded last.

    Raises:
        OSError, ValueError: there is no such folder or repository, or it cannot be reached and is not in the cache.
    """
    if Path(path).is_dir():
        return None
    if is_commit(revision):
        return revision
    # In the cache every file lies in a folder that has the name of its commit.
    return Path(hf_hub_download(path, "config.json", revision=revision)).parent.name


def unsafe_weights(path: str, commit: str | None) -> list[str]:
    """Return the files other than safetensors that the index of a model's weights names; transformers would read them.

    Args:
        path: a folder or a Hub id.
        commit: of the Hub repository.

    Raises:
        OSError, ValueError: the index cannot be read.
    """
    try:
        index = Path(path, _INDEX) if commit is None else Path(hf_hub_download(path, _INDEX, revision=commit))
        content = json.loads(index.read_text())
    except (FileNotFoundError, EntryNotFoundError):
        return []
    files = content.get("weight_map", {}).values() if isinstance(content, dict) else ()
    return sorted({str(file) for file in files if not str(file).endswith(".safetensors")})
