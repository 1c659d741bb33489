"""The table of all architectures, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtw_search.files import write_text_atomically


def write_table(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write supported rows, refused rows, and what was made smaller for each."""
    supported = [row for row in rows if row["status"] == "supported"]
    refused = [row for row in rows if row["status"] == "refused"]
    lines = [
        f"{len(supported)} of {len(rows)} architectures are supported. Each passed every contract on a tiny "
        "random model of its own config class, eager and sdpa, for every K that it allows.",
        "",
        "| model type | adapter | K of the tiny model | inputs | removing = masking | cached = uncached | dtype |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_supported(row) for row in supported),
        "",
        "| refused | why |",
        "| --- | --- |",
        *(f"| `{row['model_type']}` | {_cell(row['reason'])} |" for row in refused),
        "",
        "## What the tiny models make smaller",
        "",
        "Setting: default value -> value of the tiny model.",
        "",
        *(f"- `{row['model_type']}`: {_reductions(row)}" for row in rows if row.get("tiny")),
    ]
    write_text_atomically(path, "\n".join(lines) + "\n")


def _supported(row: Mapping[str, Any]) -> str:
    numbers = {name[0]: f"{value:.0e}" for name, value in row["deviations"].items()}
    layers = f"{row['first_layer']}..{min(row['last_layer'], row['layers'] - 1)} of {row['layers']}"
    return (
        f"| `{row['model_type']}` | {row['adapter']} | {layers} | {', '.join(row['kinds'])} | {numbers['2']} | "
        f"{numbers['3']} | {row['dtype']} |"
    )


def _reductions(row: Mapping[str, Any]) -> str:
    return "; ".join(f"{name} {_short(before)} -> {_short(after)}" for name, (before, after) in row["tiny"].items())


def _short(value: Any) -> str:
    text = _cell(str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
