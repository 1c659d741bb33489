"""How often each method accepts what it must not: `python -m experiments.limit_simulations.run`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from itertools import chain
from pathlib import Path

from experiments.limit_simulations.simulation import (
    COUNTS,
    REPETITIONS,
    Cell,
    cluster_cells,
    confirmed_cells,
    drop_cells,
    drop_laws,
    kl_cells,
    kl_laws,
    most_allowed,
    wired_cells,
)
from experiments.result import Claim, write_result
from vtw_search.files import write_text_atomically

HERE = Path(__file__).parent
_HEAD = ("law", "images", "method", "true value = limit", "wrong of 2,000", "right a factor of 2 away")


def all_cells() -> list[Cell]:
    """Return every line of the table."""
    kl = (kl_cells(law, count) for law in kl_laws() for count in COUNTS)
    drops = (drop_cells(name, law, count) for name, law in drop_laws().items() for count in COUNTS)
    wired = (wired_cells(law, count) for law in kl_laws() for count in COUNTS)
    confirmed = (confirmed_cells(law, count) for law in kl_laws() for count in COUNTS)
    return list(chain(*kl, *drops, *map(cluster_cells, COUNTS), *wired, *confirmed))


def table(cells: Sequence[Cell]) -> str:
    """Return the table in Markdown; what exceeds the allowed number is bold."""
    lines = ["| " + " | ".join(_HEAD) + " |", "| " + " | ".join("---" for _ in _HEAD) + " |"]
    for cell in cells:
        wrong = f"**{cell.wrong}**" if cell.wrong > most_allowed() else str(cell.wrong)
        texts = (cell.law, str(cell.images), cell.method, f"{cell.limit:.3g}", wrong, str(cell.right))
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Simulate all laws, sizes and methods."""
    cells = all_cells()
    write_text_atomically(HERE / "results" / "table.md", table(cells))
    claims = []
    for family in (
        "betting, E",
        "Clopper-Pearson",
        "exact paired test",
        "betting, drop",
        "racing, E",
        "racing, drop",
        "racing as",
        "confirmation as",
    ):
        worst = max(cell.wrong for cell in cells if cell.method.startswith(family))
        claims.append(Claim(f"{family}: most wrong decisions", worst, f"of {REPETITIONS}", most_allowed(), "at most"))
    for family in ("naive bootstrap, E[KL]", "naive bootstrap, drop", "naive: betting, each question a draw"):
        worst = max(cell.wrong for cell in cells if cell.method == family)
        claims.append(Claim(f"{family}: most wrong decisions", worst, f"of {REPETITIONS}"))
    write_result(HERE, 20261124, claims, {"cells": [asdict(cell) for cell in cells]})


if __name__ == "__main__":
    main()
