"""Print one table of everything that the experiments claim: `make claims`."""

from __future__ import annotations

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table


def claims_table(folder: Path) -> Table:
    """Collect the claims of all experiments in `folder`; a missed one is shown as missed."""
    table = Table("experiment", "claim", "value", "target", "")
    for path in sorted(folder.glob("*/results/result.json")):
        for claim in json.loads(path.read_text())["claims"]:
            target = "" if claim["target"] is None else f"{claim['sense']} {claim['target']:g}"
            met = {True: "[green]met[/]", False: "[bold red]missed[/]", None: ""}[claim["met"]]
            table.add_row(path.parts[-3], claim["name"], f"{claim['value']:.4g} {claim['unit']}", target, met)
    return table


if __name__ == "__main__":
    Console(width=110).print(claims_table(Path(__file__).parent))
