"""Composing `conf/` with overrides, and saying in one line each what is wrong with them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_module
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException, HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import InterpolationKeyError, OmegaConfBaseException
from pydantic import BaseModel, ValidationError

from vtw_search.databases import sqlite_url
from vtw_search.errors import ConfigError, near_matches
from vtw_search.files import with_home
from vtw_search.overrides import check_values, home_expanded, is_setting, parsed, text_setting, unknown_setting
from vtw_search.settings import SearchConfig, StorageSettings

# Settings that begin empty and take entries of any name.
_OPEN = ("limits.at_most", "limits.slices", "limits.weights", "limits.per_task", "space.recipes", "recipe")
_Settings = TypeVar("_Settings", bound=BaseModel)
# `conf/` makes URLs of folders with it, whatever they are called.
OmegaConf.register_new_resolver("sqlite_url", sqlite_url, replace=True)


def load_config(*overrides: str, config_dirs: Sequence[str] = ()) -> SearchConfig:
    """Compose `conf/` with command-line overrides, for example `load_config("task=digits_read", "seed=1")`.

    Raises:
        ConfigError: a name is unknown (with near matches) or a value is not allowed; all bad values are listed at once.
    """
    return validate(compose_config("config", SearchConfig, overrides, config_dirs))


def compose_config(
    primary: str, model: type[BaseModel], overrides: Sequence[str], config_dirs: Sequence[str] = ()
) -> DictConfig:
    """Compose `conf/<primary>.yaml`; `model` knows its keys, for near matches. Raises ConfigError."""
    config_dirs = [with_home(folder) for folder in config_dirs]
    for folder in config_dirs:
        if not Path(folder).is_dir():
            raise ConfigError("a folder of settings must exist", value=folder, remedy="correct --config-dir")
    overrides = [home_expanded(override) for override in overrides]
    _check_choices(overrides)
    check_values(parsed(overrides), model)
    folders = ",".join(text_setting("", f"file://{folder}").removeprefix("=") for folder in config_dirs)
    try:
        with initialize_config_module("conf", version_base="1.3"):
            try:
                return compose(primary, overrides=[*overrides, *([f"hydra.searchpath=[{folders}]"] if folders else [])])
            except MissingConfigException as error:
                raise _unknown_option(error) from error
    except (ConfigCompositionException, HydraException, OmegaConfBaseException) as error:
        raise _bad_override(error, overrides, model) from error


def _check_choices(overrides: Sequence[str]) -> None:
    """Refuse `task=[jsonl,jsonl]`, which Hydra would take for one."""
    for override in overrides:
        chosen = re.fullmatch(r"task=\[([\w,\s]*)\]", override)
        names = [] if chosen is None else [name.strip() for name in chosen[1].split(",")]
        if len(set(names)) < len(names):
            remedy = "name it once; a second task file is +tasks.two={source: jsonl, options: {path: ...}, ...}"
            raise ConfigError("a task may be chosen once", value=override, remedy=remedy)


def validate(composed: DictConfig | Mapping[str, Any]) -> SearchConfig:
    """Check a composed configuration; ConfigError lists every bad value."""
    # `task` only carries the command-line options of task=jsonl, which the tasks refer to.
    content = {key: value for key, value in content_of(composed).items() if key not in {"task", "hydra"}}
    config = validated(SearchConfig, content)
    if len(config.named_tasks) < len(config.tasks):
        raise ConfigError("two tasks must not have one name", value=sorted(config.tasks), remedy="set task.name")
    _check_task_names(config)
    _check_storage(config.storage)
    return config


def content_of(composed: DictConfig | Mapping[str, Any]) -> dict[str, Any]:
    """Return a composed configuration as plain values; ConfigError names a setting that needs a value."""
    try:
        content = OmegaConf.to_container(_as_config(composed), resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        key = getattr(error, "full_key", None)
        if isinstance(error, InterpolationKeyError):
            remedy = "${...} stands for another setting; where it is a text write \\${...}"
            raise ConfigError(f"{str(error).splitlines()[0]} (in {key})", remedy=remedy) from error
        raise ConfigError(f"the setting {key} needs a value", remedy=f"add {key}=...") from error
    assert isinstance(content, dict)
    return {str(key): value for key, value in content.items()}


def validated(model: type[_Settings], content: Mapping[str, Any]) -> _Settings:
    """Return `content` as `model`; ConfigError lists every bad value."""
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(error, model))) from error


def _as_config(composed: DictConfig | Mapping[str, Any]) -> DictConfig:
    return composed if isinstance(composed, DictConfig) else OmegaConf.create(dict(composed))


def _check_task_names(config: SearchConfig) -> None:
    for task in config.limits.per_task:
        if task not in config.named_tasks:
            remedy = near_matches(task, config.named_tasks)
            raise ConfigError(f"unknown task {task!r} in limits.per_task", remedy=remedy)


def _check_storage(storage: StorageSettings) -> None:
    url = storage.url or ""
    # The URL is in no message: it may hold a password.
    fits = re.match(r"postgresql(\+psycopg)?://", url) if storage.name == "postgres" else not url
    if not fits:
        remedy = "for example storage=postgres storage.url=postgresql://me@host/database"
        raise ConfigError(
            "storage.url must be that of a PostgreSQL database, and is for storage=postgres", remedy=remedy
        )


def _problems(error: ValidationError, model: type[BaseModel]) -> list[str]:
    """Return one text per setting; none of a setting whose parts are wrong, for those are named."""
    found: dict[str, list[Any]] = {}
    for detail in error.errors():
        # A union reports one problem per member; the member's name is no part of the setting's name.
        parts = (str(part) for part in detail["loc"])
        place = ".".join(part for part in parts if not re.search(r"[\[(]|^(float|int|str|constrained)", part))
        found.setdefault(place, []).append(detail)
    told = [place for place in found if not any(each.startswith(f"{place}.") for each in found)]
    return [_problem(place, found[place], model) for place in told]


def _problem(place: str, details: Sequence[Any], model: type[BaseModel]) -> str:
    if details[0]["type"] == "extra_forbidden":
        return unknown_setting(place, model)
    messages = [detail["msg"].removeprefix("Value error, ") for detail in details]
    first, *others = (message[0].lower() + message[1:] for message in messages)
    text = " or ".join(dict.fromkeys([first, *(other.removeprefix("input should be ") for other in others)]))
    # What concerns several settings has no place, and its value would be all of them.
    return f"{place}: {text}, got {details[0]['input']!r}" if place else text


def _unknown_option(error: MissingConfigException) -> ConfigError:
    """Name what there is instead; Hydra's configuration must still be open, for it says nothing of a list's options."""
    group, _, option = str(error.missing_cfg_file or "").rpartition("/")
    options = error.options or GlobalHydra.instance().config_loader().get_group_options(group)
    return ConfigError(f"unknown {group or 'config'} {option!r}", remedy=near_matches(option, options))


def _bad_override(error: Exception, overrides: list[str], model: type[BaseModel]) -> ConfigError:
    text = str(error).splitlines()[0]
    key = re.search(r"(?:override|find|append to config. An item is already at|delete from config.) '([^'=]+)", text)
    if key is None or not re.search("override|delete", text, re.IGNORECASE):
        return ConfigError(text, value=" ".join(overrides), remedy="overrides look like group=option or key.sub=value")
    if is_setting(key[1], model):
        remedy = f"write +{key[1]}.<task>.<limit>=<value>"
        return ConfigError(f"entries are added to {key[1]} with a plus", value=" ".join(overrides), remedy=remedy)
    for place in (place for place in _OPEN if is_setting(place, model) and key[1].startswith(f"{place}.")):
        entry = next(each for each in overrides if each.startswith(key[1]))
        return ConfigError(f"entries are added to {place} with a plus", value=entry, remedy=f"write +{entry}")
    return ConfigError(unknown_setting(key[1], model))
