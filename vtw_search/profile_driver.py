"""`run_profile`: from a configuration to a table, JSON, a picture and an MLflow run."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console

from profilers.timing import ProtocolSettings
from vtw_search.adapters import Adapter, find_adapter
from vtw_search.errors import ConfigError
from vtw_search.evaluation.model import DTYPES, load_model
from vtw_search.facts import ModelFacts
from vtw_search.files import write_text_atomically
from vtw_search.policies import Policy, load_policy
from vtw_search.profile_config import ProfileConfig
from vtw_search.profiling.architectures import build_on_meta, build_random, load_architecture
from vtw_search.profiling.counting import CountedPrompt, count_architecture
from vtw_search.profiling.regimes import RegimeRunner
from vtw_search.profiling.rows import RegimeRow
from vtw_search.profiling.vision import vision_parts
from vtw_search.report.regimes import regime_table, sentences, write_picture
from vtw_search.runtime.apply import check_policy
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
    model = _model(config)
    adapter = find_adapter(model)
    facts = adapter.facts(model)
    policy = _policy(config, facts)
    check_policy(policy, facts)
    grid = config.profile.grid(lambda: _tokens_of_an_image(adapter, model))
    counted = _audited(adapter, model, config)
    runner = RegimeRunner(adapter, model, policy, _timing(config))
    rows = []
    for row in runner.rows(grid):
        console.print(f"{row.regime.label()}: {row.status}", highlight=False)
        rows.append(row)
    result = ProfileResult(Path(config.runs) / config.profile_name, tuple(rows))
    _write(result, config, policy, counted, runner)
    _show(result, policy, counted, console)
    _track(result, config, console)
    return result


def _model(config: ProfileConfig) -> Any:
    settings = config.model
    if config.weights == "load":
        loaded = load_model(
            settings.path, revision=settings.revision, device=settings.device, dtype=settings.dtype,
            attention=settings.attention,
        )  # fmt: skip
        return loaded.model
    architecture = load_architecture(settings.path)
    if config.profile.repeats == 0:
        return build_on_meta(architecture).to(DTYPES[settings.dtype])
    device = ("cuda" if torch.cuda.is_available() else "cpu") if settings.device == "auto" else settings.device
    return build_random(
        architecture, device=torch.device(device), dtype=DTYPES[settings.dtype], attention=settings.attention
    )


def _policy(config: ProfileConfig, facts: ModelFacts) -> Policy:
    if config.recipe is not None:
        return config.recipe.policy(facts)
    assert config.policy is not None, "the configuration has either of them"
    policies = load_policy(config.policy)
    if config.task is not None and config.task not in policies.tasks:
        remedy = f"choose one of {', '.join(policies.tasks) or 'none'}, or leave task out for the default"
        raise ConfigError("the policy file must have the task", value=config.task, remedy=remedy)
    return policies.for_task(config.task)


def _timing(config: ProfileConfig) -> ProtocolSettings | None:
    profile = config.profile
    if profile.repeats == 0:
        return None
    return ProtocolSettings(profile.repeats, profile.min_seconds)


def _tokens_of_an_image(adapter: Adapter, model: Any) -> int:
    rows, columns = adapter.default_grid(model)
    return rows * columns // adapter.merge(model)


def _audited(adapter: Adapter, model: Any, config: ProfileConfig) -> CountedPrompt:
    """Hold the formulas that all rows rest on against two counters, on the same architecture without weights."""
    grids = [] if vision_parts(adapter, model) is None else [adapter.default_grid(model)]
    bare = model if model.device.type == "meta" else build_on_meta(type(model.config).from_dict(model.config.to_dict()))
    return count_architecture(adapter, bare, config.profile.prompt_tokens[0], grids)


def _write(
    result: ProfileResult, config: ProfileConfig, policy: Policy, counted: CountedPrompt, runner: RegimeRunner
) -> None:
    content = {
        "policy": policy.model_dump(mode="json"),
        "environment": runner.environment().as_dict(),
        "macs": {
            "convention": f"{counted.cost.convention}: every query with every key",
            "not_counted": dict(counted.not_counted),
            "dead": counted.cost.dead,
            "audit": [row.as_dict() for row in counted.audit],
        },
        "regimes": [row.as_dict() for row in result.rows],
        "verdicts": sentences(result.rows),
    }
    settings = config.model_dump(mode="json")
    settings["tracking"]["uri"] = config.tracking.uri and redact(config.tracking.uri)
    write_text_atomically(result.folder / "config.yaml", yaml.safe_dump(settings, sort_keys=False))
    write_text_atomically(result.folder / "profile.json", json.dumps(content, indent=1) + "\n")
    write_picture(result.rows, policy.label(), result.folder / "profile.png")


def _show(result: ProfileResult, policy: Policy, counted: CountedPrompt, console: Console) -> None:
    console.print(regime_table(result.rows, policy.label()))
    for sentence in sentences(result.rows):
        console.print(sentence, highlight=False)
    modules = len(counted.audit)
    console.print(f"macs: closed form and two counters agree on {modules} modules; files: {result.folder}")


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
        warn=lambda message: console.print(f"[yellow]warning:[/] {message}", highlight=False),
    )
