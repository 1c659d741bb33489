"""The configuration of `vtw-profile`, checked as a whole."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

from omegaconf import DictConfig
from pydantic import BaseModel, ConfigDict, Field, model_validator

from profilers.protocol import MAX_SECONDS
from profilers.regimes import Regime, regime_grid
from vtw_search.config import compose_config, content_of, validated
from vtw_search.errors import ConfigError, near_matches
from vtw_search.facts import ModelFacts
from vtw_search.files import PlainName
from vtw_search.policies import Policy
from vtw_search.recipes import find_recipe, recipe_policy
from vtw_search.settings import Count, FilePath, Group, ModelSettings, Repeats, Seconds, TrackingSettings

Axis = Annotated[tuple[Count, ...], Field(min_length=1)]


class RegimeSettings(Group):
    """Which regimes are measured, and how long.

    Attributes:
        repeats: rounds A B B A at least; 0 counts macs only.
        batch, visual_tokens, prompt_tokens, output_tokens: the axes of the grid.
        min_seconds: of timed rounds at least.
        max_seconds: per regime and phase, after which times that have not settled are waited for no longer.
    """

    repeats: Repeats = 5
    batch: Axis = (1,)
    visual_tokens: Axis | None = None
    prompt_tokens: Axis = (64,)
    output_tokens: Axis = (1, 32)
    min_seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    max_seconds: Seconds = MAX_SECONDS

    def grid(self, tokens_of_a_row: Callable[[], int]) -> list[Regime]:
        """Return the regimes; `tokens_of_a_row` is asked where no number of visual tokens was given."""
        return regime_grid(
            batch=self.batch,
            visual_tokens=self.visual_tokens or (tokens_of_a_row(),),
            prompt_tokens=self.prompt_tokens,
            output_tokens=self.output_tokens,
        )


class RecipeSettings(BaseModel):
    """A published method; all other keys are its parameters, which have their published values unless given."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str

    def policy(self, facts: ModelFacts) -> Policy:
        """Return the method as a policy of a model.

        Raises:
            ConfigError: a parameter does not exist, or the parameters do not go together.
            PolicyError: a parameter has a value that no stage of a policy can have.
            UnknownNameError: there is no such recipe.
        """
        given = {key: value for key, value in (self.model_extra or {}).items() if value is not None}
        parameters = find_recipe(self.name).parameters(facts)
        for key in given:
            if key not in parameters:
                raise ConfigError(
                    f"unknown parameter {key!r} of recipe {self.name!r}", remedy=near_matches(key, parameters)
                )
        chosen = {key: given.get(key, parameter.default) for key, parameter in parameters.items()}
        policy = recipe_policy(self.name, facts, chosen)
        if policy is None:
            raise ConfigError(f"the parameters of recipe {self.name!r} must go together", value=chosen)
        return policy


class ProfileConfig(Group):
    """Everything a profile depends on."""

    name: PlainName | None = None
    runs: FilePath = "runs"
    model: ModelSettings
    weights: Literal["load", "random"] = "load"
    policy: FilePath | None = None
    policy_task: str | None = None
    recipe: RecipeSettings | None = None
    profile: RegimeSettings = RegimeSettings()
    tracking: TrackingSettings = TrackingSettings()

    @model_validator(mode="after")
    def _one_policy(self) -> ProfileConfig:
        if (self.policy is None) == (self.recipe is None):
            raise ValueError("give either policy=<file> or recipe=<name>, such as recipe=vtw recipe.layer=16")
        if self.policy is None and self.policy_task is not None:
            raise ValueError("policy_task chooses from a policy file, and a recipe has no tasks; leave policy_task out")
        return self

    @property
    def profile_name(self) -> str:
        """The given name, or one made of the model, the policy and a hash of what decides the result."""
        if self.name is not None:
            return self.name
        how = dict.fromkeys(("name", "runs", "tracking"), True)
        decisive = self.model_dump(mode="json", exclude={**how, "profile": {"max_seconds"}})
        digest = hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()[:8]
        model = re.sub(r"[^A-Za-z0-9.-]+", "-", self.model.path.rstrip("/").split("/")[-1]).strip("-.") or "model"
        return f"profile-{model}-{digest}"


def load_profile_config(*overrides: str, config_dirs: Sequence[str] = ()) -> ProfileConfig:
    """Compose `conf/vtw_profile.yaml` with command-line overrides.

    Raises:
        ConfigError: a name is unknown (with near matches) or a value is not allowed; all bad values are listed at once.
    """
    return validate_profile(compose_config("vtw_profile", ProfileConfig, overrides, config_dirs))


def validate_profile(composed: DictConfig) -> ProfileConfig:
    """Check a composed configuration; ConfigError lists every bad value."""
    content: dict[str, Any] = content_of(composed)
    return validated(ProfileConfig, {key: value for key, value in content.items() if key != "hydra"})
