"""`run_profile`: from a configuration to a table, JSON, a picture and an MLflow run."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.markup import escape

from profilers.environment import Environment
from profilers.protocol import ProtocolSettings
from vtw_search.adapters import Adapter, find_adapter
from vtw_search.errors import ConfigError, ModelError
from vtw_search.evaluation.model import DTYPES, load_model, usable_device
from vtw_search.facts import ModelFacts
from vtw_search.files import write_text_atomically
from vtw_search.ownership import Ownership
from vtw_search.policies import Certificate, Policy, load_policy
from vtw_search.profile_config import ProfileConfig
from vtw_search.profiling.architectures import build_on_meta, build_random, load_architecture
from vtw_search.profiling.counting import CountedPrompt, count_architecture
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.rows import RegimeRow
from vtw_search.profiling.vision import left_out, tokens_of_an_image, vision_parts
from vtw_search.report.regimes import regime_table, sentences, write_picture
from vtw_search.report.times import times_table
from vtw_search.runtime import require_certificate
from vtw_search.tracking import TrackingSettings, redact
from vtw_search.tracking.profile_run import log_profile


@dataclass(frozen=True)
class ProfileResult:
    """What a profile leaves behind.

    Attributes:
        folder: `runs/<name>`, with `profile.json`, `profile.png` and `config.yaml`.
        rows: one per regime.
    """

    folder: Path
    rows: tuple[RegimeRow, ...]


def run_profile(config: ProfileConfig, console: Console | None = None) -> ProfileResult:
    """Profile a policy in every regime of `config`.

    Args:
        config: as `vtw_search.profile_config.load_profile_config` returns it.
        console: where the table goes; stdout by default.

    Raises:
        VtwError: a subclass says what is wrong with the configuration, the policy or the model.
    """
    console = console or Console()
    folder = Path(config.runs) / config.profile_name
    with Ownership(folder, "a profile", say=partial(console.print, highlight=False, markup=False)) as owner:
        return _profiled(config, console, folder, owner)


def _profiled(config: ProfileConfig, console: Console, folder: Path, owner: Ownership) -> ProfileResult:
    model, revision = _model(config)
    adapter = find_adapter(model)
    asked = _asked(config, adapter.facts(model))
    policy = asked.policy
    runner = RegimeRunner(adapter, model, policy, _timing(config))
    grid = config.profile.grid(lambda: asked.visual_tokens or _tokens_of_an_image(adapter, model))
    counted = _audited(adapter, model, config)
    unchecked = _unchecked(adapter, model, asked.certificate)
    if unchecked is not None:
        console.print(f"[yellow]warning:[/] {escape(unchecked)}", highlight=False)
    about = _about(policy, unchecked, runner.environment(), counted)
    rows = list[RegimeRow]()
    owner.take()
    _begin(folder, config, about, revision)
    for row in runner.rows(grid):
        console.print(f"{row.regime.label()}: {row.status}", highlight=False, markup=False)
        rows.append(row)
        _write_rows(folder, about, rows, complete=len(rows) == len(grid))
    title = f"{policy.label()} on {Path(config.model.path).name}"
    write_picture(rows, title, folder / "profile.png")
    result = ProfileResult(folder, tuple(rows))
    _show(result, title, counted, console)
    _track(result, config, console)
    return result


def _model(config: ProfileConfig) -> tuple[Any, str | None]:
    """Return the model to profile, and its commit if it came from the Hub."""
    settings = config.model
    if config.weights == "load":
        loaded = load_model(
            settings.path, revision=settings.revision, device=settings.device, dtype=settings.dtype,
            attention=settings.attention,
        )  # fmt: skip
        return loaded.model, loaded.facts.fingerprint.revision
    architecture = load_architecture(settings.path)
    if config.profile.repeats == 0:
        return build_on_meta(architecture).to(DTYPES[settings.dtype]), None
    device = torch.device(usable_device(settings.device))
    built = build_random(architecture, device=device, dtype=DTYPES[settings.dtype], attention=settings.attention)
    return built, None


@dataclass(frozen=True)
class _Asked:
    """The policy to profile, what its file says of the check of its model, and the visual tokens of a prompt.

    A search has counted a prompt of its task, one of median length; without it, a row is one image of the tower's own
    size, of which a model that cuts images into tiles sees several.
    """

    policy: Policy
    certificate: Certificate | None = None
    visual_tokens: int | None = None


def _asked(config: ProfileConfig, facts: ModelFacts) -> _Asked:
    if config.recipe is not None:
        return _Asked(config.recipe.policy(facts))
    assert config.policy is not None, "the configuration has either of them"
    policies = load_policy(config.policy)
    policies.require_model(facts.fingerprint)
    task, tasks = config.policy_task, ", ".join(policies.tasks) or "none"
    if task is not None and task not in policies.tasks:
        remedy = f"choose one of {tasks}, or leave policy_task out for the default"
        raise ConfigError("the policy file must have the task", value=task, remedy=remedy)
    policy = policies.for_task(task)
    if policy.is_keep_all:
        remedy = f"choose another with policy_task, one of {tasks}"
        raise ConfigError("a profile needs a policy by which tokens leave", value=task or "the default", remedy=remedy)
    measured = policies.tasks[task].measured.get("profile", {}) if task is not None else {}
    return _Asked(policy, policies.certificate, measured.get("visual_tokens"))


def _timing(config: ProfileConfig) -> ProtocolSettings | None:
    profile = config.profile
    if profile.repeats == 0:
        return None
    return ProtocolSettings(profile.repeats, profile.min_seconds, max_seconds=profile.max_seconds)


def _tokens_of_an_image(adapter: Adapter, model: Any) -> int:
    parts = vision_parts(adapter, model)
    if parts is None:
        rule = "profile.visual_tokens must be given where it is not known how many tokens an image has"
        remedy = "give them, such as profile.visual_tokens=[576]"
        raise ConfigError(rule, value="; ".join(left_out(adapter, model)), remedy=remedy)
    return tokens_of_an_image(adapter, model, parts[1])


def _audited(adapter: Adapter, model: Any, config: ProfileConfig) -> CountedPrompt:
    """Hold the formulas that all rows rest on against two counters, on the same architecture without weights."""
    grids = [] if vision_parts(adapter, model) is None else [adapter.default_grid(model)]
    bare = model if model.device.type == "meta" else build_on_meta(type(model.config).from_dict(model.config.to_dict()))
    return count_architecture(adapter, bare, config.profile.prompt_tokens[0], grids)


def _unchecked(adapter: Adapter, model: Any, certificate: Certificate | None) -> str | None:
    """Say that nothing shows removal to be right on a model whose family needs that shown; None where all is well."""
    if not adapter.needs_certificate:
        return None
    try:
        require_certificate(model, certificate)
    except ModelError as error:
        return f"whether removing tokens is right on this model was not checked, which no cost depends on: {error}"
    return None


def _about(policy: Policy, unchecked: str | None, environment: Environment, counted: CountedPrompt) -> dict[str, Any]:
    """Return what `profile.json` says beside its rows."""
    return {
        "policy": policy.model_dump(mode="json"),
        "unchecked": unchecked,
        "environment": environment.as_dict(),
        "macs": {
            "convention": f"{counted.cost.convention}: every query with every key",
            "not_counted": dict(counted.not_counted),
            "dead": counted.cost.dead,
            "audit": [row.as_dict() for row in counted.audit],
        },
    }


def _begin(folder: Path, config: ProfileConfig, about: dict[str, Any], commit: str | None) -> None:
    """Write the settings and no rows yet; nothing of an earlier profile of this name is left beside them.

    Args:
        folder, config, about: where, and what is written.
        commit: of a Hub model; it is written in place of a branch or of nothing.
    """
    settings = config.model_dump(mode="json")
    settings["model"]["revision"] = commit or config.model.revision
    settings["tracking"]["uri"] = config.tracking.uri and redact(config.tracking.uri)
    write_text_atomically(folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    _write_rows(folder, about, (), complete=False)
    (folder / "profile.png").unlink(missing_ok=True)


def _write_rows(folder: Path, about: dict[str, Any], rows: Sequence[RegimeRow], complete: bool) -> None:
    """Write the rows so far, so that what ends a profile early, such as Ctrl-C, loses none of them."""
    found = {"complete": complete, "regimes": [row.as_dict() for row in rows], "verdicts": sentences(rows)}
    write_text_atomically(folder / "profile.json", json.dumps({**about, **found}, indent=1) + "\n")


def _show(result: ProfileResult, title: str, counted: CountedPrompt, console: Console) -> None:
    console.print(regime_table(result.rows, title))
    if any(row.phases is not None for row in result.rows):
        console.print("", times_table(result.rows), "", sep="\n")
    for sentence in sentences(result.rows):
        console.print(sentence, highlight=False, markup=False)
    modules = len(counted.audit)
    text = f"macs: closed form and two counters agree on {modules} modules; files: {result.folder}"
    console.print(text, markup=False)


def _track(result: ProfileResult, config: ProfileConfig, console: Console) -> None:
    tracking = config.tracking
    if tracking.uri is None:
        return
    log_profile(
        TrackingSettings(tracking.uri, tracking.experiment, tracking.timeout_s),
        config.profile_name,
        result.folder,
        config.model_dump(mode="json"),
        result.rows,
        shlex.join([Path(sys.argv[0]).name, *map(redact, sys.argv[1:])]),
        warn=lambda message: console.print(f"[yellow]warning:[/] {escape(message)}", highlight=False),
    )
