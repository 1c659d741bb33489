"""Records of before identities named only what a policy uses: found beside today's, read, never written.

They were identified by the versions of every operator and scorer that was registered, and by a hash of the model's
files. Of what is still computed in the same way nothing is measured again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vtw_search.files import read_json
from vtw_search.versions import Versions, registered_versions, still_hold

# What such an identity has and today's has not.
_FORMER = ("operators", "scorers", "files")
Identity = Mapping[str, Any]
_IDENTITY = TypeAdapter(dict[str, Any])


@dataclass(frozen=True)
class FormerStore:
    """A folder of such records.

    Attributes:
        folder: where they are.
        identity: as it was stored, without the version of the records.
    """

    folder: Path
    identity: Identity

    @property
    def versions(self) -> Versions:
        """The versions of what was registered when the records were made."""
        kinds = {"operator": self.identity["operators"], "scorer": self.identity["scorers"]}
        return {f"{kind} {name}": version for kind, each in kinds.items() for name, version in each.items()}

    def holds(self, names: Sequence[str] | None) -> bool:
        """Tell whether records of a policy that uses `names` would come out the same now; None is any policy."""
        # A policy that cannot be asked for any more does not matter.
        return still_hold(self.versions, registered_versions().keys() & self.versions if names is None else names)


def find_former(root: Path, identity: Identity, former: Callable[[], Sequence[Identity]]) -> Iterator[FormerStore]:
    """Yield the folders below `root` whose records are of `identity`.

    Args:
        root: where stores are.
        identity: today's, with the version of the records.
        former: returns the former forms of it, without operators and scorers; asked only if a folder may fit.
    """
    common = {name: value for name, value in identity.items() if name not in ("tensors", "settings")}
    for path in sorted(root.glob("*/identity.json")):
        stored = read_json(path, _IDENTITY, "move its folder away; what is in it is measured again when it is needed")
        if _FORMER[0] not in stored or {name: value for name, value in stored.items() if name not in _FORMER} != common:
            continue
        if any(stored["files"] == each["files"] for each in former()):
            yield FormerStore(path.parent, {name: value for name, value in stored.items() if name != "records"})
