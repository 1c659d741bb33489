"""The table of all architectures, as Markdown."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vtw_search.files import write_text_atomically

Row = Mapping[str, Any]
BEGIN, END = "<!-- coverage: begin -->", "<!-- coverage: end -->"


def table(rows: Sequence[Row]) -> str:
    """Return supported rows, then refused ones."""
    supported = [row for row in rows if row["status"] == "supported"]
    refused = [row for row in rows if row["status"] == "refused"]
    lines = [
        f"{len(supported)} of {len(rows)} architectures are supported. Each passed every contract on a tiny random",
        "model of its own config class, under eager and sdpa, for every K that it allows. The numbers are the largest",
        "deviations, relative to the spread of the logits. Where a model amplifies rounding, float64 under sdpa",
        "decides, and the number of float32 is in brackets. Under a generic adapter a model needs a certificate.",
        "",
        "| model type | adapter | K of the tiny model | inputs | removing = masking | cached = uncached | dtype |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(_supported(row) for row in supported),
        "",
        "| refused | why |",
        "| --- | --- |",
        *(f"| `{row['model_type']}` | {_cell(row['reason'])} |" for row in refused),
    ]
    return "\n".join(lines)


def write_table(rows: Sequence[Row], path: Path) -> None:
    """Write the table, and what was made smaller for each tiny model."""
    reductions = [f"- `{row['model_type']}`: {_reductions(row)}" for row in rows if row.get("tiny")]
    heading = ["## What the tiny models make smaller", "", "Setting: default value -> value of the tiny model.", ""]
    write_text_atomically(path, "\n".join([table(rows), "", *heading, *reductions]) + "\n")


def write_into(readme: Path, rows: Sequence[Row]) -> None:
    """Put the table between the markers of a Markdown file."""
    block = f"{BEGIN}\n\n{table(rows)}\n\n{END}"
    text = readme.read_text(encoding="utf-8")
    pattern = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
    assert len(pattern.findall(text)) == 1, f"{readme} must hold the markers once"
    write_text_atomically(readme, pattern.sub(lambda _: block, text))


def _supported(row: Row) -> str:
    layers = f"{row['first_layer']}..{min(row['last_layer'], row['layers'] - 1)} of {row['layers']}"
    return (
        f"| `{row['model_type']}` | {row['adapter']} | {layers} | {', '.join(row['kinds'])} | {_number(row, '2')} | "
        f"{_number(row, '3')} | {row['dtype']} |"
    )


def _number(row: Row, contract: str) -> str:
    """Return a contract's largest deviation where it was decided, then, in brackets, that of another number format."""
    found = {
        dtype: next(value for name, value in numbers.items() if name.startswith(contract))
        for dtype, numbers in row["deviations"].items()
    }
    others = [_shortly(value) for dtype, value in found.items() if dtype != row["dtype"]]
    return _shortly(found[row["dtype"]]) + "".join(f" ({text})" for text in others)


def _shortly(value: float | None) -> str:
    return "failed" if value is None else f"{value:.0e}"


def _reductions(row: Row) -> str:
    return "; ".join(f"{name} {_short(before)} -> {_short(after)}" for name, (before, after) in row["tiny"].items())


def _short(value: Any) -> str:
    text = _cell(str(value))
    return text if len(text) <= 40 else text[:37] + "..."


def _cell(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")
