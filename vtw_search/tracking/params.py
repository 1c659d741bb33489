"""Names and values as MLflow takes them: flat, of limited length, and without secrets."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

# The limits of MLflow 3, from mlflow.utils.validation; an import would cost seconds.
MAX_KEY_LENGTH = 250
MAX_PARAM_LENGTH = 6000
MAX_TAG_LENGTH = 8000

# How a search is run and where it is written, not what is searched. They may differ when a search is resumed, and
# MLflow refuses to change a param.
OPERATIONAL_GROUPS = frozenset({"tracking", "storage", "hydra", "launcher"})

# A password may hold `/` and `@`; a path with `@` and without a colon before it is no secret.
_USER_INFO = re.compile(r"(?<=://)(?!/)(?:[^\s'\"]*:[^\s'\"]*|[^\s'\"/?#]*)@")
_SECRET_NAME = r"(?:passw(?:or)?d|pwd|secret|token|api[_-]?key|access[_-]?key|credentials?|signature|sig)"
_SECRET_QUERY = re.compile(rf"([?&;][\w.-]*{_SECRET_NAME}=)[^&;\s'\"]+", re.IGNORECASE)
_SECRET_KEY = re.compile(rf"(?:^|[._-]){_SECRET_NAME}$", re.IGNORECASE)
_HIDDEN = "***"


def redact(text: str) -> str:
    """Return `text` with user, password and secret query values of all URIs in it replaced by `***`."""
    return _SECRET_QUERY.sub(rf"\1{_HIDDEN}", _USER_INFO.sub(f"{_HIDDEN}@", text))


def flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a nested mapping under names such as `limits.kl_nats`."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def config_params(config: Mapping[str, Any]) -> dict[str, str]:
    """Return a configuration as params: flat, without secrets and without the groups that only say how it is run."""
    searched = {key: value for key, value in config.items() if key not in OPERATIONAL_GROUPS}
    return {name: _HIDDEN if _is_secret(name, value) else redact(_text(value)) for name, value in flatten(searched)}


def _is_secret(name: str, value: Any) -> bool:
    return isinstance(value, str) and bool(_SECRET_KEY.search(name))


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numeric leaves of a nested mapping as metrics; True and False count as 1 and 0.

    Infinite ones are left out, such as the interval around a single image: MLflow shows them as 1.8e308.
    """
    leaves = ((name, value) for name, value in flatten(values) if isinstance(value, int | float))
    return {name: float(value) for name, value in leaves if math.isfinite(value)}


def legal_name(name: str) -> str:
    """Return `name` with the characters that MLflow refuses in names replaced; it reads names as paths, too."""
    return re.sub(r"[^\w\-. :]", "_", name).lstrip(".")[:MAX_KEY_LENGTH] or "_"


def cut(text: str, length: int) -> str:
    """Shorten `text` to MLflow's limit, and say in it that something is missing."""
    note = f" [cut, {len(text)} characters]"
    return text if len(text) <= length else text[: length - len(note)] + note


def cut_params(params: Mapping[str, str]) -> Sequence[str]:
    """Return the names of the params that MLflow cannot hold in full."""
    return [name for name, value in params.items() if len(value) > MAX_PARAM_LENGTH]
