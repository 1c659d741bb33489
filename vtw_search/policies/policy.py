"""Policies as frozen data: what leaves, where, per task. Nothing here knows a model."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator

from vtw_search.errors import PolicyError, PolicyFileError, UnknownTaskWarning, near_matches
from vtw_search.facts import ModelFingerprint
from vtw_search.files import PlainName
from vtw_search.frozen import Frozen, FrozenJson, FrozenMap, FrozenModel, frozen_json
from vtw_search.policies.certificate import Certificate
from vtw_search.policies.stage import Stage
from vtw_search.policies.versions import in_context, plain


class Policy(FrozenModel):
    """An ordered tuple of stages for one task; the empty policy keeps every token."""

    stages: tuple[Stage, ...] = ()

    @classmethod
    def keep_all(cls) -> Policy:
        """Return the policy that keeps every token."""
        return cls()

    @classmethod
    def withdraw(cls, layer: int) -> Policy:
        """Return VTW (Lin et al., AAAI 2025): all visual tokens leave at the input of decoder layer `layer`.

        Raises:
            PolicyError: `layer` is not an integer of at least 1.
        """
        layer = plain(layer)
        if not isinstance(layer, int) or isinstance(layer, bool) or layer < 1:
            raise PolicyError(
                "a withdrawal layer K must be an integer of at least 1",
                value=layer,
                remedy="layer 0 would hide the image from the decoder; choose K from 1 to the number of layers",
            )
        return cls(stages=(Stage(layer=layer, operator="withdraw"),))

    @property
    def is_keep_all(self) -> bool:
        """Whether the policy has no stage."""
        return not self.stages

    @property
    def schema_version(self) -> int:
        """The lowest schema version of policy files that this policy can be written in."""
        return max((stage.schema_version for stage in self.stages), default=1)

    def digest(self) -> str:
        """Return a short hash that is equal for equal policies: that of the form of version 1 where there is one."""
        # Defaults are left out, so that a later field with a default leaves the hash of older policies alone.
        text = self.model_dump_json(exclude_defaults=True, context=in_context(1))
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def label(self) -> str:
        """Return a short name for tables, such as `keep-all` or `withdraw@16`."""
        return " + ".join(stage.label() for stage in self.stages) or "keep-all"


class TaskPolicy(FrozenModel):
    """A task's policy and why it was chosen.

    Attributes:
        policy: what is applied.
        verdict: one sentence for people.
        limits: the limits that it was chosen under.
        measured: per split, the numbers of this policy with their sample counts.
        dataset_digests: per split, a hash of the samples that were used.
    """

    policy: Policy
    verdict: str = ""
    limits: FrozenJson = Frozen()
    measured: Annotated[Mapping[str, dict[str, Any]], AfterValidator(frozen_json)] = Frozen()
    dataset_digests: Annotated[Mapping[str, str], AfterValidator(frozen_json)] = Frozen()


class PolicySet(FrozenModel):
    """What a policy file holds: a policy per task, a default for all others, and where they come from."""

    model: ModelFingerprint
    default: Policy = Policy()
    tasks: FrozenMap[PlainName, TaskPolicy] = Frozen()
    certificate: Certificate | None = None
    provenance: FrozenJson = Frozen()

    @property
    def schema_version(self) -> int:
        """The schema version that the file of these policies has: the lowest that its policies need."""
        return max(policy.schema_version for policy in (self.default, *(each.policy for each in self.tasks.values())))

    def for_task(self, task: str | None) -> Policy:
        """Return the policy of `task`, or the default (with a warning if a name was given that is not known)."""
        if task is not None and task in self.tasks:
            return self.tasks[task].policy
        if task is not None:
            hint = near_matches(task, self.tasks)
            warnings.warn(f"no policy for task {task!r}, using the default; {hint}", UnknownTaskWarning, stacklevel=2)
        return self.default

    def require_model(self, found: ModelFingerprint) -> None:
        """Raise PolicyFileError unless the policies can run on a model: it has the shape of the one they are for."""
        if not self.model.same_shape(found):
            remedy = "load the model that the file names, or search a policy for this one"
            rule = f"the policy file is for {self.model.describe()}"
            raise PolicyFileError(rule, value=found.describe(), remedy=remedy)
