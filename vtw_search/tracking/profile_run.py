"""One MLflow run per profile: its settings, its numbers per regime, its files."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vtw_search.profiling.rows import RegimeRow
from vtw_search.tracking.content import KIND_TAG
from vtw_search.tracking.guard import cause_of, mlflow_environment, store_errors
from vtw_search.tracking.params import config_params, redact
from vtw_search.tracking.settings import TrackingSettings
from vtw_search.tracking.store import RunContent, RunStore


def log_profile(
    settings: TrackingSettings,
    name: str,
    folder: Path,
    config: Mapping[str, Any],
    rows: Sequence[RegimeRow],
    command: str,
    *,
    warn: Callable[[str], None],
) -> None:
    """Log a profile; a store that does not answer is warned of and stops nothing.

    Args:
        settings: where to.
        name, folder: of the profile; every file in the folder is logged, but hidden ones.
        config: the resolved configuration.
        rows: one per regime.
        command: as it was typed.
        warn: takes the warning.
    """
    tags = {KIND_TAG: "profile", "command": redact(command), "mlflow.source.name": "vtw-profile"}
    verdicts = {f"verdict.{_key(row)}": row.verdict or row.status for row in rows}
    metrics = {key: value for row in rows for key, value in _metrics(row).items()}
    content = RunContent(name, tags | verdicts, config_params(config), metrics)
    outer = sys.exception()
    try:
        with mlflow_environment(settings):
            store = RunStore.open(settings, folder)
            run = store.create(content)
            store.write(run, content)
            store.add_files(run.info.run_id, [path for path in sorted(folder.iterdir()) if path.name[0] != "."])
    except store_errors() as error:
        warn(f"MLflow at {settings.shown_uri} cannot be used ({cause_of(error, outer)}); everything is in {folder}")


def _key(row: RegimeRow) -> str:
    regime = row.regime
    return f"b{regime.batch}_v{regime.visual_tokens}_p{regime.prompt_tokens}_o{regime.output_tokens}"


def _metrics(row: RegimeRow) -> dict[str, float]:
    found = {"macs_ratio": row.macs_ratio, "macs": float(row.candidate.prefill.total)}
    for name in ("speedup", "first_token_speedup", "decode_speedup"):
        interval = getattr(row, name)
        if interval is not None:
            found |= {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}
    if row.ceiling is not None:
        found["speedup_ceiling"] = row.ceiling
    return {f"{_key(row)}.{name}": value for name, value in found.items()}
