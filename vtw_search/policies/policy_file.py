"""Reading and writing policy files: JSON, checked against the schema, written atomically."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from vtw_search.errors import PolicyFileError
from vtw_search.files import write_text_atomically
from vtw_search.policies.policy import SCHEMA_VERSION, PolicySet

SCHEMA_PATH = Path(__file__).with_name("policy.schema.json")


def load_policy(path: str | os.PathLike[str]) -> PolicySet:
    """Read a policy file.

    Raises:
        PolicyFileError: the file is missing, truncated, of a newer schema version, or breaks the schema.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise PolicyFileError("a policy file must be readable", value=str(path), remedy=str(error)) from error
    except ValueError as error:
        remedy = f"it is truncated or was edited ({error}); export it again with vtw-search"
        raise PolicyFileError("a policy file must be complete JSON", value=str(path), remedy=remedy) from error
    return parse_policy(content, source=str(path))


def parse_policy(content: Any, source: str = "policy") -> PolicySet:
    """Check the content of a policy file that is already parsed from JSON; errors as `load_policy`."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if not isinstance(version, int):
        raise PolicyFileError("a policy file must be an object with an integer schema_version", value=source)
    if version > SCHEMA_VERSION:
        raise PolicyFileError(
            f"this version reads policy files up to schema_version {SCHEMA_VERSION}",
            value=version,
            remedy="upgrade vtw-search",
        )
    try:
        return PolicySet.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        message = f"{place}: {first['msg']} ({error.error_count()} problem(s) in all)"
        raise PolicyFileError("a policy file must follow its schema", value=source, remedy=message) from error


def save_policy(policies: PolicySet, path: str | os.PathLike[str]) -> Path:
    """Write a policy file atomically: the old file, or none, stays until the new one is complete on disk."""
    text = policies.model_dump_json(indent=2) + "\n"
    return write_text_atomically(Path(path), text)


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of policy files; `policy.schema.json` beside this module holds the same."""
    return PolicySet.model_json_schema()
