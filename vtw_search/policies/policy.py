"""Policies as frozen data: what leaves, where, per task. Nothing here knows a model."""

from __future__ import annotations

import hashlib
import warnings
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt, StrictStr, model_validator

from vtw_search.errors import PolicyError, PolicyFileError, UnknownTaskWarning, near_matches
from vtw_search.facts import ModelFingerprint
from vtw_search.policies.certificate import Certificate

SCHEMA_VERSION: Literal[1] = 1
_FROZEN = ConfigDict(frozen=True, extra="forbid")


Option = StrictBool | StrictInt | StrictFloat | StrictStr
Share = Annotated[StrictFloat, Field(gt=0, le=1)]
Count = Annotated[StrictInt, Field(ge=1)]


class _WithOptions(BaseModel):
    model_config = _FROZEN

    options: dict[str, Option] = {}

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def __eq__(self, other: object) -> bool:
        # Python holds 1, 1.0 and True for equal; one token, all of them and an option are not.
        return isinstance(other, type(self)) and self.model_dump_json() == other.model_dump_json()


class ScorerChoice(_WithOptions):
    """A scorer by name, and its own options."""

    name: str

    def label(self) -> str:
        """Return a short name for tables."""
        return "-".join([self.name, *(f"{name}={value}" for name, value in self.options.items())])


class Stage(_WithOptions):
    """One operator at one place.

    Attributes:
        site: `decoder` acts on the input of decoder layer `layer`; `vision` acts before the decoder.
        layer: K, 0-based, from 1 to L; at K = L nothing is left to save. 0 where the site is `vision`.
        operator: name of an operator, for example `withdraw`.
        keep: how many of the visual tokens that are left stay: a share in (0, 1], a count, or the name of a budget that
            the scores themselves decide.
        scorer: what ranks the visual tokens.
        position: `keep` leaves every token its position; `recount` numbers the shortened sequence anew.
        options: the operator's own.
    """

    site: Literal["vision", "decoder"] = "decoder"
    layer: int = Field(ge=0)
    operator: str
    keep: Share | Count | StrictStr | None = None
    scorer: ScorerChoice | None = None
    position: Literal["keep", "recount"] = "keep"

    @model_validator(mode="after")
    def _layer_of_site(self) -> Stage:
        if (self.site == "vision") != (self.layer == 0):
            raise ValueError("layer must be 0 before the decoder (site vision) and at least 1 inside it")
        return self

    def label(self) -> str:
        """Return a short name for tables, such as `prune@2:0.5:text_to_visual`."""
        place = self.operator if self.site == "vision" else f"{self.operator}@{self.layer}"
        keep = f"{self.keep:.3g}" if isinstance(self.keep, float) else self.keep
        scorer = self.scorer.label() if self.scorer else None
        options = [f"{name}={value}" for name, value in self.options.items()]
        recount = ["recount"] if self.position == "recount" else []
        return ":".join(str(part) for part in (place, keep, scorer, *options, *recount) if part is not None)


class Policy(BaseModel):
    """An ordered tuple of stages for one task; the empty policy keeps every token."""

    model_config = _FROZEN

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

    def digest(self) -> str:
        """Return a short hash that is equal for equal policies."""
        # Defaults are left out, so that a later field with a default leaves the hash of older policies alone.
        return hashlib.sha256(self.model_dump_json(exclude_defaults=True).encode()).hexdigest()[:16]

    def label(self) -> str:
        """Return a short name for tables, such as `keep-all` or `withdraw@16`."""
        return " + ".join(stage.label() for stage in self.stages) or "keep-all"


class TaskPolicy(BaseModel):
    """A task's policy and why it was chosen.

    Attributes:
        policy: what is applied.
        verdict: one sentence for people.
        limits: the limits that it was chosen under.
        measured: per split, the numbers of this policy with their sample counts.
        dataset_digests: per split, a hash of the samples that were used.
    """

    model_config = _FROZEN

    policy: Policy
    verdict: str = ""
    limits: dict[str, Any] = {}
    measured: dict[str, dict[str, Any]] = {}
    dataset_digests: dict[str, str] = {}


class PolicySet(BaseModel):
    """What a policy file holds: a policy per task, a default for all others, and where they come from."""

    model_config = _FROZEN

    schema_version: Literal[1] = SCHEMA_VERSION
    model: ModelFingerprint
    default: Policy = Policy()
    tasks: dict[str, TaskPolicy] = {}
    certificate: Certificate | None = None
    provenance: dict[str, Any] = {}

    def __hash__(self) -> int:
        return hash(self.model_dump_json())

    def for_task(self, task: str | None) -> Policy:
        """Return the policy of `task`, or the default (with a warning if a name was given that is not known)."""
        if task in self.tasks:
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
