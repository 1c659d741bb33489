"""Reading and writing policy files: JSON, checked against the schema, written atomically."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from vtw_search.errors import PolicyFileError
from vtw_search.files import write_text_atomically
from vtw_search.policies.json_file import first_problem, read_json
from vtw_search.policies.policy import PolicySet
from vtw_search.policies.versions import LATEST, in_context

# By schema version. That of version 1 is closed; the last one is what the models say.
SCHEMA_PATHS = {version: Path(__file__).with_name(f"policy.schema.{version}.json") for version in (1, LATEST)}


def load_policy(path: str | os.PathLike[str]) -> PolicySet:
    """Read a policy file of any schema version.

    Raises:
        PolicyFileError: the file is missing, truncated, too large or too deep, of a newer schema version, or breaks the
            schema.
    """
    return parse_policy(read_json(path, "policy file", "export it again with vtw-search"), source=str(path))


def parse_policy(content: Any, source: str = "policy") -> PolicySet:
    """Check the content of a policy file that is already parsed from JSON; errors as `load_policy`."""
    version = content.get("schema_version") if isinstance(content, dict) else None
    if type(version) is not int:
        raise PolicyFileError("a policy file must be an object with an integer schema_version", value=source)
    if not 1 <= version <= LATEST:
        rule = f"this version reads policy files of schema_version 1 to {LATEST}"
        remedy = "upgrade vtw-search" if version > LATEST else "export it again with vtw-search"
        raise PolicyFileError(rule, value=str(version)[:20], remedy=remedy)
    policies = {name: value for name, value in content.items() if name != "schema_version"}
    try:
        return PolicySet.model_validate(policies, context=in_context(version))
    except ValidationError as error:
        rule = f"a policy file must follow its schema (version {version})"
        raise PolicyFileError(rule, value=source, remedy=first_problem(error)) from error


def policy_content(policies: PolicySet) -> dict[str, Any]:
    """Return what the file of `policies` holds, as plain JSON values; `parse_policy` is the way back."""
    version = policies.schema_version
    content = policies.model_dump(mode="json", context=in_context(version))
    return {"schema_version": version, **content}


def save_policy(policies: PolicySet, path: str | os.PathLike[str]) -> Path:
    """Write a policy file atomically: the old file, or none, stays until the new one is complete on disk."""
    return write_text_atomically(Path(path), to_json(policy_content(policies), indent=2).decode() + "\n")


def policy_schema() -> dict[str, Any]:
    """Return the JSON Schema of policy files of the last version; a file beside this module holds the same."""
    schema = PolicySet.model_json_schema()
    schema["properties"]["tasks"]["additionalProperties"] = False
    version = {"schema_version": {"const": LATEST, "title": "Schema Version", "type": "integer"}}
    return {**schema, "properties": version | schema["properties"], "required": ["schema_version", *schema["required"]]}
